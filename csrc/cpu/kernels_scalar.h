// The scalar tier: plain loops that define what every other tier computes.
#pragma once

#include "cpu/bf16.h"
#include "cpu/kernels.h"

namespace lewm::cpu::scalar {

// Element i of an array of floats or bf16. Internal linkage: per-ISA files include this.
[[maybe_unused]] static inline float stored(const void* data, std::int64_t i, Store storage) {
  return storage == Store::f32 ? static_cast<const float*>(data)[i]
                               : float_from_bf16(static_cast<const std::uint16_t*>(data)[i]);
}

extern const Gemm kGemm[kLayerPrecisions];

// max|x| / levels; 1 for a row of (nearly) zeros, NaN where an element is NaN or infinite, so that neither gets lost.
float integer_scale(const float* x, std::int64_t count, float levels);
std::int32_t quantise(float value, float scale);

// The digits to base 256 of a number of int24, the highest first.
struct Digits {
  std::int8_t digit[kInt24Digits];
};
[[maybe_unused]] static inline Digits digits_of(std::int32_t value) {
  const auto bytes = static_cast<std::uint32_t>(value + 0x808080);  // those of the digits + 128
  const auto digit = [bytes](int place) { return static_cast<std::int8_t>((bytes >> 8 * place & 0xff) ^ 0x80); };
  return {{digit(2), digit(1), digit(0)}};
}

// Writes row r of `out`, k elements of x, in the element type of `precision` (padded_k(k) == k here).
void write_row(const float* x, std::int64_t k, Precision precision, Rows out, std::int64_t r);

void layer_norm(const LayerNorm& args, Precision precision, Rows out);
void ada_ln(const AdaLN& args, Precision precision, Rows out);
void window_attention(const WindowAttention& args, Precision precision, Rows out);
std::size_t full_attention_scratch(std::int64_t tokens, std::int64_t head_dim);
void full_attention(const FullAttention& args);
void squared_distance(const float* x, std::int64_t x_stride, const float* goal, std::int64_t rows, std::int64_t d,
                      float* cost);

}  // namespace lewm::cpu::scalar
