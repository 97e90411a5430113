// Where candidates come from, and what they cost.
#include "cuda/device.cuh"
#include "cuda/search.cuh"
#include "cuda/search_math.cuh"
#include "plan/philox.h"

namespace lewm::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) begin_search_kernel(const BeginSearch a) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int most = a.elements > a.k ? a.elements : a.k;
  if (index >= std::int64_t{a.problems} * most) return;
  const int problem = static_cast<int>(index / most), i = static_cast<int>(index % most);
  if (i < a.elements) {
    const std::int64_t at = std::int64_t{problem} * a.elements + i;
    const float mean = clip(i < a.warm ? a.warm_start[std::int64_t{problem} * a.warm + i] : 0.0f, a.low, a.high, i);
    a.mean[at] = mean;
    a.initial[at] = mean;
    a.std[at] = a.std_init;
  }
  if (i < a.k) a.elites[std::int64_t{problem} * a.k + i] = -1;
  if (i == 0) {
    a.initial_cost[problem] = NAN;
    a.elite_cost[problem] = NAN;
    a.failed_iteration[problem] = -1;
    a.iteration[problem] = 0;
  }
}

// Element e of candidate `sample`, given its noise.
__device__ __forceinline__ void place(const Sample& a, int problem, int sample, int e, float noise) {
  const float mean = a.mean[std::int64_t{problem} * a.elements + e];
  float value = mean;
  if (sample > 0 && sample <= a.kept && a.iteration[problem] > 0) {
    value = a.kept_candidates[(std::int64_t{problem} * a.kept + sample - 1) * a.elements + e];
  } else if (sample > 0) {
    const float spread = a.std[std::int64_t{problem} * a.elements + e];
    value = clip(philox::fused(spread, noise, mean), a.low, a.high, e);
  }
  a.candidates[(std::int64_t{problem} * a.samples + sample) * a.elements + e] = value;
}

// The draw of one element: of a quad, without indexing it.
__device__ __forceinline__ float normal_at(const philox::Stream& stream, int sample, int e) {
  float quad[4];
  philox::normal_quad(stream, static_cast<std::uint32_t>(sample), static_cast<std::uint32_t>(e / 4), quad);
  const float low = e % 2 ? quad[1] : quad[0], high = e % 2 ? quad[3] : quad[2];
  return e / 2 % 2 ? high : low;
}

// A thread a quad of elements: one Philox block, or one for each of them where draws are held.
__global__ void __launch_bounds__(kThreads) sample_kernel(const Sample a) {
  const int quads = (a.elements + 3) / 4;
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= std::int64_t{a.problems} * a.samples * quads) return;
  const int quad = static_cast<int>(index % quads);
  const int sample = static_cast<int>(index / quads % a.samples);
  const int problem = static_cast<int>(index / quads / a.samples);

  float noise[4];
  const std::uint32_t iteration = a.iteration[problem] + (LEWM_FAULT(kPhiloxCounter) ? 1 : 0);
  const philox::Stream stream{a.seed, *a.plan, iteration, a.problem_ids[problem]};
  philox::normal_quad(stream, static_cast<std::uint32_t>(sample), static_cast<std::uint32_t>(quad), noise);
  LEWM_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int e = 4 * quad + i;
    if (e >= a.elements) break;
    if (a.hold > 1) {
      const int block_dim = a.elements / a.horizon;
      noise[i] = normal_at(stream, sample, static_cast<int>(philox::held_element(e, block_dim, a.action_dim, a.hold)));
    }
    if (a.colour) {
      a.noise[(std::int64_t{problem} * a.samples + sample) * a.elements + e] = noise[i];
    } else {
      place(a, problem, sample, e, noise[i]);
    }
  }
}

