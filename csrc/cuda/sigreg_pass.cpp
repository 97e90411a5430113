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

// A part: rows [first, first + rows) of time steps [step, step + steps), whose rows lie one after the other.
struct Part {
  std::int64_t step, steps, first, rows;
};

std::int64_t rows_at_once(const SigregArguments& a) { return std::min(a.batch, kRows); }
std::int64_t steps_at_once(const SigregArguments& a) {
  return std::clamp(kRows / std::max(a.batch, std::int64_t{1}), std::int64_t{1}, a.steps);  // a rank may have no rows
}
int splits_for(std::int64_t rows) { return static_cast<int>((rows + kRowsOfASplit - 1) / kRowsOfASplit); }
std::int64_t sums_of_a_step(const SigregArguments& a) { return a.num_proj * 2 * a.knots; }

// p [steps, rows, M] = a part's rows, projected.
void project(const SigregArguments& a, const Part& part, cudaStream_t stream) {
  launch_matrix_product({a.z + (part.step * a.batch + part.first) * a.dim, a.directions, a.workspace,
                         static_cast<int>(part.steps * part.rows), static_cast<int>(a.num_proj),
                         static_cast<int>(a.dim), a.dim, a.num_proj, a.num_proj, false},
                        stream);
}

// Calls body(part) for all rows of all time steps: several whole steps at once, or a part of one.
template <class Body>
void for_each_part(const SigregArguments& a, const Body& body) {
  const std::int64_t at_once = steps_at_once(a);
  for (std::int64_t step = 0; step < a.steps; step += at_once) {
    const std::int64_t steps = std::min(at_once, a.steps - step);
    for (std::int64_t first = 0; first < a.batch; first += kRows) {
      body(Part{step, steps, first, std::min(kRows, a.batch - first)});
    }
  }
}

}  // namespace

std::int64_t sigreg_workspace_floats(const SigregArguments& a) {
  const std::int64_t rows = rows_at_once(a);
  return steps_at_once(a) * (rows * a.num_proj + splits_for(rows) * sums_of_a_step(a));
}

void enqueue_sigreg_sums(const SigregArguments& a, double* sums, cudaStream_t stream) {
  const std::int64_t bytes = a.steps * sums_of_a_step(a) * static_cast<std::int64_t>(sizeof(double));
  check(cudaMemsetAsync(sums, 0, static_cast<std::size_t>(bytes), stream), "cudaMemsetAsync");
  float* partial = a.workspace + steps_at_once(a) * rows_at_once(a) * a.num_proj;
  for_each_part(a, [&](const Part& part) {
    project(a, part, stream);
    launch_characteristic_sums(
        {a.workspace, static_cast<int>(part.steps), static_cast<int>(part.rows), static_cast<int>(a.num_proj),
         knots_of(a), sums + part.step * sums_of_a_step(a), partial, splits_for(part.rows)},
        stream);
  });
}

void enqueue_sigreg_statistic(const SigregArguments& a, const double* sums, double total, double* statistic,
                              cudaStream_t stream) {
  launch_statistic({sums, static_cast<int>(a.steps * a.num_proj), knots_of(a), total, statistic}, stream);
}

void enqueue_sigreg_gradient(const SigregArguments& a, const double* sums, double total, double scale, float* gradient,
                             cudaStream_t stream) {
  const auto mean = static_cast<float>(scale / static_cast<double>(a.steps * a.num_proj));
  for_each_part(a, [&](const Part& part) {
    project(a, part, stream);
    const auto rows = static_cast<int>(part.rows), steps = static_cast<int>(part.steps);
    launch_projection_gradient({a.workspace, steps, rows, static_cast<int>(a.num_proj), knots_of(a),
                                sums + part.step * sums_of_a_step(a), total, mean},
                               stream);
    launch_matrix_product(
        {a.workspace, a.directions, gradient + (part.step * a.batch + part.first) * a.dim, steps * rows,
         static_cast<int>(a.dim), static_cast<int>(a.num_proj), a.num_proj, a.num_proj, a.dim, true},
        stream);
  });
}

}  // namespace lewm::cuda
