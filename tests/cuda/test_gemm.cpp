// The tensor-core GEMM against plain loops, on the host run.
#include <random>
#include <vector>

#include "check.h"
#include "cuda/device.cuh"
#include "cuda/gemm.cuh"

using namespace lewm::cuda;

namespace {

struct Case {
  int rows, n, k;
};

std::vector<float> normal(std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(count);
  for (float& value : values) value = distribution(random);
  return values;
}

int padded(int k) { return (k + 7) / 8 * 8; }

std::vector<std::uint16_t> bf16_rows(const std::vector<float>& values, int rows, int k) {
  std::vector<std::uint16_t> out(static_cast<std::size_t>(rows) * padded(k), 0x7fc0);  // NaN in the padding
  for (int r = 0; r < rows; ++r) {
    for (int i = 0; i < k; ++i)
      out[static_cast<std::size_t>(r * padded(k) + i)] = float_to_bf16(values[static_cast<std::size_t>(r * k + i)]);
  }
  return out;
}

void compare(const Case& c, bool gated, Activation activation, bool bf16, std::int64_t enough = kEnoughTiles) {
  const auto x = bf16_rows(normal(static_cast<std::size_t>(c.rows * c.k), 1), c.rows, c.k);
  const auto w = bf16_rows(normal(static_cast<std::size_t>(c.n * c.k), 2), c.n, c.k);
  const auto bias = normal(static_cast<std::size_t>(c.n), 3), gate = normal(static_cast<std::size_t>(3 * c.n), 4);
  const auto residual = normal(static_cast<std::size_t>(c.rows * c.n), 5);
  std::vector<std::int32_t> gate_row(static_cast<std::size_t>(c.rows));
  for (int r = 0; r < c.rows; ++r) gate_row[static_cast<std::size_t>(r)] = r % 3;
  std::vector<float> y(residual);
  std::vector<std::uint16_t> y16(static_cast<std::size_t>(c.rows * c.n));

  Gemm gemm{x.data(), padded(c.k), w.data(), padded(c.k), c.rows, c.n, c.k, {}, y.data(), c.n};
  gemm.epilogue.bias = bias.data();
  gemm.epilogue.activation = activation;
  if (gated) {
    gemm.epilogue.gate = gate.data();
    gemm.epilogue.gate_row = gate_row.data();
    gemm.epilogue.gate_stride = c.n;
    gemm.epilogue.residual = y.data();
    gemm.epilogue.residual_stride = c.n;
  }
  if (bf16) {
    gemm.epilogue.store_bf16 = true;
    gemm.y = y16.data();
  }
  launch_gemm(gemm, 0, enough);

  for (int r = 0; r < c.rows; ++r) {
    for (int j = 0; j < c.n; ++j) {
      double sum = bias[static_cast<std::size_t>(j)];
      for (int i = 0; i < c.k; ++i) {
        sum += static_cast<double>(bf16_to_float(x[static_cast<std::size_t>(r * padded(c.k) + i)])) *
               bf16_to_float(w[static_cast<std::size_t>(j * padded(c.k) + i)]);
      }
      if (activation == Activation::gelu) sum = 0.5 * sum * (1.0 + std::erf(sum / std::sqrt(2.0)));
      if (activation == Activation::silu) sum = sum / (1.0 + std::exp(-sum));
      const auto at = static_cast<std::size_t>(r * c.n + j);
      if (gated) sum = residual[at] + sum * gate[static_cast<std::size_t>(r % 3 * c.n + j)];
      const double got = bf16 ? bf16_to_float(y16[at]) : y[at];
      CHECK_NEAR(got, sum, (bf16 ? 0.005 : 1e-5) * (1.0 + std::fabs(sum)) * std::sqrt(static_cast<double>(c.k)));
    }
  }
}

constexpr Case kCases[] = {{1, 1, 1}, {3, 5, 7}, {64, 64, 64}, {65, 63, 66}, {17, 192, 10}, {70, 130, 200}};
constexpr std::int64_t kEnough[] = {1, 5, kEnoughTiles};  // every tile is chosen for one of them
constexpr Case kDeepCases[] = {{33, 34, 512}, {5, 7, 840}};

}  // namespace

TEST(every_shape_and_epilogue_in_every_order) {
  load_gemm_kernels();
  for (const auto order : {host::Order::forward, host::Order::backward, host::Order::shuffled}) {
    host::schedule() = {order, order, 42};
    for (const Case& c : kCases) compare(c, false, Activation::none, false);
    for (const Case& c : kDeepCases) compare(c, c.n % 2 == 0, Activation::none, false);
    compare({33, 70, 40}, true, Activation::gelu, false);
    compare({33, 70, 40}, false, Activation::silu, true);
  }
}

// A problem alone and in a batch goes through different tiles.
TEST(every_tile_gives_the_same_bits) {
  load_gemm_kernels();
  for (const Case& c : {Case{130, 130, 200}, Case{70, 70, 840}}) {
    const auto x = bf16_rows(normal(static_cast<std::size_t>(c.rows * c.k), 1), c.rows, c.k);
    const auto w = bf16_rows(normal(static_cast<std::size_t>(c.n * c.k), 2), c.n, c.k);
    std::vector<float> expected;
    for (const std::int64_t enough : kEnough) {
      std::vector<float> y(static_cast<std::size_t>(c.rows * c.n));
      launch_gemm({x.data(), padded(c.k), w.data(), padded(c.k), c.rows, c.n, c.k, {}, y.data(), c.n}, 0, enough);
      if (expected.empty()) expected = y;
      CHECK(y == expected);
    }
  }
}

TEST(every_tile_and_epilogue) {
  load_gemm_kernels();
  for (const std::int64_t enough : kEnough) {
    compare({130, 132, 24}, true, Activation::gelu, false, enough);
    compare({70, 68, 584}, true, Activation::none, false, enough);
    compare({70, 67, 520}, false, Activation::silu, true, enough);
  }
}

CHECK_MAIN
