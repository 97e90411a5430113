#include "cuda/sigreg_pass.h"

#include <algorithm>

#include "cuda/runtime.h"

namespace lewm::cuda {
namespace {

constexpr std::int64_t kRows = 2048;  // of projections at once
constexpr std::int64_t kRowsOfASplit = 32;

Knots knots_of(const SigregArguments& a) {
  return {static_cast<int>(a.knots), static_cast<float>(a.t_max / static_cast<double>(a.knots - 1))};
}

std::int64_t rows_at_once(const SigregArguments& a) { return std::min(a.batch, kRows); }
int splits_for(std::int64_t rows) { return static_cast<int>((rows + kRowsOfASplit - 1) / kRowsOfASplit); }
std::int64_t sums_of_a_step(const SigregArguments& a) { return a.num_proj * 2 * a.knots; }

// p [rows, M] = rows [first, first + rows) of a time step, projected.
void project(const SigregArguments& a, std::int64_t step, std::int64_t first, std::int64_t rows, cudaStream_t stream) {
  launch_matrix_product({a.z + (step * a.batch + first) * a.dim, a.directions, a.workspace, static_cast<int>(rows),
                         static_cast<int>(a.num_proj), static_cast<int>(a.dim), a.dim, a.num_proj, a.num_proj, false},
                        stream);
}

// Calls body(step, first, rows) for all rows of all time steps.
template <class Body>
void for_each_part(const SigregArguments& a, const Body& body) {
  for (std::int64_t step = 0; step < a.steps; ++step) {
    for (std::int64_t first = 0; first < a.batch; first += kRows) body(step, first, std::min(kRows, a.batch - first));
  }
}

}  // namespace

std::int64_t sigreg_workspace_floats(const SigregArguments& a) {
  const std::int64_t rows = rows_at_once(a);
  return rows * a.num_proj + splits_for(rows) * sums_of_a_step(a);
}

void enqueue_sigreg_sums(const SigregArguments& a, double* sums, cudaStream_t stream) {
  const std::int64_t bytes = a.steps * sums_of_a_step(a) * static_cast<std::int64_t>(sizeof(double));
  check(cudaMemsetAsync(sums, 0, static_cast<std::size_t>(bytes), stream), "cudaMemsetAsync");
  float* partial = a.workspace + rows_at_once(a) * a.num_proj;
  for_each_part(a, [&](std::int64_t step, std::int64_t first, std::int64_t rows) {
    project(a, step, first, rows, stream);
    launch_characteristic_sums({a.workspace, static_cast<int>(rows), static_cast<int>(a.num_proj), knots_of(a),
                                sums + step * sums_of_a_step(a), partial, splits_for(rows)},
                               stream);
  });
}

void enqueue_sigreg_statistic(const SigregArguments& a, const double* sums, double total, double* statistic,
                              cudaStream_t stream) {
  for (std::int64_t step = 0; step < a.steps; ++step) {
    launch_statistic({sums + step * sums_of_a_step(a), static_cast<int>(a.num_proj), knots_of(a), total,
                      statistic + step * a.num_proj},
                     stream);
  }
}

void enqueue_sigreg_gradient(const SigregArguments& a, const double* sums, double total, double scale, float* gradient,
                             cudaStream_t stream) {
  const auto mean = static_cast<float>(scale / static_cast<double>(a.steps * a.num_proj));
  for_each_part(a, [&](std::int64_t step, std::int64_t first, std::int64_t rows) {
    project(a, step, first, rows, stream);
    launch_projection_gradient({a.workspace, static_cast<int>(rows), static_cast<int>(a.num_proj), knots_of(a),
                                sums + step * sums_of_a_step(a), total, mean},
                               stream);
    launch_matrix_product(
        {a.workspace, a.directions, gradient + (step * a.batch + first) * a.dim, static_cast<int>(rows),
         static_cast<int>(a.dim), static_cast<int>(a.num_proj), a.num_proj, a.num_proj, a.dim, true},
        stream);
  });
}

}  // namespace lewm::cuda
