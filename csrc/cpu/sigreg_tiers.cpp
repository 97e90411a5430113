#include "cpu/built_tiers.h"
#include "cpu/sigreg_kernels.h"

namespace lewm::cpu {

const SigregKernels& sigreg_kernels(Isa isa) {
  kernels(isa);  // throws if this machine lacks it
  switch (isa) {
#if LEWM_HAVE_AVX2
    case Isa::avx2:
      return sigreg_avx2();
#endif
#if LEWM_HAVE_AVX512
    case Isa::avx512:
      return sigreg_avx512();
#endif
#if LEWM_HAVE_AMX
    case Isa::amx:
      return sigreg_amx();
#endif
    default:
      return sigreg_scalar();
  }
}

}  // namespace lewm::cpu
