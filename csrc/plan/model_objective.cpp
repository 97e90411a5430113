#include "plan/model_objective.h"

#include <cmath>

namespace lewm {

ModelObjective::ModelObjective(std::shared_ptr<const Model> model, const PlannerOptions& options, int threads)
    : model_(std::move(model)),
      rollout_(model_, RolloutLimits{.problems = options.problems,
                                     .horizon = options.horizon,
                                     .threads = threads,
                                     .candidates = options.samples}),
      horizon_(options.horizon),
      block_dim_(model_->config().block_dim()),
      latent_dim_(model_->config().latent_dim),
      mode_(options.cost_mode),
      discount_(options.discount),
      action_penalty_(options.action_penalty),
      user_cost_(options.cost),
      user_context_(options.cost_context),
      every_step_(options.cost || options.cost_mode != CostMode::final),
      latents_per_thread_(rollout_.tile() * (every_step_ ? horizon_ : 1) * latent_dim_),
      latents_(static_cast<std::size_t>(threads * latents_per_thread_)),
      step_cost_(static_cast<std::size_t>(threads * rollout_.tile())) {}

void ModelObjective::prepare(const PlanRequest& request) {
  rollout_.prepare(request.latents, request.past_actions, request.problems, request.context);
  goals_ = request.goals;
}

bool ModelObjective::evaluate(int thread, std::int64_t problem, const float* actions, std::int64_t n,
                              float* cost) noexcept {
  float* latents = latents_.data() + thread * latents_per_thread_;
  const float* goal = goals_ + problem * latent_dim_;
  rollout_.run_tile(thread, problem, actions, n, horizon_, every_step_, latents);
  if (user_cost_) {
    const CostArguments arguments{problem, n, horizon_, latent_dim_, block_dim_, latents, actions, goal};
    if (user_cost_(user_context_, arguments, cost) != 0) return false;
  } else if (every_step_) {
    step_costs(latents, goal, n, step_cost_.data() + thread * tile(), cost);
  } else {
    final_cost(latents, goal, n, cost);
  }
  if (action_penalty_ != 0.0f) {
    const std::int64_t elements = horizon_ * block_dim_;
    for (std::int64_t i = 0; i < n; ++i) {
      double squares = 0;  // a float squared is exact in double: the same sum whether or not it is fused
      for (std::int64_t e = 0; e < elements; ++e) {
        const double a = actions[i * elements + e];
        squares += a * a;
      }
      cost[i] += static_cast<float>(action_penalty_ * squares);
    }
  }
  return true;
}

void ModelObjective::final_cost(const float* latents, const float* goal, std::int64_t n, float* cost) const {
  model_->kernels().squared_distance(latents, latent_dim_, goal, n, latent_dim_, cost);
}

// cost = sum over steps of weight * |z_h - goal|^2, in the order of time. step: [n] scratch.
void ModelObjective::step_costs(const float* latents, const float* goal, std::int64_t n, float* step,
                                float* cost) const {
  float weight = 1.0f;
  for (std::int64_t h = 0; h < horizon_; ++h) {
    model_->kernels().squared_distance(latents + h * latent_dim_, horizon_ * latent_dim_, goal, n, latent_dim_, step);
    for (std::int64_t i = 0; i < n; ++i) cost[i] = std::fma(weight, step[i], h ? cost[i] : 0.0f);
    if (mode_ == CostMode::discounted) weight *= discount_;
  }
}

}  // namespace lewm
