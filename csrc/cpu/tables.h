// One function per tier that returns its table; isa.cpp alone calls them.
#pragma once

#include "cpu/kernels.h"

namespace lewm::cpu {

const Kernels& scalar_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& amx_kernels();
const Kernels& neon_kernels();

// Full attention of the AVX-512 tier by fp32 products, bf16 storage included: for CPUs whose bf16 dot products run at
// half the rate of fp32 ones.
using RunFullAttention = decltype(Kernels::full_attention);
RunFullAttention avx512_fp32_attention();

// GEMMs of the AVX2 tier for CPUs with AVX-VNNI, and of the NEON tier for those with the bf16 and the dot-product
// extension.
using RunGemm = decltype(Gemm::run);
Gemm avx2_vnni_int8();
RunGemm avx2_vnni_int16();
RunGemm neon_dot_bf16();
RunGemm neon_dot_int8();

}  // namespace lewm::cpu
