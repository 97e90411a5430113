// Dot products of 32-bit words for gemm.inl.h. Include after vec_avx512.h.
#pragma once

#include "cpu/kernels.h"

namespace lewm::cpu::LEWM_SIMD {

struct DotF32 {
  using Vector = F;
  static constexpr Precision kPrecision = Precision::fp32;
  static constexpr int kGroup = 1;  // elements of k in a word
  static constexpr int kRows = 12;  // 24 sums, 2 weights and a broadcast in 32 registers
  static LEWM_METHOD F zero() { return LEWM_SIMD::zero(); }
  static LEWM_METHOD F load(const void* p) { return _mm512_loadu_ps(p); }
  static LEWM_METHOD F broadcast(const void* p) { return set(*static_cast<const float*>(p)); }
  static LEWM_METHOD F dot(F sum, F x, F w) { return fma(x, w, sum); }
  static LEWM_METHOD void store(std::uint32_t* p, F x) { _mm512_storeu_ps(p, x); }
};

struct DotBf16 {
  using Vector = F;
  static constexpr Precision kPrecision = Precision::bf16;
  static constexpr int kGroup = 2;
  static constexpr int kRows = 12;
  static LEWM_METHOD F zero() { return LEWM_SIMD::zero(); }
  static LEWM_METHOD F load(const void* p) { return _mm512_loadu_ps(p); }
  static LEWM_METHOD F broadcast(const void* p) { return _mm512_castsi512_ps(broadcast_word(p)); }
  static LEWM_METHOD F dot(F sum, F x, F w) { return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w); }
  static LEWM_METHOD void store(std::uint32_t* p, F x) { _mm512_storeu_ps(p, x); }
};

struct IntegerDot {
  using Vector = I;
  static constexpr int kRows = 12;
  static LEWM_METHOD I zero() { return zero_i(); }
  static LEWM_METHOD I load(const void* p) { return load_i(p); }
  static LEWM_METHOD I broadcast(const void* p) { return broadcast_word(p); }
  static LEWM_METHOD void store(std::uint32_t* p, I x) { store_i(p, x); }
};

struct DotInt8 : IntegerDot {  // x unsigned, w signed
  static constexpr Precision kPrecision = Precision::int8;
  static constexpr int kGroup = 4;
  static LEWM_METHOD I dot(I sum, I x, I w) { return _mm512_dpbusd_epi32(sum, x, w); }
};

struct DotInt16 : IntegerDot {  // exact: int16_levels keeps the sum over the whole of k below 2^31
  static constexpr Precision kPrecision = Precision::int16;
  static constexpr int kGroup = 2;
  static LEWM_METHOD I dot(I sum, I x, I w) { return _mm512_dpwssd_epi32(sum, x, w); }
};

using AttentionDot = DotBf16;  // of attention with bf16 storage

}  // namespace lewm::cpu::LEWM_SIMD
