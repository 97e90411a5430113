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
  T* place = static_cast<T*>(out->data);
  for (std::int64_t first = 0; first < padded_n_of(n); first += kTileColumns) {
    float scale[kTileColumns];
    std::int32_t total[kTileColumns] = {};
    for (std::int64_t c = 0; c < kTileColumns; ++c) {
      scale[c] = P == Precision::int8 && first + c < n ? scalar::int8_scale(w + (first + c) * k, k) : 0.0f;
    }
    // In the order of the panel, so that it is written from front to back.
    for (std::int64_t i = 0; i < depth; i += kGroup) {
      for (std::int64_t c = 0; c < kTileColumns; ++c) {
        for (std::int64_t e = i; e < i + kGroup; ++e, ++place) {
          *place = 0;
          if (first + c < n && e < k) encode(w[(first + c) * k + e], scale[c], place);
          if constexpr (P == Precision::int8) total[c] += *place;
        }
      }
    }
    for (std::int64_t c = 0; c < kTileColumns; ++c) {
      out->bias[first + c] = bias && first + c < n ? bias[first + c] : 0.0f;
      if constexpr (P == Precision::int8) {
        out->scale[first + c] = scale[c];
        out->sum[first + c] = -kProductZero * total[c];  // takes the zero point out of the sum of products
      }
    }
  }
}

}  // namespace lewm::cpu::LEWM_SIMD
