// Weights -> panels, for gemm.inl.h and the tile kernels. Include after rows.inl.h.
//
// A panel is [words, kTileColumns] 32-bit words: one float, two bf16 or four int8 of consecutive k. Packing happens
// once per model, so it is plain code.
#pragma once

#include "cpu/kernels_scalar.h"

namespace lewm::cpu::LEWM_SIMD {

constexpr int kTileColumns = kTileVectors * kLanes;

LEWM_INLINE std::int64_t padded_n_of(std::int64_t n) { return (n + kTileColumns - 1) / kTileColumns * kTileColumns; }
[[maybe_unused]] static std::int64_t padded_n(std::int64_t n) { return padded_n_of(n); }

template <Precision P>
static std::int64_t padded_k_of(std::int64_t k) {
  return padded_k<P>(k);
}

template <Precision P>
constexpr int kElementBytes = P == Precision::fp32   ? 4
                              : P == Precision::bf16 ? 2
                                                     : 1;

template <Precision P>
static std::size_t packed_bytes(std::int64_t n, std::int64_t k) {
  return static_cast<std::size_t>(padded_n_of(n) * padded_k<P>(k) * kElementBytes<P>);
}

LEWM_INLINE void encode(float value, float, float* out) { *out = value; }
LEWM_INLINE void encode(float value, float, std::uint16_t* out) { *out = bf16_from_float(value); }
LEWM_INLINE void encode(float value, float scale, std::int8_t* out) { *out = scalar::quantise(value, scale); }

template <Precision P, class T>
static void pack(const float* w, const float* bias, std::int64_t n, std::int64_t k, PackedMatrix* out) {
  constexpr std::int64_t kGroup = 4 / kElementBytes<P>;
  const std::int64_t depth = padded_k<P>(k);
  out->n = n;
  out->k = k;
  for (std::int64_t j = 0; j < padded_n_of(n); ++j) {
    const bool real = j < n;
    T* column = static_cast<T*>(out->data) + j / kTileColumns * kTileColumns * depth + j % kTileColumns * kGroup;
    const float scale = P == Precision::int8 && real ? scalar::int8_scale(w + j * k, k) : 0.0f;
    std::int32_t total = 0;
    for (std::int64_t i = 0; i < depth; ++i) {
      T* place = column + i / kGroup * kTileColumns * kGroup + i % kGroup;
      *place = 0;
      if (real && i < k) encode(w[j * k + i], scale, place);
      if constexpr (P == Precision::int8) total += *place;
    }
    out->bias[j] = bias && real ? bias[j] : 0.0f;
    if constexpr (P == Precision::int8) {
      out->scale[j] = scale;
      out->sum[j] = -kProductZero * total;  // takes the zero point out of the sum of products
    }
  }
}

}  // namespace lewm::cpu::LEWM_SIMD
