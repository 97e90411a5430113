// The planner's own steps on the device: candidates from counted noise, costs, elites, and the next distribution. The
// same bits as csrc/plan computes from the same costs.
#pragma once

#include "cuda/api.h"

namespace lewm::cuda {

// The state before the first iteration: the mean is the warm start, zero beyond its end, within the bounds.
struct BeginSearch {
  int problems, elements, k;  // B, H * A, K
  int warm;                   // elements of the warm start, 0..elements
  const float* warm_start;    // [B, warm]
  float std_init;
  const float* low;  // [elements] or null
  const float* high;
  float* mean;                     // [B, elements]
  float* std;                      // [B, elements]
  float* initial;                  // [B, elements], the mean
  float* initial_cost;             // [B], NaN
  float* elite_cost;               // [B], NaN
  std::int32_t* elites;            // [B, k], -1
  std::int32_t* failed_iteration;  // [B], -1
  std::uint32_t* iteration;        // [B], 0
};

// candidates[b, i] = clip(mean[b] + std[b] * noise). Candidate 0 is the mean itself; from the second iteration on the
// next `kept` ones are kept_candidates.
struct Sample {
  int problems, samples, elements;  // B, N, H * A
  std::uint64_t seed;
  const std::uint32_t* plan;         // [1]
  const std::uint32_t* iteration;    // [B]
  const std::uint32_t* problem_ids;  // [B]
  const float* mean;                 // [B, elements]
  const float* std;                  // [B, elements]
  const float* low;                  // [elements] or null
  const float* high;
  int kept;
  const float* kept_candidates;  // [B, kept, elements]
  int horizon;                   // H
  int action_dim, hold;          // every `hold` steps of a block share a draw
  const float* colour;           // [H], the kernel of ColouredNoise, or null: white noise
  float* noise;                  // [B, N, elements], scratch of coloured noise
  float* candidates;             // [B, N, elements]
};

// cost[first + i] = weight * |latents[i] - goal|^2 [+ cost[first + i]], summed over D in a fixed order. Candidate
// first + i belongs to problem (first + i) / samples.
struct SquaredDistance {
  int count, d;
  std::int64_t first, samples;
  float weight;
  bool add;
  const float* latents;  // [count, D]
  const float* goal;     // [B, D]
  float* cost;           // [B * N]
};

// cost[i] += penalty * sum of the candidate's squared actions.
struct ActionPenalty {
  std::int64_t candidates;
  int elements;
  float penalty;
  const float* actions;  // [candidates, elements]
  float* cost;           // [candidates]
};

// The k lowest finite costs of each problem, best first, ties to the lower index; found[b] of them.
struct SelectElites {
  int problems, samples, k;
  const float* cost;     // [B, N]
  std::int32_t* elites;  // [B, k]; -1 beyond found[b]
  std::int32_t* found;   // [B]
};
constexpr int kMostSamples = 8192;  // of SelectElites

// The next distribution from the elites; a problem with found[b] < needed keeps what it has.
//   normal:  mean = momentum * mean + (1 - momentum) * elite mean, std alike (divisor k - 1; 0 when k is 1), std >=
//   std_min softmax: mean = mean of the found elites with weights softmax(-cost / temperature) best:    mean = the best
//   elite
// The mean is clipped.
struct Refit {
  int problems, samples, elements, k, needed;
  float momentum, std_min;     // normal
  float temperature;           // softmax
  const float* candidates;     // [B, N, elements]
  const float* cost;           // [B, N]
  const std::int32_t* elites;  // [B, k], best first
  const std::int32_t* found;   // [B]
  const float* low;            // [elements] or null
  const float* high;
  float* mean;  // [B, elements]
  float* std;   // [B, elements]
};

// What is remembered of an iteration: its best candidate, the mean cost of its elites, elites to keep; in the first one
// the cost of the initial mean; and where it failed, the first iteration that did. Counts the iteration.
struct CloseIteration {
  int problems, samples, elements, k, needed, kept;
  const float* candidates;         // [B, N, elements]
  const float* cost;               // [B, N]
  const std::int32_t* elites;      // [B, k]
  const std::int32_t* found;       // [B]
  float* best;                     // [B, elements]
  float* best_cost;                // [B]
  float* kept_candidates;          // [B, kept, elements]
  float* elite_cost;               // [B]
  float* initial_cost;             // [B]
  std::int32_t* failed_iteration;  // [B]
  std::int32_t* failed_found;      // [B], finite costs of the failed iteration
  std::uint32_t* iteration;        // [B]
};

// Of a plan that a deadline ends: the initial mean takes the plan's place where that is worse.
struct Settle {
  int problems, elements;
  const float* initial;       // [B, elements]
  const float* initial_cost;  // [B]
  float* mean;                // [B, elements]
  float* cost;                // [B]
};

void launch_begin_search(const BeginSearch& args, cudaStream_t stream);
void launch_sample(const Sample& args, cudaStream_t stream);
void launch_squared_distance(const SquaredDistance& args, cudaStream_t stream);
void launch_action_penalty(const ActionPenalty& args, cudaStream_t stream);
void launch_select_elites(const SelectElites& args, cudaStream_t stream);  // samples <= kMostSamples
void launch_refit_normal(const Refit& args, cudaStream_t stream);
void launch_refit_softmax(const Refit& args, cudaStream_t stream);
void launch_refit_best(const Refit& args, cudaStream_t stream);
void launch_close_iteration(const CloseIteration& args, cudaStream_t stream);
void launch_settle(const Settle& args, cudaStream_t stream);

}  // namespace lewm::cuda
