// Dot products of 32-bit words for gemm.inl.h. Include after vec_avx2.h. With AVX-VNNI (kernels_avx2_vnni.cpp) one
// instruction multiplies and adds integers, bytes too.
#pragma once

#include "cpu/kernels.h"

namespace lewm::cpu::LEWM_SIMD {

struct DotF32 {
  using Vector = F;
  static constexpr Precision kPrecision = Precision::fp32;
  static constexpr int kGroup = 1;  // elements of k in a word
  static constexpr int kRows = 6;   // 12 sums, 2 weights and a broadcast in 16 registers
  static LEWM_METHOD F zero() { return LEWM_SIMD::zero(); }
  static LEWM_METHOD F load(const void* p) { return _mm256_loadu_ps(static_cast<const float*>(p)); }
  static LEWM_METHOD F broadcast(const void* p) { return set(*static_cast<const float*>(p)); }
  static LEWM_METHOD F dot(F sum, F x, F w) { return fma(x, w, sum); }
  static LEWM_METHOD void store(std::uint32_t* p, F x) { _mm256_storeu_ps(reinterpret_cast<float*>(p), x); }
};

// fp32 arithmetic on the two halves of a word; the compiler splits each weight and each broadcast once.
struct DotBf16 {
  using Vector = I;  // bit patterns: a sum is kLanes floats, a word two bf16
  static constexpr Precision kPrecision = Precision::bf16;
  static constexpr int kGroup = 2;
  static constexpr int kRows = 4;
  static LEWM_METHOD F first(I x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)); }
  static LEWM_METHOD F second(I x) {
    return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static LEWM_METHOD I zero() { return zero_i(); }
  static LEWM_METHOD I load(const void* p) { return load_i(p); }
  static LEWM_METHOD I broadcast(const void* p) { return broadcast_word(p); }
  static LEWM_METHOD I dot(I sum, I x, I w) {
    const F half = fma(first(x), first(w), _mm256_castsi256_ps(sum));
    return _mm256_castps_si256(fma(second(x), second(w), half));
  }
  static LEWM_METHOD void store(std::uint32_t* p, I x) { store_i(p, x); }
};

struct IntegerDot {
  using Vector = I;
  static constexpr int kRows = 6;
  static LEWM_METHOD I zero() { return zero_i(); }
  static LEWM_METHOD I load(const void* p) { return load_i(p); }
  static LEWM_METHOD I broadcast(const void* p) { return broadcast_word(p); }
  static LEWM_METHOD void store(std::uint32_t* p, I x) { store_i(p, x); }
};

struct DotInt16 : IntegerDot {  // exact: int16_levels keeps the sum over the whole of k below 2^31
  static constexpr Precision kPrecision = Precision::int16;
  static constexpr int kGroup = 2;
#if defined(__AVXVNNI__)
  static LEWM_METHOD I dot(I sum, I x, I w) { return _mm256_dpwssd_avx_epi32(sum, x, w); }
#else
  static LEWM_METHOD I dot(I sum, I x, I w) { return add_i(sum, _mm256_madd_epi16(x, w)); }
#endif
};

// Without AVX-VNNI there is none: vpmaddubsw would saturate.
#if defined(__AVXVNNI__)
struct DotInt8 : IntegerDot {  // x unsigned, w signed
  static constexpr Precision kPrecision = Precision::int8;
  static constexpr int kGroup = 4;
  static LEWM_METHOD I dot(I sum, I x, I w) { return _mm256_dpbusd_avx_epi32(sum, x, w); }
};
#endif

using AttentionDot = DotF32;  // of full attention with bf16 storage

}  // namespace lewm::cpu::LEWM_SIMD
