// SIGReg of a whole batch from the kernels of sigreg.cuh: projections pass through a workspace of bounded size.
#pragma once

#include "cuda/sigreg.cuh"
#include "cuda/table.h"

namespace lewm::cuda {

// Floats of SigregArguments::workspace.
std::int64_t sigreg_workspace_floats(const SigregArguments& a);

// Everything is ordered on `stream`; the arrays are those of Table.
void enqueue_sigreg_sums(const SigregArguments& a, double* sums, cudaStream_t stream);
void enqueue_sigreg_statistic(const SigregArguments& a, const double* sums, double total, double* statistic,
                              cudaStream_t stream);
void enqueue_sigreg_gradient(const SigregArguments& a, const double* sums, double total, double scale, float* gradient,
                             cudaStream_t stream);

}  // namespace lewm::cuda
