// Mistakes that LEWM_FAULT(name) in the kernel sources plants when the environment variable LEWM_CUDA_FAULT names them:
// every test of CMakeLists' list `cuda_faults` must fail with its own.
#pragma once

#define LEWM_CUDA_FAULTS(fault)                                                             \
  fault(kMissingBarrier)          /* the elite sort's steps run into each other */          \
      fault(kMissingStageBarrier) /* GEMM: a warp reads what others are still loading */    \
      fault(kMissingSumBarrier)   /* GEMM: sums are read before they lie there */           \
      fault(kStaleStage)          /* GEMM: one pipeline stage is not waited for */          \
      fault(kFragmentIndex)       /* GEMM: the halves of an operand are swapped */          \
      fault(kRaggedEdge)          /* GEMM: reads one row beyond the matrix */               \
      fault(kMissingResidual)     /* GEMM: the residual is forgotten */                     \
      fault(kGateStride)          /* GEMM: the gate's rows lie elsewhere */                 \
      fault(kShuffleMask)         /* sums over half of a warp */                            \
      fault(kSoftmaxRescale)      /* window attention: earlier keys keep their scale */     \
      fault(kKeyBeyondEnd)        /* full attention: one key too many */                    \
      fault(kTieToHigherIndex)    /* equal costs: the higher index wins */                  \
      fault(kUninitialisedShared) /* softmax weights of candidates that do not count */     \
      fault(kPhiloxCounter)       /* noise of the next iteration */                         \
      fault(kBiasedStd)           /* divisor k instead of k - 1 */                          \
      fault(kLastKnotWeight)      /* SIGReg: the trapezoid rule's last knot counts twice */ \
      fault(kMissingDependency)   /* two calls on two streams share memory */               \
      fault(kErrorLeftBehind)     /* an event's "not ready" is taken for a launch's */      \
      fault(kLoadedInCapture)     /* kernels are first loaded while a graph is captured */

namespace lewm::cuda::host {

enum class PlantedFault {
  none,
#define LEWM_ENUMERATOR(name) name,
  LEWM_CUDA_FAULTS(LEWM_ENUMERATOR)
#undef LEWM_ENUMERATOR
};
PlantedFault planted_fault();

}  // namespace lewm::cuda::host

#define LEWM_FAULT(name) (::lewm::cuda::host::planted_fault() == ::lewm::cuda::host::PlantedFault::name)
