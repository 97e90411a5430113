// AVX-512 (F, BW, DQ, VL) behind the names that the shared kernels (*.inl.h) use.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/kernels.h"

// gcc 12 takes the undefined values inside its own reductions for a mistake.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#ifndef LEWM_SIMD
#define LEWM_SIMD avx512  // the namespace; the AMX tier has these functions in one of its own
#endif
#define LEWM_INLINE static inline __attribute__((always_inline))
#define LEWM_METHOD inline __attribute__((always_inline))

namespace lewm::cpu::LEWM_SIMD {

using F = __m512;   // kLanes floats
using I = __m512i;  // kLanes 32-bit integers
constexpr int kLanes = 16;

constexpr int kTileVectors = 2;  // of a GEMM register tile; its rows are the Dot types'
// GEMM rows that stay in the second-level cache, of 1 or 2 MiB here.
constexpr std::int64_t kBlockBytes = 1000 << 10;
constexpr bool kHasInt8 = true, kHasInt16 = true, kHasInt24 = true;
constexpr int kInt8ProductZero = kInt8Zero;  // still in the int8 dot products

LEWM_INLINE __mmask16 first_lanes(std::int64_t n) {
  return static_cast<__mmask16>(n >= kLanes ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u);
}

LEWM_INLINE F zero() { return _mm512_setzero_ps(); }
LEWM_INLINE F set(float x) { return _mm512_set1_ps(x); }
LEWM_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
LEWM_INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
LEWM_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
LEWM_INLINE F div(F a, F b) { return _mm512_div_ps(a, b); }
LEWM_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }    // a * b + c
LEWM_INLINE F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a * b
LEWM_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }              // b where either is NaN
LEWM_INLINE F min(F a, F b) { return _mm512_min_ps(a, b); }              // b where either is NaN
// x brought into [-bound, bound]; what becomes of a NaN is unspecified.
// (vrangeps does it in one instruction, but waits for the old value of its destination on current Intel cores.)
LEWM_INLINE F clamp_magnitude(F x, float bound) { return max(set(-bound), min(set(bound), x)); }
LEWM_INLINE F round_nearest(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
LEWM_INLINE F scale_by_power_of_two(F x, F n) { return _mm512_scalef_ps(x, n); }  // x * 2^n, n integral
LEWM_INLINE float sum(F x) { return _mm512_reduce_add_ps(x); }
LEWM_INLINE float largest(F x) { return _mm512_reduce_max_ps(x); }
// Lane i: the sum of v[i].
LEWM_INLINE F sums(const F (&v)[kLanes]) {
  F pairs[8], quads[4];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {  // of v[i] and v[i + 8], in turns
    pairs[i] = add(_mm512_unpacklo_ps(v[i], v[i + 8]), _mm512_unpackhi_ps(v[i], v[i + 8]));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // in each quarter, of v[i], v[i + 8], v[i + 4], v[i + 12]
    quads[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(pairs[i]), _mm512_castps_pd(pairs[i + 4])));
    quads[i] =
        add(quads[i], _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(pairs[i]), _mm512_castps_pd(pairs[i + 4]))));
  }
  const F even = add(_mm512_shuffle_f32x4(quads[0], quads[1], 0x88), _mm512_shuffle_f32x4(quads[0], quads[1], 0xdd));
  const F odd = add(_mm512_shuffle_f32x4(quads[2], quads[3], 0x88), _mm512_shuffle_f32x4(quads[2], quads[3], 0xdd));
  const F all = add(_mm512_shuffle_f32x4(even, odd, 0x88), _mm512_shuffle_f32x4(even, odd, 0xdd));
  // Quarter q holds v[q], v[q + 8], v[q + 4], v[q + 12].
  return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15), all);
}

