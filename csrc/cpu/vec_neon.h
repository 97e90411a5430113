// NEON (Advanced SIMD of every AArch64) behind the names that the shared kernels (*.inl.h) use.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "cpu/kernels.h"

#ifndef LEWM_SIMD
#define LEWM_SIMD neon  // the namespace; kernels_neon_dot.cpp has these functions in one of its own
#endif
#define LEWM_INLINE static inline __attribute__((always_inline))
#define LEWM_METHOD inline __attribute__((always_inline))

namespace lewm::cpu::LEWM_SIMD {

using F = float32x4_t;  // kLanes floats
using I = int32x4_t;    // kLanes 32-bit integers
constexpr int kLanes = 4;
constexpr int kTileVectors = 2;  // of a GEMM register tile; its rows are the Dot types'
// GEMM rows that stay in the second-level cache, beside panels, if it has 512 KiB.
constexpr std::int64_t kBlockBytes = 250 << 10;
constexpr bool kHasInt8 = true, kHasInt16 = false, kHasInt24 = false;
constexpr int kInt8ProductZero = 0;  // the int8 dot products take the rows' zero point out themselves

LEWM_INLINE F zero() { return vdupq_n_f32(0.0f); }
LEWM_INLINE F set(float x) { return vdupq_n_f32(x); }
LEWM_INLINE F add(F a, F b) { return vaddq_f32(a, b); }
LEWM_INLINE F sub(F a, F b) { return vsubq_f32(a, b); }
LEWM_INLINE F mul(F a, F b) { return vmulq_f32(a, b); }
LEWM_INLINE F div(F a, F b) { return vdivq_f32(a, b); }
LEWM_INLINE F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }   // a * b + c
LEWM_INLINE F fnma(F a, F b, F c) { return vfmsq_f32(c, a, b); }  // c - a * b
LEWM_INLINE F max(F a, F b) { return vmaxq_f32(a, b); }           // NaN where either is NaN
LEWM_INLINE F min(F a, F b) { return vminq_f32(a, b); }           // NaN where either is NaN
// x brought into [-bound, bound]; what becomes of a NaN is unspecified.
LEWM_INLINE F clamp_magnitude(F x, float bound) { return max(set(-bound), min(set(bound), x)); }
LEWM_INLINE F round_nearest(F x) { return vrndnq_f32(x); }
// x * 2^n, n integral in [-252, 254]: in two factors, so that results below the normal range round like any product.
LEWM_INLINE F scale_by_power_of_two(F x, F n) {
  const I whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1), rest = vsubq_s32(whole, half);
  const F a = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, vdupq_n_s32(127)), 23));
  const F b = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, vdupq_n_s32(127)), 23));
  return mul(mul(x, a), b);
}
LEWM_INLINE float sum(F x) { return vaddvq_f32(x); }
LEWM_INLINE float largest(F x) { return vmaxvq_f32(x); }

// v[i][j] <-> v[j][i].
LEWM_INLINE void transpose(F (&v)[kLanes]) {
  const auto halves = [](F x) { return vreinterpretq_f64_f32(x); };
  const F even_top = vtrn1q_f32(v[0], v[1]), odd_top = vtrn2q_f32(v[0], v[1]);
  const F even_end = vtrn1q_f32(v[2], v[3]), odd_end = vtrn2q_f32(v[2], v[3]);
  v[0] = vreinterpretq_f32_f64(vtrn1q_f64(halves(even_top), halves(even_end)));
  v[1] = vreinterpretq_f32_f64(vtrn1q_f64(halves(odd_top), halves(odd_end)));
  v[2] = vreinterpretq_f32_f64(vtrn2q_f64(halves(even_top), halves(even_end)));
  v[3] = vreinterpretq_f32_f64(vtrn2q_f64(halves(odd_top), halves(odd_end)));
}

LEWM_INLINE F load(const float* p) { return vld1q_f32(p); }
LEWM_INLINE void store(float* p, F x) { vst1q_f32(p, x); }
// Lane i: the sum of v[i].
LEWM_INLINE F sums(const F (&v)[kLanes]) {
  float each[kLanes];
  for (int i = 0; i < kLanes; ++i) each[i] = sum(v[i]);
  return load(each);
}
// The first n lanes (none if n <= 0); the others read as zero and are not written.
LEWM_INLINE F load_n(const float* p, std::int64_t n) {
  float lanes[kLanes] = {};
  for (std::int64_t i = 0; i < n && i < kLanes; ++i) lanes[i] = p[i];
  return load(lanes);
}
LEWM_INLINE void store_n(float* p, F x, std::int64_t n) {
  float lanes[kLanes];
  store(lanes, x);
  for (std::int64_t i = 0; i < n && i < kLanes; ++i) p[i] = lanes[i];
}
LEWM_INLINE F keep_n(F x, std::int64_t n) {
  float lanes[kLanes];
  store(lanes, x);
  return load_n(lanes, n);
}

LEWM_INLINE F load(const std::uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
LEWM_INLINE F load_n(const std::uint16_t* p, std::int64_t n) {
  std::uint16_t lanes[kLanes] = {};
  for (std::int64_t i = 0; i < n && i < kLanes; ++i) lanes[i] = p[i];
  return load(lanes);
}
// Round to nearest even; NaN stays NaN.
LEWM_INLINE void store(std::uint16_t* p, F x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  vst1_u16(p, vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, quiet), 16));
}
LEWM_INLINE void store_n(std::uint16_t* p, F x, std::int64_t n) {
  std::uint16_t lanes[kLanes];
  store(lanes, x);
  for (std::int64_t i = 0; i < n && i < kLanes; ++i) p[i] = lanes[i];
}
// a to p, b to p + kLanes.
template <class Element>
LEWM_INLINE void store_pair(Element* p, F a, F b) {
  store(p, a);
  store(p + kLanes, b);
}

// Integers.
LEWM_INLINE I load_i(const void* p) { return vld1q_s32(static_cast<const std::int32_t*>(p)); }
LEWM_INLINE void store_i(void* p, I x) { vst1q_s32(static_cast<std::int32_t*>(p), x); }
LEWM_INLINE I broadcast_word(const void* p) {
  std::int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return vdupq_n_s32(word);
}
LEWM_INLINE I add_i(I a, I b) { return vaddq_s32(a, b); }
LEWM_INLINE F to_float(I x) { return vcvtq_f32_s32(x); }
// The bits of |x| as an integer: ordered like |x|, with NaN above infinity.
LEWM_INLINE I magnitude_bits(F x) { return vandq_s32(vreinterpretq_s32_f32(x), vdupq_n_s32(0x7fffffff)); }
LEWM_INLINE I max_i(I a, I b) { return vmaxq_s32(a, b); }
LEWM_INLINE I zero_i() { return vdupq_n_s32(0); }
LEWM_INLINE std::int32_t largest_i(I x) { return vmaxvq_s32(x); }
// The low byte of each lane's bits.
LEWM_INLINE void store_low_bits(std::uint8_t* p, F x) {
  const uint16x4_t words = vmovn_u32(vreinterpretq_u32_f32(x));
  const std::uint32_t bytes = vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(words, words))), 0);
  __builtin_memcpy(p, &bytes, sizeof bytes);
}

}  // namespace lewm::cpu::LEWM_SIMD