// A thread a time series: one dimension of a candidate's blocks, over the horizon. The formulas of
// ColouredNoise::apply; each value is computed where it is needed, three times, instead of being stored.
__global__ void __launch_bounds__(kThreads) colour_kernel(const Sample a) {
  const int horizon = a.horizon, width = a.elements / horizon;
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= std::int64_t{a.problems} * a.samples * width) return;
  const int dimension = static_cast<int>(index % width);
  const std::int64_t candidate = index / width;
  const float* white = a.noise + candidate * a.elements + dimension;
  const auto coloured = [&](int t) {
    double sum = 0;
    for (int u = 0; u < horizon; ++u) {
      const float weight = a.colour[t >= u ? t - u : t - u + horizon];
      sum += static_cast<double>(weight) * static_cast<double>(white[u * width]);  // exact product
    }
    return static_cast<float>(sum);
  };
  double mean = 0;
  for (int t = 0; t < horizon; ++t) mean += static_cast<double>(coloured(t));
  mean /= horizon;
  double squares = 0;
  for (int t = 0; t < horizon; ++t) {
    const double deviation = static_cast<double>(static_cast<float>(static_cast<double>(coloured(t)) - mean));
    squares += deviation * deviation;
  }
  const double inverse = 1.0 / fmax(sqrt(squares / (horizon - 1)), 1e-8);
  const int problem = static_cast<int>(candidate / a.samples), sample = static_cast<int>(candidate % a.samples);
  for (int t = 0; t < horizon; ++t) {
    place(a, problem, sample, t * width + dimension, static_cast<float>(static_cast<double>(coloured(t)) * inverse));
  }
}

// A warp a candidate.
__global__ void __launch_bounds__(kThreads) squared_distance_kernel(const SquaredDistance a) {
  const int row = static_cast<int>(blockIdx.x) * (kThreads / kWarp) + static_cast<int>(threadIdx.x) / kWarp;
  if (row >= a.count) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t candidate = a.first + row;
  const float* latent = a.latents + std::int64_t{row} * a.d;
  const float* goal = a.goal + candidate / a.samples * a.d;
  float sum = 0.0f;
  for (int i = lane; i < a.d; i += kWarp) {
    const float difference = latent[i] - goal[i];
    sum = philox::fused(difference, difference, sum);
  }
  sum = warp_sum(sum);
  if (lane == 0) a.cost[candidate] = philox::fused(a.weight, sum, a.add ? a.cost[candidate] : 0.0f);
}

__global__ void __launch_bounds__(kThreads) action_penalty_kernel(const ActionPenalty a) {
  const std::int64_t candidate = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (candidate >= a.candidates) return;
  double squares = 0;
  for (int e = 0; e < a.elements; ++e) {
    const double action = static_cast<double>(a.actions[candidate * a.elements + e]);
    squares += action * action;
  }
  a.cost[candidate] += static_cast<float>(static_cast<double>(a.penalty) * squares);
}

}  // namespace

void load_sample_kernels() {
  load_kernel(begin_search_kernel);
  load_kernel(sample_kernel);
  load_kernel(colour_kernel);
  load_kernel(squared_distance_kernel);
  load_kernel(action_penalty_kernel);
}

void launch_begin_search(const BeginSearch& args, cudaStream_t stream) {
  const std::int64_t threads = std::int64_t{args.problems} * (args.elements > args.k ? args.elements : args.k);
  LEWM_LAUNCH(begin_search_kernel, dim3(blocks_for(threads, kThreads)), dim3(kThreads), 0, stream, args);
}

void launch_sample(const Sample& args, cudaStream_t stream) {
  const std::int64_t candidates = std::int64_t{args.problems} * args.samples;
  LEWM_LAUNCH(sample_kernel, dim3(blocks_for(candidates * ((args.elements + 3) / 4), kThreads)), dim3(kThreads), 0,
              stream, args);
  if (!args.colour) return;
  LEWM_LAUNCH(colour_kernel, dim3(blocks_for(candidates * (args.elements / args.horizon), kThreads)), dim3(kThreads), 0,
              stream, args);
}

void launch_squared_distance(const SquaredDistance& args, cudaStream_t stream) {
  LEWM_LAUNCH(squared_distance_kernel, dim3(blocks_for(args.count, kThreads / kWarp)), dim3(kThreads), 0, stream, args);
}

void launch_action_penalty(const ActionPenalty& args, cudaStream_t stream) {
  LEWM_LAUNCH(action_penalty_kernel, dim3(blocks_for(args.candidates, kThreads)), dim3(kThreads), 0, stream, args);
}

}  // namespace lewm::cuda
