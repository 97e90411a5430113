// The planner's own steps on the device: candidates from counted noise, costs, elites, and the next distribution. The
// same bits as csrc/plan computes from the same costs.
#pragma once

#include "cuda/device.cuh"

namespace lewm::cuda {

// candidates[b, i] = clip(mean[b] + std[b] * noise); candidate 0 is the mean itself.
struct Sample {
  int problems, samples, elements;  // B, N, H * A
  std::uint64_t seed;
  std::uint32_t plan, iteration;
  const std::uint32_t* problem_ids;  // [B] or null: 0
  const float* mean;                 // [B, elements]
  const float* std;                  // [B, elements]
  const float* low;                  // [elements] or null
  const float* high;
  float* candidates;  // [B, N, elements]
};

// cost[i] = |latents[i] - goal|^2, summed over D in a fixed order.
struct SquaredDistance {
  int problems, samples, d;  // B, N, D
  const float* latents;      // [B * N, D]
  const float* goal;         // [B, D]
  float* cost;               // [B, N]
};

// The k lowest finite costs of each problem, best first, ties to the lower index; found[b] of them.
struct SelectElites {
  int problems, samples, k;
  const float* cost;     // [B, N]
  std::int32_t* elites;  // [B, k]; -1 beyond found[b]
  std::int32_t* found;   // [B]
};
constexpr int kMostSamples = 8192;  // of SelectElites

// mean = momentum * mean + (1 - momentum) * elite mean, std alike (divisor k - 1; 0 when k is 1), std >= std_min, mean
// clipped. A problem with found[b] < k keeps what it has.
struct RefitNormal {
  int problems, samples, elements, k;
  float momentum, std_min;
  const float* candidates;     // [B, N, elements]
  const std::int32_t* elites;  // [B, k], in any order
  const std::int32_t* found;   // [B]
  const float* low;            // [elements] or null
  const float* high;
  float* mean;  // [B, elements]
  float* std;   // [B, elements]
};

void launch_sample(const Sample& args, cudaStream_t stream);
void launch_squared_distance(const SquaredDistance& args, cudaStream_t stream);
void launch_select_elites(const SelectElites& args, cudaStream_t stream);  // samples <= kMostSamples
void launch_refit_normal(const RefitNormal& args, cudaStream_t stream);

}  // namespace lewm::cuda
