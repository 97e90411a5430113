// The AVX2 tier.
// The order matters: each builds on those before it.
// clang-format off
#include "cpu/vec_avx2.h"
#include "cpu/math.inl.h"
#include "cpu/rows.inl.h"
#include "cpu/pack.inl.h"
#include "cpu/epilogue.inl.h"
#include "cpu/dot_avx2.h"
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
  using namespace avx2;
  args.storage == Store::f32 ? full_attention_as<RegisterBlocks<DotF32>, FloatRow>(args)
                             : full_attention_as<RegisterBlocks<AttentionDot>, Bf16Row>(args);
}

}  // namespace

const Kernels& avx2_kernels() {
  using namespace avx2;
  static constexpr Kernels kTable = {"avx2",
                                     Precision::fp32,
                                     Precision::int16,
                                     {Precision::int16, Precision::int16},
                                     {make_gemm<DotF32>(), make_gemm<DotBf16>(), {}, make_gemm<DotInt16>()},
                                     layer_norm,
                                     ada_ln,
                                     window_attention,
                                     attention_scratch<RegisterBlocks<DotF32>>,
                                     full_attention,
                                     squared_distance};
  return kTable;
}

}  // namespace lewm::cpu
