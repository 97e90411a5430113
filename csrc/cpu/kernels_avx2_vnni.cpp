// GEMMs of integers with the dot products of AVX-VNNI, for the AVX2 tier.
#define LEWM_SIMD avx2_vnni
// The order matters: each builds on those before it.
// clang-format off
#include "cpu/vec_avx2.h"
#include "cpu/math.inl.h"
#include "cpu/rows.inl.h"
#include "cpu/pack.inl.h"
#include "cpu/epilogue.inl.h"
#include "cpu/dot_avx2.h"
#include "cpu/gemm.inl.h"
#include "cpu/tables.h"
// clang-format on

namespace lewm::cpu {

Gemm avx2_vnni_int8() { return avx2_vnni::make_gemm<avx2_vnni::DotInt8>(); }
RunGemm avx2_vnni_int16() { return avx2_vnni::run<avx2_vnni::DotInt16>; }

}  // namespace lewm::cpu
