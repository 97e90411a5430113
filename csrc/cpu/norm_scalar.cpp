// The reference row operations: quantisation, LayerNorm, adaLN, squared distance.
#include <cmath>
#include <limits>

#include "cpu/kernels_scalar.h"

namespace lewm::cpu::scalar {
namespace {

constexpr float kInnerEps = 1e-6f, kOuterEps = 1e-5f;  // of the two LayerNorms of adaLN

// In place: y = (y - mean) / sqrt(variance + eps), two passes, sums in double.
void normalise(float* y, std::int64_t d, float eps) {
  double sum = 0;
  for (std::int64_t i = 0; i < d; ++i) sum += y[i];
  const double mean = sum / static_cast<double>(d);
  double squares = 0;
  for (std::int64_t i = 0; i < d; ++i) squares += (y[i] - mean) * (y[i] - mean);
  const double rstd = 1.0 / std::sqrt(squares / static_cast<double>(d) + eps);
  for (std::int64_t i = 0; i < d; ++i) y[i] = static_cast<float>((y[i] - mean) * rstd);
}

}  // namespace

float integer_scale(const float* x, std::int64_t count, float levels) {
  float largest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(x[i])) return std::numeric_limits<float>::quiet_NaN();
    largest = std::fmax(largest, std::fabs(x[i]));
  }
  return largest < kInt8Tiny ? 1.0f : largest * (1.0f / levels);
}

std::int32_t quantise(float value, float scale) {
  const float steps = value * (1.0f / scale);
  if (!(std::fabs(steps) < 8388608.0f)) return 0;  // NaN: the scale carries it
  return static_cast<std::int32_t>(std::nearbyint(steps));
}

void write_row(const float* x, std::int64_t k, Precision precision, Rows out, std::int64_t r) {
  switch (precision) {
    case Precision::fp32: {
      float* row = static_cast<float*>(out.data) + r * out.stride;
      for (std::int64_t i = 0; i < k; ++i) row[i] = x[i];
      return;
    }
    case Precision::bf16: {
      std::uint16_t* row = static_cast<std::uint16_t*>(out.data) + r * out.stride;
      for (std::int64_t i = 0; i < k; ++i) row[i] = bf16_from_float(x[i]);
      return;
    }
    case Precision::int8: {
      std::uint8_t* row = static_cast<std::uint8_t*>(out.data) + r * out.stride;
      out.scale[r] = integer_scale(x, k, kInt8Levels);
      for (std::int64_t i = 0; i < k; ++i) {
        row[i] = static_cast<std::uint8_t>(quantise(x[i], out.scale[r]) + kInt8Zero);
      }
      return;
    }
    case Precision::int16: {
      std::int16_t* row = static_cast<std::int16_t*>(out.data) + r * out.stride;
      out.scale[r] = integer_scale(x, k, int16_levels(k));
      for (std::int64_t i = 0; i < k; ++i) row[i] = static_cast<std::int16_t>(quantise(x[i], out.scale[r]));
      return;
    }
    case Precision::int24: {
      std::int8_t* row = static_cast<std::int8_t*>(out.data) + r * out.stride * kInt24Digits;
      out.scale[r] = integer_scale(x, k, kInt24Levels);
      for (std::int64_t i = 0; i < k; ++i) {
        const Digits digits = digits_of(quantise(x[i], out.scale[r]));
        for (int d = 0; d < kInt24Digits; ++d) row[d * k + i] = digits.digit[d];
      }
      return;
    }
  }
}

void layer_norm(const LayerNorm& args, Precision precision, Rows out) {
  float y[kMaxWidth];
  for (std::int64_t r = 0; r < args.rows; ++r) {
    for (std::int64_t i = 0; i < args.d; ++i) y[i] = args.x[r * args.x_stride + i];
    normalise(y, args.d, args.eps);
    if (args.gamma) {
      for (std::int64_t i = 0; i < args.d; ++i) y[i] = y[i] * args.gamma[i] + args.beta[i];
    }
    write_row(y, args.d, precision, out, r);
  }
}

void ada_ln(const AdaLN& args, Precision precision, Rows out) {
  float y[kMaxWidth];
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const auto modulation = [&](std::int64_t i) { return stored(args.modulation[r], i, args.storage); };
    for (std::int64_t i = 0; i < args.d; ++i) y[i] = args.x[r * args.x_stride + i];
    normalise(y, args.d, kInnerEps);
    for (std::int64_t i = 0; i < args.d; ++i) {
      y[i] = y[i] * (1.0f + modulation(args.scale_offset + i)) + modulation(args.shift_offset + i);
    }
    normalise(y, args.d, kOuterEps);
    write_row(y, args.d, precision, out, r);
    if (args.kept) {
      for (std::int64_t i = 0; i < args.d; ++i) args.kept[r * args.kept_stride + i] = y[i];
    }
    if (args.anchor) {
      for (std::int64_t i = 0; i < args.d; ++i) y[i] -= args.anchor[r][i];
      write_row(y, args.d, precision, args.differences, r);
    }
  }
}

void squared_distance(const float* x, std::int64_t x_stride, const float* goal, std::int64_t rows, std::int64_t d,
                      float* cost) {
  for (std::int64_t r = 0; r < rows; ++r) {
    double sum = 0;
    for (std::int64_t i = 0; i < d; ++i) {
      const double difference = x[r * x_stride + i] - goal[i];
      sum += difference * difference;
    }
    cost[r] = static_cast<float>(sum);
  }
}

}  // namespace lewm::cpu::scalar
