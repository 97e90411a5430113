// One function per tier that returns its table; isa.cpp alone calls them.
#pragma once

#include "cpu/kernels.h"

namespace lewm::cpu {

const Kernels& scalar_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& amx_kernels();
const Kernels& neon_kernels();

}  // namespace lewm::cpu
