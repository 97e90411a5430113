// The model's cost of candidates: predicted latents compared with the goal.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/rollout.h"
#include "plan/objective.h"
#include "plan/options.h"

namespace lewm {

// Rolls candidates out with the model and compares the predicted latents with the goal. Construction allocates.
class ModelObjective final : public Objective {
 public:
  ModelObjective(std::shared_ptr<const Model> model, const PlannerOptions& options, int threads);

  // The problems of the following evaluations. Goals must stay valid as long as they are evaluated.
  void prepare(const PlanRequest& request);

  std::int64_t tile() const override { return rollout_.tile(); }
  bool evaluate(int thread, std::int64_t problem, const float* actions, std::int64_t n, float* cost) noexcept override;

 private:
  void final_cost(const float* latents, const float* goal, std::int64_t n, float* cost) const;
  void step_costs(const float* latents, const float* goal, std::int64_t n, float* step, float* cost) const;

  std::shared_ptr<const Model> model_;
  Rollout rollout_;
  std::int64_t horizon_, block_dim_, latent_dim_;
  CostMode mode_;
  float discount_, action_penalty_;
  CostFunction user_cost_;
  void* user_context_;
  bool every_step_;
  const float* goals_ = nullptr;  // [B, D]
  std::int64_t latents_per_thread_;
  std::vector<float> latents_;    // [threads, tile, H or 1, D]
  std::vector<float> step_cost_;  // [threads, tile]
};

}  // namespace lewm
