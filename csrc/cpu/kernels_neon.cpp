// The NEON tier, for every AArch64 CPU. Where the CPU has dot products, isa.cpp takes those GEMMs from
// kernels_neon_dot.cpp, which reads the same packed weights.
// The order matters: each builds on those before it.
// clang-format off
#include "cpu/vec_neon.h"
#include "cpu/math.inl.h"
#include "cpu/rows.inl.h"
#include "cpu/pack.inl.h"
#include "cpu/epilogue.inl.h"
#include "cpu/dot_neon.h"
#include "cpu/gemm.inl.h"
#include "cpu/attention_rows.inl.h"
#include "cpu/norm.inl.h"
#include "cpu/window_attention.inl.h"
#include "cpu/full_attention.inl.h"
#include "cpu/tables.h"
// clang-format on

namespace lewm::cpu {
namespace {

void full_attention(const FullAttention& args) {
  using namespace neon;
  args.storage == Store::f32 ? full_attention_as<RegisterBlocks<DotF32>, FloatRow>(args)
                             : full_attention_as<RegisterBlocks<AttentionDot>, Bf16Row>(args);
}

}  // namespace

const Kernels& neon_kernels() {
  using namespace neon;
  static constexpr Kernels kTable = {"neon",
                                     Precision::fp32,
                                     Precision::bf16,
                                     {Precision::int8, Precision::bf16},
                                     {make_gemm<DotF32>(), make_gemm<DotBf16>(), make_gemm<DotInt8>(), {}},
                                     layer_norm,
                                     ada_ln,
                                     window_attention,
                                     attention_scratch<RegisterBlocks<DotF32>>,
                                     full_attention,
                                     squared_distance};
  return kTable;
}

}  // namespace lewm::cpu
