// Weights -> panels, for gemm.inl.h and the tile kernels. Include after rows.inl.h.
//
// A panel is [words, kTileColumns] 32-bit words: one float, two bf16 or two or four int8 of consecutive k. Packing
// happens once per model, so it is plain code.
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
                                                     : sizeof(Int8Weight);

template <Precision P>
static std::size_t packed_bytes(std::int64_t n, std::int64_t k) {
  return static_cast<std::size_t>(padded_n_of(n) * padded_k<P>(k) * kElementBytes<P>);
}

LEWM_INLINE void encode(float value, float, float* out) { *out = value; }
LEWM_INLINE void encode(float value, float, std::uint16_t* out) { *out = bf16_from_float(value); }
LEWM_INLINE void encode(float value, float scale, Int8Weight* out) {
  *out = static_cast<Int8Weight>(scalar::quantise(value, scale));
}

// Rows are encoded a stretch at a time, one after the other, and then go into the panel word by word: the first loop is
// vectorised, and the panel is written from front to back.
template <Precision P, class T>
static void pack(const float* w, const float* bias, std::int64_t n, std::int64_t k, PackedMatrix* out) {
  constexpr std::int64_t kGroup = 4 / kElementBytes<P>, kStretch = 64 * kGroup;
  const std::int64_t depth = padded_k<P>(k);
  out->n = n;
  out->k = k;
  char* place = static_cast<char*>(out->data);
  for (std::int64_t first = 0; first < padded_n_of(n); first += kTileColumns) {
    float scale[kTileColumns];
    std::int32_t total[kTileColumns] = {};
    for (std::int64_t c = 0; c < kTileColumns; ++c) {
      scale[c] =
          P == Precision::int8 && first + c < n ? scalar::int8_scale(w + (first + c) * k, k, int8_levels(k)) : 0.0f;
    }
    for (std::int64_t begin = 0; begin < depth; begin += kStretch) {
      const std::int64_t length = depth - begin < kStretch ? depth - begin : kStretch;
      T encoded[kTileColumns][kStretch] = {};
      for (std::int64_t c = 0; c < kTileColumns && first + c < n; ++c) {
        const std::int64_t real = k - begin < length ? k - begin : length;
        const float* row = w + (first + c) * k + begin;
        for (std::int64_t i = 0; i < real; ++i) encode(row[i], scale[c], &encoded[c][i]);
        if constexpr (P == Precision::int8) {
          for (std::int64_t i = 0; i < real; ++i) total[c] += encoded[c][i];
        }
      }
      for (std::int64_t i = 0; i < length; i += kGroup) {
        for (std::int64_t c = 0; c < kTileColumns; ++c, place += 4) __builtin_memcpy(place, &encoded[c][i], 4);
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
