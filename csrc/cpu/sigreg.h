// SIGReg of embeddings z [T, B, D] on the CPU: value, gradient, and the sums that ranks exchange.
//
// Per time step t and direction u_m, p = z u_m over the batch, knots s_k = k delta on [0, t_max], phi_k = exp(-s_k^2 /
// 2), trapezoid weights w_k = 2 delta phi_k (half of that at both ends):
//
//   C_k = mean_b cos(s_k p_b)    S_k = mean_b sin(s_k p_b)
//   T(t, m) = B sum_k w_k ((C_k - phi_k)^2 + S_k^2)          SIGReg = mean over t and m
//   dT/dp_b = 2 sum_k w_k s_k (S_k cos(s_k p_b) - (C_k - phi_k) sin(s_k p_b))
//
// Source: LeJEPA, arXiv 2511.08544. Directions are worked through in tiles, so no array grows with M: what is held
// besides the caller's arrays is about kScratchBytes, and no [B, M, K] exists at all.
//
// Error against the formula in exact arithmetic: 1e-5 of the value, 1e-4 of the gradient (in norm), for embeddings of
// scale 0.01 to 100, any batch, collapsed ones too. Results do not depend on the number of threads.
#pragma once

#include <cstdint>

#include "core/arena.h"
#include "core/thread_pool.h"
#include "cpu/isa.h"

namespace lewm::cpu {

struct SigregInput {
  const void* z = nullptr;            // [T, B, D] contiguous
  Store storage = Store::f32;         // element type of z
  std::int64_t steps = 0;             // T >= 1
  std::int64_t batch = 0;             // B; 0 only where other ranks have samples
  std::int64_t dim = 0;               // D >= 1
  const float* directions = nullptr;  // [D, M], unit columns; null: drawn from `seed`
  std::uint64_t seed = 0;
  std::int64_t num_proj = 1024;  // M >= 1
  std::int64_t knots = 17;       // K >= 2
  double t_max = 3.0;            // > 0
};

struct SigregKernels;  // sigreg_kernels.h

// Its threads and workspace; one call at a time.
class Sigreg {
 public:
  // Throws Error(unsupported) if this machine lacks `isa`. threads 0: one per core.
  Sigreg(Isa isa, int threads);
  Sigreg(const Sigreg&) = delete;
  Sigreg& operator=(const Sigreg&) = delete;

  // Returns SIGReg of the input; gradient: [T, B, D], may be null. Throws Error(invalid_argument) for a size out of
  // range, also below.
  double value(const SigregInput& input, float* gradient);

  // sum_b cos(s_k p_b) and sum_b sin(s_k p_b).   sums: [T, M, 2, K]
  void sums(const SigregInput& input, double* sums);

  // The gradient where the batch is `total` samples, this input's among them, and `sums` [T, M, 2, K] are over all of
  // them. gradient: [T, B, D], multiplied by `scale`.
  void gradient(const SigregInput& input, const double* sums, double total, double scale, float* gradient);

  int threads() const { return pool_.threads(); }

 private:
  class Pass;
  void trim();

  ThreadPool pool_;
  const SigregKernels& kernels_;
  AlignedBlock workspace_;  // reused: fresh pages would cost more than the arithmetic
};

// SIGReg from sums [T, M, 2, K] over a batch of `total` samples.
double sigreg_statistic(const double* sums, const SigregInput& input, double total);

// The directions that `seed` stands for, [D, M]: standard normals (plan/philox.h, sample m of stream 0), columns
// normalised.
void sigreg_directions(std::uint64_t seed, std::int64_t dim, std::int64_t num_proj, float* out);

}  // namespace lewm::cpu
