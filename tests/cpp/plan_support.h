// Objectives with a formula instead of a model, and the arrays of a result.
#pragma once

#include <cmath>
#include <functional>
#include <vector>

#include "core/thread_pool.h"
#include "plan/objective.h"
#include "plan/search.h"

namespace lewm::testing {

// A curved valley with its lowest point at `target`; every problem has its own.
inline double valley(const float* actions, std::size_t elements, double target) {
  double cost = 0;
  for (std::size_t e = 0; e < elements; ++e) {
    const double x = actions[e] - target * std::cos(static_cast<double>(e));
    cost += (1 + static_cast<double>(e % 3)) * x * x + 0.3 * std::sin(5 * x);
  }
  return cost;
}

// Any function of one candidate as an objective.
class FormulaObjective final : public Objective {
 public:
  using Formula = std::function<double(std::int64_t problem, const float* actions)>;
  FormulaObjective(Formula formula, std::int64_t elements, std::int64_t tile = 16)
      : formula_(std::move(formula)), elements_(elements), tile_(tile) {}
  std::int64_t tile() const override { return tile_; }
  bool evaluate(int, std::int64_t problem, const float* actions, std::int64_t n, float* cost) noexcept override {
    for (std::int64_t i = 0; i < n; ++i) cost[i] = static_cast<float>(formula_(problem, actions + i * elements_));
    return true;
  }

 private:
  Formula formula_;
  std::int64_t elements_, tile_;
};

// A result and its arrays.
struct OwnedResult {
  OwnedResult(const PlannerOptions& options, std::int64_t block_dim, std::int64_t problems = 1)
      : actions(static_cast<std::size_t>(problems * options.horizon * block_dim), -7.0f),
        std(actions.size(), -7.0f),
        cost(static_cast<std::size_t>(problems), -7.0f),
        elite_cost(static_cast<std::size_t>(problems), -7.0f),
        elites(static_cast<std::size_t>(problems * (options.elites ? options.elites : options.samples)), -7) {
    view.actions = actions.data();
    view.cost = cost.data();
    view.elite_cost = elite_cost.data();
    view.std = std.data();
    view.elites = elites.data();
  }
  std::vector<float> actions, std, cost, elite_cost;
  std::vector<std::int32_t> elites;
  PlanResult view;
};

}  // namespace lewm::testing
