// SIGReg's kernels in plain C++, in double: the reference that every instruction set is tested against.
#include <cmath>
#include <numbers>

#include "cpu/bf16.h"
#include "cpu/sigreg_directions.h"
#include "cpu/sigreg_kernels.h"

namespace lewm::cpu {
namespace {

constexpr std::int64_t kColumns = 16;

void draw(std::uint64_t seed, std::int64_t first, std::int64_t dim, float* strip) {
  for (std::int64_t c = 0; c < kColumns; ++c) {
    double square = 0;
    for (std::int64_t row = 0; row < dim; row += 4) {
      const philox::Words words =
          philox::block({{static_cast<std::uint32_t>(row / 4), static_cast<std::uint32_t>(first + c), 0, 0}},
                        static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
      const philox::Pair low = philox::normals(words.v[0], words.v[1]);
      const philox::Pair high = philox::normals(words.v[2], words.v[3]);
      const float quad[4] = {low.first, low.second, high.first, high.second};
      for (std::int64_t r = 0; r < 4 && row + r < dim; ++r) {
        strip[(row + r) * kColumns + c] = quad[r];
        square += static_cast<double>(quad[r]) * static_cast<double>(quad[r]);
      }
    }
    const double inverse = sigreg_inverse_length(square);
    for (std::int64_t row = 0; row < dim; ++row) {
      float& x = strip[row * kColumns + c];
      x = static_cast<float>(static_cast<double>(x) * inverse);
    }
  }
}

double element(const SigregProjection& args, std::int64_t index) {
  if (args.storage == Store::bf16) return float_from_bf16(static_cast<const std::uint16_t*>(args.z)[index]);
  return static_cast<const float*>(args.z)[index];
}

// Always in double, whether args.wide asks for it or not.
void project(const SigregProjection& args) {
  for (std::int64_t row = 0; row < args.rows; ++row) {
    double p[kColumns] = {};
    for (std::int64_t d = 0; d < args.dim; ++d) {
      const double z = element(args, row * args.dim + d);
      for (std::int64_t c = 0; c < kColumns; ++c) p[c] += z * static_cast<double>(args.strip[d * kColumns + c]);
    }
    for (std::int64_t c = 0; c < kColumns; ++c) {
      const double turns = p[c] * args.turns_per_unit;
      args.turns[row * kColumns + c] = static_cast<float>(turns - std::nearbyint(turns));
    }
  }
}

// cos and sin of the angles k * turns, one after the other.
struct Rotation {
  explicit Rotation(float turns) {
    const double angle = 2 * std::numbers::pi * static_cast<double>(turns);
    step_cos = std::cos(angle);
    step_sin = std::sin(angle);
  }
  void next() {
    const double turned = cos * step_cos - sin * step_sin;
    sin = sin * step_cos + cos * step_sin;
    cos = turned;
  }
  double step_cos, step_sin;
  double cos = 1, sin = 0;  // knot 0
};

void add_sums(const float* turns, std::int64_t rows, std::int64_t knots, float*, double* sums) {
  for (std::int64_t i = 0; i < rows * kColumns; ++i) {
    Rotation at(turns[i]);
    double* sum = sums + i % kColumns;
    sum[0] += 1;
    for (std::int64_t k = 1; k < knots; ++k) {
      at.next();
      sum[k * kColumns] += at.cos;
      sum[(knots + k) * kColumns] += at.sin;
    }
  }
}

void slope(const float* turns, std::int64_t rows, std::int64_t knots, const float* coefficients, float* slope,
           std::int64_t stride) {
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t c = 0; c < kColumns; ++c) {
      Rotation at(turns[row * kColumns + c]);
      double sum = 0;
      for (std::int64_t k = 1; k < knots; ++k) {
        at.next();
        sum += static_cast<double>(coefficients[k * kColumns + c]) * at.cos;
        sum += static_cast<double>(coefficients[(knots + k) * kColumns + c]) * at.sin;
      }
      slope[row * stride + c] = static_cast<float>(sum);
    }
  }
}

void multiply(const SigregProduct& args) {
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * args.x_stride;
    float* out = args.out + row * args.out_stride;
    double sum[kColumns] = {};
    for (std::int64_t i = 0; i < args.k; ++i) {
      for (std::int64_t c = 0; c < kColumns; ++c) {
        sum[c] += static_cast<double>(x[i]) * static_cast<double>(args.strip[i * kColumns + c]);
      }
    }
    for (std::int64_t c = 0; c < args.n; ++c) {
      out[c] = static_cast<float>(sum[c]) + (args.accumulate ? out[c] : 0.0f);
    }
  }
}

}  // namespace

const SigregKernels& sigreg_scalar() {
  static constexpr SigregKernels table = {kColumns, 1, draw, project, add_sums, slope, multiply, nullptr, nullptr};
  return table;
}

}  // namespace lewm::cpu
