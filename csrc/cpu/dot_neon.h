// Dot products of 32-bit words for gemm.inl.h. Include after vec_neon.h. With the bf16 and dot-product extensions
// (kernels_neon_dot.cpp) one instruction does the work of the plain sequences.
#pragma once

#include "cpu/kernels.h"

namespace lewm::cpu::LEWM_SIMD {

struct DotF32 {
  using Vector = F;
  static constexpr Precision kPrecision = Precision::fp32;
  static constexpr int kGroup = 1;  // elements of k in a word
  static constexpr int kRows = 12;  // 24 sums, 2 weights and a broadcast in 32 registers
  static LEWM_METHOD F zero() { return LEWM_SIMD::zero(); }
  static LEWM_METHOD F load(const void* p) { return vld1q_f32(static_cast<const float*>(p)); }
  static LEWM_METHOD F broadcast(const void* p) { return vld1q_dup_f32(static_cast<const float*>(p)); }
  static LEWM_METHOD F dot(F sum, F x, F w) { return fma(x, w, sum); }
  static LEWM_METHOD void store(std::uint32_t* p, F x) { vst1q_f32(reinterpret_cast<float*>(p), x); }
};

struct DotBf16 {
  using Vector = I;  // bit patterns: a sum is kLanes floats, a word two bf16
  static constexpr Precision kPrecision = Precision::bf16;
  static constexpr int kGroup = 2;
  static LEWM_METHOD I zero() { return zero_i(); }
  static LEWM_METHOD I load(const void* p) { return load_i(p); }
  static LEWM_METHOD I broadcast(const void* p) { return broadcast_word(p); }
  static LEWM_METHOD void store(std::uint32_t* p, I x) { store_i(p, x); }
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
  static constexpr int kRows = 12;
  static LEWM_METHOD I dot(I sum, I x, I w) {
    return vreinterpretq_s32_f32(
        vbfdotq_f32(vreinterpretq_f32_s32(sum), vreinterpretq_bf16_s32(x), vreinterpretq_bf16_s32(w)));
  }
#else
  static constexpr int kRows = 8;  // the split weights and broadcasts take registers too
  static LEWM_METHOD F first(I x) { return vreinterpretq_f32_s32(vshlq_n_s32(x, 16)); }
  static LEWM_METHOD F second(I x) {
    return vreinterpretq_f32_s32(vandq_s32(x, vdupq_n_s32(static_cast<std::int32_t>(0xffff0000u))));
  }
  static LEWM_METHOD I dot(I sum, I x, I w) {
    const F half = fma(first(x), first(w), vreinterpretq_f32_s32(sum));
    return vreinterpretq_s32_f32(fma(second(x), second(w), half));
  }
#endif
};

// Both operands signed: flipping the top bit of x takes its zero point out.
struct DotInt8 {
  using Vector = I;
  static constexpr Precision kPrecision = Precision::int8;
  static constexpr int kGroup = 4;
  static LEWM_METHOD I zero() { return zero_i(); }
  static LEWM_METHOD I load(const void* p) { return load_i(p); }
  static LEWM_METHOD I broadcast(const void* p) {
    return veorq_s32(broadcast_word(p), vdupq_n_s32(static_cast<std::int32_t>(0x80808080u)));
  }
  static LEWM_METHOD void store(std::uint32_t* p, I x) { store_i(p, x); }
#if defined(__ARM_FEATURE_DOTPROD)
  static constexpr int kRows = 12;
  static LEWM_METHOD I dot(I sum, I x, I w) { return vdotq_s32(sum, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(w)); }
#else
  static constexpr int kRows = 8;
  static LEWM_METHOD I dot(I sum, I x, I w) {
    const int8x16_t a = vreinterpretq_s8_s32(x), b = vreinterpretq_s8_s32(w);
    const I low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    const I high = vpaddlq_s16(vmull_high_s8(a, b));
    return vaddq_s32(sum, vpaddq_s32(low, high));
  }
#endif
};

using AttentionDot = DotF32;  // of full attention with bf16 storage

}  // namespace lewm::cpu::LEWM_SIMD
