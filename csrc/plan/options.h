// What a planner is asked to do: method, sizes, bounds and cost.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

namespace lewm {

class Device;  // plan/device.h

enum class Method : int { cem = 0, icem = 1, mppi = 2, predictive_sampling = 3 };

enum class CostMode : int {
  final = 0,       // |z_H - goal|^2, summed over D: the published cost
  sum = 1,         // sum_h |z_h - goal|^2
  discounted = 2,  // sum_h discount^(h - 1) |z_h - goal|^2, h = 1..H
};

// What a user's own cost sees: n candidates of one problem and the latents that the model predicts for them.
struct CostArguments {
  std::int64_t problem;     // index in the batch
  std::int64_t n;           // candidates, at most a tile
  std::int64_t horizon;     // H
  std::int64_t latent_dim;  // D
  std::int64_t block_dim;   // A
  const float* latents;     // [n, H, D]
  const float* actions;     // [n, H, A], standardised
  const float* goal;        // [D]
};

// Writes cost[n]; smaller is better, NaN and infinity mark a candidate that must not be chosen. Called from all of the
// planner's threads at once, must not throw. Anything but 0 abandons the plan with Status::invalid_argument.
using CostFunction = int (*)(void* context, const CostArguments& arguments, float* cost);

// Seconds on any monotonic clock. Tests inject their own; null: std::chrono::steady_clock.
struct Clock {
  double (*now)(void* context) = nullptr;
  void* context = nullptr;
};

struct PlannerOptions {
  Method method = Method::cem;
  std::int64_t samples = 300;    // N, candidates of an iteration
  std::int64_t elites = 30;      // K; mppi: 0 weighs all finite candidates; predictive sampling has none
  std::int64_t iterations = 30;  // at most 65535
  std::int64_t horizon = 5;      // H, blocks
  std::uint64_t seed = 0;

  // Candidates are clipped to [low, high], in the units of candidates (standardised actions). Each is empty (no bound),
  // or has action_dim entries (one environment step, repeated over the block) or block_dim entries.
  std::vector<float> low, high;

  float std_init = 1.0f;     // before the first iteration; mppi and predictive sampling: of all iterations
  float std_min = 0.0f;      // floor of the refitted std (cem, icem); 1 elite has std 0
  float momentum = 0.0f;     // share of the old mean and std that a refit keeps (cem, icem)
  bool return_best = false;  // cem, icem: the best candidate of the last iteration instead of its mean

  std::int64_t action_hold = 1;  // environment steps that share a draw of noise within a block: divides its steps

  float noise_exponent = 2.0f;   // icem: power spectrum of the noise over the horizon, 1 / f^exponent; 0 is white
  std::int64_t kept_elites = 5;  // icem: elites of an iteration that are candidates of the next one again
  float temperature = 0.5f;      // mppi: weights softmax(-cost / temperature)

  CostMode cost_mode = CostMode::final;
  float discount = 0.99f;
  float action_penalty = 0.0f;  // times the sum of a candidate's squared (standardised) actions
  CostFunction cost = nullptr;  // replaces cost_mode
  void* cost_context = nullptr;

  std::int64_t problems = 1;  // B, most problems of one plan
  Clock clock;
  std::shared_ptr<const Device> device;  // the model's weights on a GPU, which then encodes and searches; null: the CPU
};

// The published settings of each method (icem: momentum 0.1; predictive sampling: one iteration).
PlannerOptions default_options(Method method);

// "cem", "icem", "mppi", "predictive_sampling".
const char* method_name(Method method);

// Throws Error(invalid_argument) that names the first option out of range. action_dim divides block_dim.
void check_options(const PlannerOptions& options, std::int64_t block_dim, std::int64_t action_dim);

// Throws Error(invalid_argument) that names the bound of a wrong size, or that no number keeps within. Each bound:
// empty, or [action_dim] or [block_dim] finite numbers or the infinity that bounds nothing.
void check_bounds(const std::vector<float>& low, const std::vector<float>& high, std::int64_t block_dim,
                  std::int64_t action_dim);

constexpr double kNoDeadline = std::numeric_limits<double>::infinity();

// B problems to plan for. The caller owns all arrays; nothing is kept after the call.
struct PlanRequest {
  std::int64_t problems = 1;       // B, at most PlannerOptions::problems
  std::int64_t context = 1;        // C, 1..history
  const float* latents = nullptr;  // [B, C, D], oldest first
  const float* past_actions =
      nullptr;                   // [B, C - 1, A], standardised: block i was executed from frame i; null when C is 1
  const float* goals = nullptr;  // [B, D]
  const float* warm_start = nullptr;  // [B, warm_blocks, A], the mean to start from; null: zeros
  std::int64_t warm_blocks = 0;       // at most H; the rest of the horizon starts at zero

  // The noise is counted by (plan_index, iteration, problem id, sample, element). Ids default to 0 for every problem:
  // each problem of a batch sees the noise that it would see alone. A controller counts its plans in plan_index.
  const std::uint32_t* problem_ids = nullptr;  // [B] or null
  std::uint32_t plan_index = 0;

  double deadline = kNoDeadline;  // seconds from the call; at least 0
};

// Where a plan goes. The caller owns the arrays; those marked optional may be null.
struct PlanResult {
  float* actions = nullptr;  // [B, H, A], standardised
  float* cost = nullptr;     // [B], the model's cost of `actions`, at the model's precision
  float* elite_cost =
      nullptr;           // [B], optional: mean cost of the last iteration's elites (what the published solver reports)
  float* std = nullptr;  // [B, H, A], optional: std after the last iteration
  std::int32_t* elites = nullptr;  // [B, K], optional: the last iteration's elites, best first; -1: none
  std::int64_t iterations = 0;     // that were completed
  double elapsed = 0;              // seconds
};

}  // namespace lewm
