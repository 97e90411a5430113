// One function per tier that returns its table; isa.cpp alone calls them.
#pragma once

#include "cpu/kernels.h"

namespace lewm::cpu {

const Kernels& scalar_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& amx_kernels();
const Kernels& neon_kernels();

// GEMMs of the NEON tier for CPUs with the bf16 and the dot-product extension.
using RunGemm = decltype(Gemm::run);
RunGemm neon_dot_bf16();
RunGemm neon_dot_int8();

}  // namespace lewm::cpu
