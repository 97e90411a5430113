// From the costs of an iteration to the next distribution. A block a problem.
#include "cuda/device.cuh"
#include "cuda/search.cuh"
#include "cuda/search_math.cuh"
#include "plan/exponential.h"

namespace lewm::cuda {
namespace {

constexpr int kThreads = 128;

// A bitonic sort of all keys in shared memory, `padded` a power of two.
__global__ void __launch_bounds__(kThreads) select_elites_kernel(const SelectElites a, int padded) {
  LEWM_SHARED(shared);
  auto* keys = reinterpret_cast<std::uint64_t*>(shared);
  const int problem = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const float* cost = a.cost + std::int64_t{problem} * a.samples;
  for (int i = thread; i < padded; i += kThreads) {
    keys[i] = i < a.samples ? sort_key(cost[i], i) : kNever;
  }
  for (int size = 2; size <= padded; size *= 2) {
    for (int stride = size / 2; stride; stride /= 2) {
      if (!LEWM_FAULT(kMissingBarrier)) sync_block();
      for (int i = thread; i < padded; i += kThreads) {
        const int partner = i ^ stride;
        if (partner < i) continue;
        const bool ascending = (i & size) == 0;
        const std::uint64_t first = keys[i], second = keys[partner];
        if ((first > second) == ascending) {
          keys[i] = second;
          keys[partner] = first;
        }
      }
    }
  }
  sync_block();
  for (int i = thread; i < a.k; i += kThreads) {
    const bool finite = i < padded && keys[i] != kNever;
    a.elites[std::int64_t{problem} * a.k + i] = finite ? static_cast<std::int32_t>(keys[i] & 0xffffffffu) : -1;
    const bool last = finite && (i + 1 == a.k || i + 1 == padded || keys[i + 1] == kNever);
    if (last) a.found[problem] = i + 1;
    if (i == 0 && !finite) a.found[problem] = 0;
  }
}

// A thread a dimension; its sums run over the elites in the order of their index, in double.
__global__ void __launch_bounds__(kThreads) refit_normal_kernel(const Refit a) {
  LEWM_SHARED(shared);
  auto* order = reinterpret_cast<std::int32_t*>(shared);  // [k], ascending
  const int problem = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  if (a.found[problem] < a.needed) return;  // the whole block leaves
  const std::int32_t* elites = a.elites + std::int64_t{problem} * a.k;
  for (int i = thread; i < a.k; i += kThreads) {
    int rank = 0;
    for (int j = 0; j < a.k; ++j) rank += elites[j] < elites[i];
    order[rank] = elites[i];
  }
  sync_block();

  const float* candidates = a.candidates + std::int64_t{problem} * a.samples * a.elements;
  const double keep = static_cast<double>(a.momentum);
  for (int e = thread; e < a.elements; e += kThreads) {
    double sum = 0;
    for (int i = 0; i < a.k; ++i) sum += static_cast<double>(candidates[std::int64_t{order[i]} * a.elements + e]);
    const double elite_mean = sum / a.k;
    double squares = 0;
    for (int i = 0; i < a.k; ++i) {
      const double value = static_cast<double>(candidates[std::int64_t{order[i]} * a.elements + e]);
      const double deviation = static_cast<double>(static_cast<float>(value - elite_mean));
      squares += deviation * deviation;  // exact product: fusing it changes nothing
    }
    const int divisor = LEWM_FAULT(kBiasedStd) ? a.k : a.k - 1;
    const double elite_std = a.k > 1 ? sqrt(squares / divisor) : 0.0;
    float& mean = a.mean[std::int64_t{problem} * a.elements + e];
    float& std = a.std[std::int64_t{problem} * a.elements + e];
    mean = clip(static_cast<float>(fma(keep, static_cast<double>(mean) - elite_mean, elite_mean)), a.low, a.high, e);
    std = fmaxf(static_cast<float>(fma(keep, static_cast<double>(std) - elite_std, elite_std)), a.std_min);
  }
}

// A thread a dimension; sums run over all candidates in the order of their index, those that do not count with weight
// 0.
__global__ void __launch_bounds__(kThreads) refit_softmax_kernel(const Refit a) {
  LEWM_SHARED(shared);
  auto* weights = reinterpret_cast<float*>(shared);  // [samples]
  const int problem = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const int found = a.found[problem];
  if (found < a.needed) return;
  const float* cost = a.cost + std::int64_t{problem} * a.samples;
  const std::int32_t* elites = a.elites + std::int64_t{problem} * a.k;
  const double least = static_cast<double>(cost[elites[0]]);
  for (int i = thread; i < a.samples && !LEWM_FAULT(kUninitialisedShared); i += kThreads) weights[i] = 0.0f;
  sync_block();
  for (int i = thread; i < found; i += kThreads) {
    const double excess = static_cast<double>(cost[elites[i]]) - least;
    weights[elites[i]] = static_cast<float>(exp_nonpositive(-excess / static_cast<double>(a.temperature)));
  }
  sync_block();

  double total = 0;
  for (int i = 0; i < a.samples; ++i) total += static_cast<double>(weights[i]);
  const float* candidates = a.candidates + std::int64_t{problem} * a.samples * a.elements;
  for (int e = thread; e < a.elements; e += kThreads) {
    double sum = 0;
    for (int i = 0; i < a.samples; ++i) {
      sum += static_cast<double>(weights[i]) * static_cast<double>(candidates[std::int64_t{i} * a.elements + e]);
    }
    a.mean[std::int64_t{problem} * a.elements + e] = clip(static_cast<float>(sum / total), a.low, a.high, e);
  }
}

__global__ void __launch_bounds__(kThreads) refit_best_kernel(const Refit a) {
  const int problem = static_cast<int>(blockIdx.x);
  if (a.found[problem] < a.needed) return;
  const std::int64_t best = std::int64_t{problem} * a.samples + a.elites[std::int64_t{problem} * a.k];
  for (int e = static_cast<int>(threadIdx.x); e < a.elements; e += kThreads) {
    a.mean[std::int64_t{problem} * a.elements + e] = clip(a.candidates[best * a.elements + e], a.low, a.high, e);
  }
}

__global__ void __launch_bounds__(kThreads) close_iteration_kernel(const CloseIteration a) {
  const int problem = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const float* cost = a.cost + std::int64_t{problem} * a.samples;
  const std::int32_t* elites = a.elites + std::int64_t{problem} * a.k;
  const float* candidates = a.candidates + std::int64_t{problem} * a.samples * a.elements;
  const int found = a.found[problem];
  const bool enough = found >= a.needed;
  for (int e = thread; enough && e < a.elements; e += kThreads) {
    a.best[std::int64_t{problem} * a.elements + e] = candidates[std::int64_t{elites[0]} * a.elements + e];
    for (int i = 0; i < a.kept; ++i) {
      a.kept_candidates[(std::int64_t{problem} * a.kept + i) * a.elements + e] =
          candidates[std::int64_t{elites[i]} * a.elements + e];
    }
  }
  if (thread != 0) return;
  if (a.iteration[problem] == 0) a.initial_cost[problem] = cost[0];
  if (!enough && a.failed_iteration[problem] < 0) {
    a.failed_iteration[problem] = static_cast<std::int32_t>(a.iteration[problem]);
    a.failed_found[problem] = found;
  }
  a.iteration[problem] += 1;
  if (!enough) return;
  a.best_cost[problem] = cost[elites[0]];
  const std::uint64_t worst = sort_key(cost[elites[found - 1]], elites[found - 1]);
  double sum = 0;  // in the order of the index
  for (int i = 0; i < a.samples; ++i) {
    if (sort_key(cost[i], i) <= worst) sum += static_cast<double>(cost[i]);
  }
  a.elite_cost[problem] = static_cast<float>(sum / found);
}

__global__ void __launch_bounds__(kThreads) settle_kernel(const Settle a) {
  const int problem = static_cast<int>(blockIdx.x);
  const float initial_cost = a.initial_cost[problem];
  const bool worse = fabsf(initial_cost) < INFINITY && !(a.cost[problem] <= initial_cost);
  sync_block();  // everybody has read the cost
  if (!worse) return;
  for (int e = static_cast<int>(threadIdx.x); e < a.elements; e += kThreads) {
    a.mean[std::int64_t{problem} * a.elements + e] = a.initial[std::int64_t{problem} * a.elements + e];
  }
  if (threadIdx.x == 0) a.cost[problem] = initial_cost;
}

dim3 block_each(int problems) { return dim3(static_cast<unsigned>(problems)); }

}  // namespace

void load_refit_kernels() {
  load_kernel(select_elites_kernel, sizeof(std::uint64_t) * kMostSamples);
  load_kernel(refit_normal_kernel);
  load_kernel(refit_softmax_kernel);
  load_kernel(refit_best_kernel);
  load_kernel(close_iteration_kernel);
  load_kernel(settle_kernel);
}

void launch_select_elites(const SelectElites& args, cudaStream_t stream) {
  int padded = 2;
  while (padded < args.samples) padded *= 2;
  const std::size_t bytes = static_cast<std::size_t>(padded) * sizeof(std::uint64_t);
  LEWM_LAUNCH(select_elites_kernel, block_each(args.problems), dim3(kThreads), bytes, stream, args, padded);
}

void launch_refit_normal(const Refit& args, cudaStream_t stream) {
  LEWM_LAUNCH(refit_normal_kernel, block_each(args.problems), dim3(kThreads),
              static_cast<std::size_t>(args.k) * sizeof(std::int32_t), stream, args);
}

void launch_refit_softmax(const Refit& args, cudaStream_t stream) {
  LEWM_LAUNCH(refit_softmax_kernel, block_each(args.problems), dim3(kThreads),
              static_cast<std::size_t>(args.samples) * sizeof(float), stream, args);
}

void launch_refit_best(const Refit& args, cudaStream_t stream) {
  LEWM_LAUNCH(refit_best_kernel, block_each(args.problems), dim3(kThreads), 0, stream, args);
}

void launch_close_iteration(const CloseIteration& args, cudaStream_t stream) {
  LEWM_LAUNCH(close_iteration_kernel, block_each(args.problems), dim3(kThreads), 0, stream, args);
}

void launch_settle(const Settle& args, cudaStream_t stream) {
  LEWM_LAUNCH(settle_kernel, block_each(args.problems), dim3(kThreads), 0, stream, args);
}

}  // namespace lewm::cuda