// v[i][j] <-> v[j][i].
LEWM_INLINE void transpose(F (&v)[kLanes]) {
  F pairs[kLanes], quads[kLanes];
#pragma GCC unroll 8
  for (int i = 0; i < kLanes; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kLanes; i += 4) {  // quarter q of quads[i + c]: column 4 q + c of v[i..i + 3]
    const auto pair = [&](int k) { return _mm512_castps_pd(pairs[i + k]); };
    quads[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(pair(0), pair(2)));
    quads[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pair(0), pair(2)));
    quads[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pair(1), pair(3)));
    quads[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pair(1), pair(3)));
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const F even_top = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0x88);
    const F odd_top = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0xdd);
    const F even_end = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0x88);
    const F odd_end = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0xdd);
    v[c] = _mm512_shuffle_f32x4(even_top, even_end, 0x88);
    v[4 + c] = _mm512_shuffle_f32x4(odd_top, odd_end, 0x88);
    v[8 + c] = _mm512_shuffle_f32x4(even_top, even_end, 0xdd);
    v[12 + c] = _mm512_shuffle_f32x4(odd_top, odd_end, 0xdd);
  }
}

LEWM_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
LEWM_INLINE void store(float* p, F x) { _mm512_storeu_ps(p, x); }
// The first n lanes (none if n <= 0); the others read as zero and are not written.
LEWM_INLINE F load_n(const float* p, std::int64_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
LEWM_INLINE void store_n(float* p, F x, std::int64_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), x); }
LEWM_INLINE F keep_n(F x, std::int64_t n) { return _mm512_maskz_mov_ps(first_lanes(n), x); }

LEWM_INLINE F widen_bf16(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
LEWM_INLINE F load(const std::uint16_t* p) {
  return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
LEWM_INLINE F load_n(const std::uint16_t* p, std::int64_t n) {
  return widen_bf16(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}
LEWM_INLINE void store(std::uint16_t* p, F x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(x));
}
LEWM_INLINE void store_n(std::uint16_t* p, F x, std::int64_t n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n), (__m256i)_mm512_cvtneps_pbh(x));
}
// a to p, b to p + kLanes.
LEWM_INLINE void store_pair(float* p, F a, F b) {
  store(p, a);
  store(p + kLanes, b);
}
LEWM_INLINE void store_pair(std::uint16_t* p, F a, F b) { _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(b, a)); }

// table[low 5 bits of the index]; other instruction sets have no cheap way to do this.
#define LEWM_HAS_LOOKUP 1
LEWM_INLINE F lookup(const float (&table)[32], F index) {
  return _mm512_permutex2var_ps(load(table), _mm512_castps_si512(index), load(table + kLanes));
}

// Integers.
LEWM_INLINE I load_i(const void* p) { return _mm512_loadu_si512(p); }
LEWM_INLINE void store_i(void* p, I x) { _mm512_storeu_si512(p, x); }
LEWM_INLINE I broadcast_word(const void* p) {
  std::int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}
LEWM_INLINE I add_i(I a, I b) { return _mm512_add_epi32(a, b); }
LEWM_INLINE F to_float(I x) { return _mm512_cvtepi32_ps(x); }
// The bits of |x| as an integer: ordered like |x|, with NaN above infinity.
LEWM_INLINE I magnitude_bits(F x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)); }
LEWM_INLINE I max_i(I a, I b) { return _mm512_max_epi32(a, b); }
LEWM_INLINE I zero_i() { return _mm512_setzero_si512(); }
LEWM_INLINE std::int32_t largest_i(I x) { return _mm512_reduce_max_epi32(x); }
// The low bits of each lane, as many as an element has.
LEWM_INLINE void store_low_bits(std::uint8_t* p, F x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_castps_si512(x)));
}
LEWM_INLINE void store_low_bits(std::int16_t* p, F x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_castps_si512(x)));
}
// Rounds each lane to an integer and stores its three digits to base 256, -128..127, `stride` apart, the highest first.
LEWM_INLINE void store_digits(std::int8_t* p, std::int64_t stride, F x) {
  // The bytes of the integer + 0x808080 are the digits + 128.
  const I bytes = add_i(_mm512_cvtps_epi32(x), _mm512_set1_epi32(0x808080));
  const auto store_byte = [](std::int8_t * to, I byte) __attribute__((always_inline)) {
    const __m128i digits = _mm_xor_si128(_mm512_cvtepi32_epi8(byte), _mm_set1_epi8(static_cast<char>(0x80)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), digits);
  };
  store_byte(p, _mm512_srli_epi32(bytes, 16));
  store_byte(p + stride, _mm512_srli_epi32(bytes, 8));
  store_byte(p + 2 * stride, bytes);
}

}  // namespace lewm::cpu::LEWM_SIMD
