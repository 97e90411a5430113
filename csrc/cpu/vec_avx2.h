// AVX2 with FMA behind the names that the shared kernels (*.inl.h) use.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/kernels.h"

#ifndef LEWM_SIMD
#define LEWM_SIMD avx2  // the namespace; kernels_avx2_vnni.cpp has these functions in one of its own
#endif
#define LEWM_INLINE static inline __attribute__((always_inline))
#define LEWM_METHOD inline __attribute__((always_inline))

namespace lewm::cpu::LEWM_SIMD {

using F = __m256;   // kLanes floats
using I = __m256i;  // kLanes 32-bit integers
constexpr int kLanes = 8;
constexpr int kTileVectors = 2;  // of a GEMM register tile; its rows are the Dot types'
// GEMM rows that stay in the second-level cache: beside them 512 KiB hold two panels of K = 2048.
constexpr std::int64_t kBlockBytes = 250 << 10;
constexpr bool kHasInt8 = true, kHasInt16 = true, kHasInt24 = false;
constexpr int kInt8ProductZero = kInt8Zero;  // still in the int8 dot products

LEWM_INLINE I first_lanes(std::int64_t n) {
  const int count = n >= kLanes ? kLanes : n <= 0 ? 0 : static_cast<int>(n);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

LEWM_INLINE F zero() { return _mm256_setzero_ps(); }
LEWM_INLINE F set(float x) { return _mm256_set1_ps(x); }
LEWM_INLINE F add(F a, F b) { return _mm256_add_ps(a, b); }
LEWM_INLINE F sub(F a, F b) { return _mm256_sub_ps(a, b); }
LEWM_INLINE F mul(F a, F b) { return _mm256_mul_ps(a, b); }
LEWM_INLINE F div(F a, F b) { return _mm256_div_ps(a, b); }
LEWM_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }    // a * b + c
LEWM_INLINE F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }  // c - a * b
LEWM_INLINE F max(F a, F b) { return _mm256_max_ps(a, b); }              // b where either is NaN
LEWM_INLINE F min(F a, F b) { return _mm256_min_ps(a, b); }              // b where either is NaN
// x brought into [-bound, bound]; what becomes of a NaN is unspecified.
LEWM_INLINE F clamp_magnitude(F x, float bound) { return max(set(-bound), min(set(bound), x)); }
LEWM_INLINE F round_nearest(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// x * 2^n, n integral in [-252, 254]: in two factors, so that results below the normal range round like any product.
LEWM_INLINE F scale_by_power_of_two(F x, F n) {
  const I whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), rest = _mm256_sub_epi32(whole, half);
  const I bias = _mm256_set1_epi32(127);
  const F a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const F b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return mul(mul(x, a), b);
}
LEWM_INLINE float sum(F x) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
LEWM_INLINE float largest(F x) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

// v[i][j] <-> v[j][i].
LEWM_INLINE void transpose(F (&v)[kLanes]) {
  F pairs[kLanes], quads[kLanes];
#pragma GCC unroll 4
  for (int i = 0; i < kLanes; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < kLanes; i += 4) {  // half h of quads[i + c]: column 4 h + c of v[i..i + 3]
    const auto pair = [&](int k) { return _mm256_castps_pd(pairs[i + k]); };
    quads[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(pair(0), pair(2)));
    quads[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(pair(0), pair(2)));
    quads[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(pair(1), pair(3)));
    quads[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(pair(1), pair(3)));
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    v[c] = _mm256_permute2f128_ps(quads[c], quads[4 + c], 0x20);
    v[4 + c] = _mm256_permute2f128_ps(quads[c], quads[4 + c], 0x31);
  }
}

LEWM_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
LEWM_INLINE void store(float* p, F x) { _mm256_storeu_ps(p, x); }
// Lane i: the sum of v[i]. Halves of four vectors at a time, transposed and added.
LEWM_INLINE F sums(const F (&v)[kLanes]) {
  const F low = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
  const F high = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
  return add(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
}
// The first n lanes (none if n <= 0); the others read as zero and are not written.
LEWM_INLINE F load_n(const float* p, std::int64_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
LEWM_INLINE void store_n(float* p, F x, std::int64_t n) { _mm256_maskstore_ps(p, first_lanes(n), x); }
LEWM_INLINE F keep_n(F x, std::int64_t n) { return _mm256_and_ps(x, _mm256_castsi256_ps(first_lanes(n))); }

LEWM_INLINE F load(const std::uint16_t* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
LEWM_INLINE F load_n(const std::uint16_t* p, std::int64_t n) {
  alignas(16) std::uint16_t lanes[kLanes] = {};
  for (std::int64_t i = 0; i < n && i < kLanes; ++i) lanes[i] = p[i];
  return load(lanes);
}
// Round to nearest even; NaN stays NaN.
LEWM_INLINE __m128i to_bf16(F x) {
  const I bits = _mm256_castps_si256(x);
  const I odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const I rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const I quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const I chosen = _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
  const I high = _mm256_srli_epi32(chosen, 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
LEWM_INLINE void store(std::uint16_t* p, F x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_bf16(x)); }
LEWM_INLINE void store_n(std::uint16_t* p, F x, std::int64_t n) {
  alignas(16) std::uint16_t lanes[kLanes];
  store(lanes, x);
  for (std::int64_t i = 0; i < n && i < kLanes; ++i) p[i] = lanes[i];
}
// a to p, b to p + kLanes.
LEWM_INLINE void store_pair(float* p, F a, F b) {
  store(p, a);
  store(p + kLanes, b);
}
LEWM_INLINE void store_pair(std::uint16_t* p, F a, F b) {
  store(p, a);
  store(p + kLanes, b);
}

// Integers.
LEWM_INLINE I load_i(const void* p) { return _mm256_loadu_si256(static_cast<const I*>(p)); }
LEWM_INLINE void store_i(void* p, I x) { _mm256_storeu_si256(static_cast<I*>(p), x); }
LEWM_INLINE I broadcast_word(const void* p) {
  std::int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm256_set1_epi32(word);
}
LEWM_INLINE I add_i(I a, I b) { return _mm256_add_epi32(a, b); }
LEWM_INLINE F to_float(I x) { return _mm256_cvtepi32_ps(x); }
// The bits of |x| as an integer: ordered like |x|, with NaN above infinity.
LEWM_INLINE I magnitude_bits(F x) { return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff)); }
LEWM_INLINE I max_i(I a, I b) { return _mm256_max_epi32(a, b); }
LEWM_INLINE I zero_i() { return _mm256_setzero_si256(); }
LEWM_INLINE std::int32_t largest_i(I x) {
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(1, 0, 3, 2)));
  return _mm_cvtsi128_si32(_mm_max_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(2, 3, 0, 1))));
}
// The low bits of each lane, as many as an element has.
LEWM_INLINE void store_low_bits(std::uint8_t* p, F x) {
  const I low = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0xff));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}
LEWM_INLINE void store_low_bits(std::int16_t* p, F x) {
  const I low = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0xffff));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), words);
}

}  // namespace lewm::cpu::LEWM_SIMD
