// SIGReg on the device (the formulas and names of csrc/cpu/sigreg.h): projections in fp32, one sincos per projection
// and 17 knots, the other knots by rotation, sums over the batch in a fixed order. Nothing of size B * M * K is stored;
// projections pass through a workspace of a bounded number of rows.
#pragma once

#include "cuda/api.h"

namespace lewm::cuda {

// c [m, n] = a [m, k] b, b [k, n] or, transposed, [n, k]; all row-major fp32.
struct MatrixProduct {
  const float* a;
  const float* b;
  float* c;
  int m, n, k;
  std::int64_t a_stride, b_stride, c_stride;
  bool b_transposed;
};

struct Knots {
  int count;    // K >= 2
  float delta;  // s_k = k * delta
};

// Adds the sums over `rows` projections of each time step to sums[t, m] = (sum cos(s_k p))_k, (sum sin(s_k p))_k.
struct CharacteristicSums {
  const float* p;  // [steps, rows, projections]
  int steps, rows, projections;
  Knots knots;
  double* sums;    // [steps, projections, 2, K]
  float* partial;  // [splits, steps, projections, 2, K], scratch
  int splits;      // 1..rows
};

// Turns projections into the gradient of mean over t and m of T(t, m): p[t, b, m] <- scale * dT/dp_b.
struct ProjectionGradient {
  float* p;  // [steps, rows, projections], in place
  int steps, rows, projections;
  Knots knots;
  const double* sums;  // [steps, projections, 2, K], over the whole batch
  double batch;        // B, of the whole batch
  float scale;
};

// statistic[m] = B * sum_k w_k ((C_k - phi_k)^2 + S_k^2) for each projection.
struct Statistic {
  const double* sums;  // [projections, 2, K]
  int projections;
  Knots knots;
  double batch;
  double* statistic;  // [projections]
};

void launch_matrix_product(const MatrixProduct& args, cudaStream_t stream);
void launch_characteristic_sums(const CharacteristicSums& args, cudaStream_t stream);
void launch_projection_gradient(const ProjectionGradient& args, cudaStream_t stream);
void launch_statistic(const Statistic& args, cudaStream_t stream);

}  // namespace lewm::cuda
