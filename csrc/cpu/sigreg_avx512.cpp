// SIGReg for AVX-512 (F, BW, DQ, VL).
#include <immintrin.h>

// GCC 12 takes the deliberately undefined operand inside its own AVX-512 intrinsics for a mistake (bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include "cpu/sigreg_simd.h"

namespace lewm::cpu {
namespace {

struct Avx512 {
  using F = __m512;
  using D = __m512d;
  using I = __m512i;
  static constexpr int kWidth = 16;
  static constexpr int kRows = 12;

  static inline F set(float x) { return _mm512_set1_ps(x); }
  static inline F load(const float* p) { return _mm512_loadu_ps(p); }
  static inline void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static inline __mmask16 first(std::int64_t n) { return static_cast<__mmask16>(n >= kWidth ? 0xFFFF : (1 << n) - 1); }
  static inline F load_first(const float* p, std::int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static inline void store_first(float* p, F x, std::int64_t n) { _mm512_mask_storeu_ps(p, first(n), x); }
  static inline F add(F a, F b) { return _mm512_add_ps(a, b); }
  static inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static inline F fms(F a, F b, F c) { return _mm512_fmsub_ps(a, b, c); }
  static inline F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
  static inline F round(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

  static inline F square_root(F x) { return _mm512_sqrt_ps(x); }
  static inline F where_zero(F x, F a, F b) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, set(0.0f), _CMP_EQ_OQ), b, a);
  }
  static inline F odd_first(I n, F odd, F even) {
    return _mm512_mask_blend_ps(_mm512_test_epi32_mask(n, _mm512_set1_epi32(1)), even, odd);
  }

  static inline I set_int(std::uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
  static inline I load_int(const std::uint32_t* p) { return _mm512_loadu_si512(p); }
  static inline I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
  static inline I sub_int(I a, I b) { return _mm512_sub_epi32(a, b); }
  static inline I and_int(I a, I b) { return _mm512_and_si512(a, b); }
  template <int N>
  static inline I shift_left(I x) {
    return _mm512_slli_epi32(x, N);
  }
  template <int N>
  static inline I shift_right(I x) {
    return _mm512_srli_epi32(x, N);
  }
  template <int N>
  static inline I shift_right_signed(I x) {
    return _mm512_srai_epi32(x, N);
  }
  static inline I to_int(F x) { return _mm512_cvtps_epi32(x); }
  static inline F from_int(I x) { return _mm512_cvtepi32_ps(x); }
  static inline I bits(F x) { return _mm512_castps_si512(x); }
  static inline F xor_bits(F x, I y) { return _mm512_xor_ps(x, _mm512_castsi512_ps(y)); }
  static inline F from_bits(I x) { return _mm512_castsi512_ps(x); }

  static inline D set_double(double x) { return _mm512_set1_pd(x); }
  static inline D load_double(const double* p) { return _mm512_loadu_pd(p); }
  static inline void store_double(double* p, D x) { _mm512_storeu_pd(p, x); }
  static inline D widen(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
  static inline void narrow(float* p, D x) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(x)); }
  static inline D add_double(D a, D b) { return _mm512_add_pd(a, b); }
  static inline D mul_double(D a, D b) { return _mm512_mul_pd(a, b); }
  static inline D fma_double(D a, D b, D c) { return _mm512_fmadd_pd(a, b, c); }
  static inline D fraction(D x) {
    return _mm512_sub_pd(x, _mm512_roundscale_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
};

}  // namespace

const SigregKernels& sigreg_avx512() {
  static constexpr SigregKernels table = SigregSimd<Avx512>::table();
  return table;
}

}  // namespace lewm::cpu
