// SIGReg for AVX2 and FMA.
#include <immintrin.h>

#include "cpu/sigreg_simd.h"

namespace lewm::cpu {
namespace {

struct Avx2 {
  using F = __m256;
  using D = __m256d;
  using I = __m256i;
  static constexpr int kWidth = 8;
  static constexpr int kRows = 6;

  static inline F set(float x) { return _mm256_set1_ps(x); }
  static inline F load(const float* p) { return _mm256_loadu_ps(p); }
  static inline void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static inline __m256i first(std::int64_t n) {
    const int count = n >= kWidth ? kWidth : static_cast<int>(n);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static inline F load_first(const float* p, std::int64_t n) { return _mm256_maskload_ps(p, first(n)); }
  static inline void store_first(float* p, F x, std::int64_t n) { _mm256_maskstore_ps(p, first(n), x); }
  static inline F add(F a, F b) { return _mm256_add_ps(a, b); }
  static inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static inline F fms(F a, F b, F c) { return _mm256_fmsub_ps(a, b, c); }
  static inline F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
  static inline F round(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

  static inline F square_root(F x) { return _mm256_sqrt_ps(x); }
  static inline F where_zero(F x, F a, F b) { return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, set(0.0f), _CMP_EQ_OQ)); }
  static inline F odd_first(I n, F odd, F even) {
    return _mm256_blendv_ps(even, odd, _mm256_castsi256_ps(_mm256_slli_epi32(n, 31)));
  }

  static inline I set_int(std::uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
  static inline I load_int(const std::uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const I*>(p)); }
  static inline I add_int(I a, I b) { return _mm256_add_epi32(a, b); }
  static inline I sub_int(I a, I b) { return _mm256_sub_epi32(a, b); }
  static inline I and_int(I a, I b) { return _mm256_and_si256(a, b); }
  template <int N>
  static inline I shift_left(I x) {
    return _mm256_slli_epi32(x, N);
  }
  template <int N>
  static inline I shift_right(I x) {
    return _mm256_srli_epi32(x, N);
  }
  template <int N>
  static inline I shift_right_signed(I x) {
    return _mm256_srai_epi32(x, N);
  }
  static inline I to_int(F x) { return _mm256_cvtps_epi32(x); }
  static inline F from_int(I x) { return _mm256_cvtepi32_ps(x); }
  static inline I bits(F x) { return _mm256_castps_si256(x); }
  static inline F xor_bits(F x, I y) { return _mm256_xor_ps(x, _mm256_castsi256_ps(y)); }
  static inline F from_bits(I x) { return _mm256_castsi256_ps(x); }

  static inline D set_double(double x) { return _mm256_set1_pd(x); }
  static inline D load_double(const double* p) { return _mm256_loadu_pd(p); }
  static inline void store_double(double* p, D x) { _mm256_storeu_pd(p, x); }
  static inline D widen(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
  static inline void narrow(float* p, D x) { _mm_storeu_ps(p, _mm256_cvtpd_ps(x)); }
  static inline D add_double(D a, D b) { return _mm256_add_pd(a, b); }
  static inline D mul_double(D a, D b) { return _mm256_mul_pd(a, b); }
  static inline D fma_double(D a, D b, D c) { return _mm256_fmadd_pd(a, b, c); }
  static inline D fraction(D x) {
    return _mm256_sub_pd(x, _mm256_round_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
};

}  // namespace

const SigregKernels& sigreg_avx2() {
  static constexpr SigregKernels table = SigregSimd<Avx2>::table();
  return table;
}

}  // namespace lewm::cpu
