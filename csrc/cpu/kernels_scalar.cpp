#include "cpu/kernels_scalar.h"

#include "cpu/tables.h"

namespace lewm::cpu {

const Kernels& scalar_kernels() {
  static const Kernels table = {
      "scalar",
      Precision::fp32,
      Precision::bf16,
      {Precision::int8, Precision::bf16},
      {scalar::kGemm[0], scalar::kGemm[1], scalar::kGemm[2], scalar::kGemm[3], scalar::kGemm[4]},
      scalar::layer_norm,
      scalar::ada_ln,
      scalar::window_attention,
      scalar::full_attention_scratch,
      scalar::full_attention,
      scalar::squared_distance};
  return table;
}

}  // namespace lewm::cpu
