// The AVX-512 tier. fp32 needs F, BW, DQ and VL; bf16 needs BF16 too, int8 and int16 VNNI (isa.cpp leaves out what is
// missing). The order matters: each builds on those before it.
// clang-format off
#include "cpu/vec_avx512.h"
#include "cpu/math.inl.h"
#include "cpu/rows.inl.h"
#include "cpu/pack.inl.h"
#include "cpu/epilogue.inl.h"
#include "cpu/dot_avx512.h"
#include "cpu/gemm.inl.h"
#include "cpu/attention_rows.inl.h"
#include "cpu/norm.inl.h"
#include "cpu/window_attention.inl.h"
#include "cpu/full_attention.inl.h"
#include "cpu/tables.h"
// clang-format on

namespace lewm::cpu {
namespace {

// Dot: of bf16 storage.
template <class Dot>
void full_attention(const FullAttention& args) {
  using namespace avx512;
  args.storage == Store::f32 ? full_attention_as<RegisterBlocks<DotF32>, FloatRow>(args)
                             : full_attention_as<RegisterBlocks<Dot>, Bf16Row>(args);
}

}  // namespace

RunFullAttention avx512_fp32_attention() { return full_attention<avx512::DotF32>; }

const Kernels& avx512_kernels() {
  using namespace avx512;
  static constexpr Kernels kTable = {
      "avx512",
      Precision::fp32,
      Precision::bf16,
      {Precision::int8, Precision::int16},
      {make_gemm<DotF32>(), make_gemm<DotBf16>(), make_gemm<DotInt8>(), make_gemm<DotInt16>()},
      layer_norm,
      ada_ln,
      window_attention,
      attention_scratch<RegisterBlocks<DotF32>>,
      full_attention<AttentionDot>,
      squared_distance};
  return kTable;
}

}  // namespace lewm::cpu
