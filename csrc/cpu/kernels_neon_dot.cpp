// bf16 and int8 GEMMs with the dot products of Armv8.6 (BFDOT) and Armv8.2 (SDOT), for the NEON tier.
#define LEWM_SIMD neon_dot
// The order matters: each builds on those before it.
// clang-format off
#include "cpu/vec_neon.h"
#include "cpu/math.inl.h"
#include "cpu/rows.inl.h"
#include "cpu/pack.inl.h"
#include "cpu/epilogue.inl.h"
#include "cpu/dot_neon.h"
#include "cpu/gemm.inl.h"
#include "cpu/tables.h"
// clang-format on

namespace lewm::cpu {

RunGemm neon_dot_bf16() { return neon_dot::run<neon_dot::DotBf16>; }
RunGemm neon_dot_int8() { return neon_dot::run<neon_dot::DotInt8>; }

}  // namespace lewm::cpu
