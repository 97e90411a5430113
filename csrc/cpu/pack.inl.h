// Weights -> panels, for gemm.inl.h and the tile kernels. Include after rows.inl.h.
//
// A panel is [words, kTileColumns] 32-bit words: one float, two bf16 or int16, or four int8 of consecutive k; of int24
// three such, the lowest digits first.
#pragma once

#include "cpu/bf16.h"
#include "cpu/kernels.h"

namespace lewm::cpu::LEWM_SIMD {

constexpr int kTileColumns = kTileVectors * kLanes;

LEWM_INLINE std::int64_t padded_n_of(std::int64_t n) { return (n + kTileColumns - 1) / kTileColumns * kTileColumns; }
[[maybe_unused]] static std::int64_t padded_n(std::int64_t n) { return padded_n_of(n); }

template <Precision P>
static std::int64_t padded_k_of(std::int64_t k) {
  return padded_k<P>(k);
}

// The type of a packed weight.
template <Precision P>
struct Packed {
  using Weight = typename Integers<P>::Weight;
};
template <>
struct Packed<Precision::fp32> {
  using Weight = float;
};
template <>
struct Packed<Precision::bf16> {
  using Weight = std::uint16_t;
};

template <Precision P>
static std::size_t packed_bytes(std::int64_t n, std::int64_t k) {
  return static_cast<std::size_t>(padded_n_of(n) * padded_k<P>(k) * kDigits<P>) * sizeof(typename Packed<P>::Weight);
}

// out: [digits, kStretch] <- n weights, the highest digits first.
template <Precision P, std::int64_t kStretch>
LEWM_INLINE void encode(const float* w, std::int64_t n, float scale, typename Packed<P>::Weight* out) {
  if constexpr (P == Precision::int8) {
    write_integers<P, 0>(w, n, kStretch, scale, reinterpret_cast<std::uint8_t*>(out));
  } else if constexpr (is_integer(P)) {
    write_integers<P, 0>(w, n, kStretch, scale, out);
  } else if constexpr (P == Precision::bf16) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = bf16_from_float(w[i]);
  } else {
    __builtin_memcpy(out, w, static_cast<std::size_t>(n) * sizeof(float));
  }
}

// Rows are encoded a stretch at a time, one after the other, and then go into the panel word by word: the first loop is
// vectorised, and the panel is written from front to back.
template <Precision P>
static void pack(const float* w, const float* bias, std::int64_t n, std::int64_t k, PackedMatrix* out) {
  using T = typename Packed<P>::Weight;
  constexpr std::int64_t kGroup = 4 / sizeof(T), kStretch = 64 * kGroup;
  const std::int64_t depth = padded_k<P>(k);
  out->n = n;
  out->k = k;
  const std::int64_t digit_bytes = depth * kTileColumns * static_cast<std::int64_t>(sizeof(T));
  char* place = static_cast<char*>(out->data);
  for (std::int64_t first = 0; first < padded_n_of(n); first += kTileColumns) {
    float scale[kTileColumns] = {};
    std::int32_t total[kTileColumns] = {};
    if constexpr (is_integer(P)) {
      for (std::int64_t c = 0; c < kTileColumns && first + c < n; ++c) {
        scale[c] = integer_scale(w + (first + c) * k, k, Integers<P>::levels(k));
      }
    }
    for (std::int64_t begin = 0; begin < depth; begin += kStretch) {
      const std::int64_t length = depth - begin < kStretch ? depth - begin : kStretch;
      T encoded[kTileColumns][kDigits<P> * kStretch] = {};
      for (std::int64_t c = 0; c < kTileColumns && first + c < n; ++c) {
        const std::int64_t real = k - begin < length ? k - begin : length;
        const float* row = w + (first + c) * k + begin;
        encode<P, kStretch>(row, real, scale[c], encoded[c]);
        if constexpr (is_integer(P)) {
          for (std::int64_t i = 0; i < real; ++i) total[c] += encoded[c][i];
        }
      }
      for (std::int64_t i = 0; i < length; i += kGroup) {
        for (std::int64_t c = 0; c < kTileColumns; ++c, place += 4) {
          for (int d = 0; d < kDigits<P>; ++d) {
            __builtin_memcpy(place + d * digit_bytes, &encoded[c][(kDigits<P> - 1 - d) * kStretch + i], 4);
          }
        }
      }
    }
    place += (kDigits<P> - 1) * digit_bytes;
    for (std::int64_t c = 0; c < kTileColumns; ++c) {
      out->bias[first + c] = bias && first + c < n ? bias[first + c] : 0.0f;
      if constexpr (is_integer(P)) {
        out->scale[first + c] = scale[c];
        out->sum[first + c] = -Integers<P>::kProductZero * total[c];  // takes the zero point out of the sum of products
      }
    }
  }
}

}  // namespace lewm::cpu::LEWM_SIMD
