// The AMX tier: tiles for the GEMMs, fp32 ones in int24, and for bf16 full attention, and the AVX-512 tier for all
// else. Both read the same packed weights.
#define LEWM_SIMD amx
// The order matters: each builds on those before it.
// clang-format off
#include "cpu/vec_avx512.h"
#include "cpu/math.inl.h"
#include "cpu/rows.inl.h"
#include "cpu/pack.inl.h"
#include "cpu/epilogue.inl.h"
#include "cpu/gemm_amx.inl.h"
#include "cpu/attention_rows.inl.h"
#include "cpu/full_attention.inl.h"
#include "cpu/tables.h"
// clang-format on

namespace lewm::cpu {
namespace {

void full_attention(const FullAttention& args) {
  if (args.storage == Store::f32) return avx512_kernels().full_attention(args);
  amx::full_attention_as<amx::TileBlocks, amx::Bf16Row>(args);
}

Kernels with_tiles(Kernels table) {
  table.isa = "amx";
  table.fp32 = Precision::int24;
  table.gemm[static_cast<int>(Precision::int24)] = {kInt24Digits,
                                                    amx::padded_k_of<Precision::int24>,
                                                    amx::padded_n,
                                                    amx::packed_bytes<Precision::int24>,
                                                    amx::pack<Precision::int24>,
                                                    amx::convert<Precision::int24>,
                                                    amx::run_tiles<amx::TileInt24>};
  table.int8.fine = Precision::bf16;  // tiles multiply it faster than int16
  table.gemm[static_cast<int>(Precision::bf16)].run = amx::run_tiles<amx::TileBf16>;
  table.gemm[static_cast<int>(Precision::int8)].run = amx::run_tiles<amx::TileInt8>;
  table.full_attention = full_attention;
  table.full_attention_scratch = amx::attention_scratch<amx::TileBlocks>;  // more rows than the AVX-512 tier's
  return table;
}

}  // namespace

const Kernels& amx_kernels() {
  static const Kernels table = with_tiles(avx512_kernels());
  return table;
}

}  // namespace lewm::cpu
