// Sampling searches over an objective: cem, icem, mppi and predictive sampling, for a batch of problems at once.
#pragma once

#include <cstdint>
#include <memory>

#include "core/error.h"
#include "core/thread_pool.h"
#include "plan/objective.h"
#include "plan/options.h"

namespace lewm {

// The same life and promises as Planner, without a model: `request`'s latents and goals are not looked at.
//
// One iteration is one meeting of the threads: each task takes a tile of one problem's candidates, samples them and
// evaluates them. The refit that follows is a few thousand additions and done by the caller, in a fixed order.
class Search {
 public:
  // action_dim divides block_dim. Throws Error on options that are out of range.
  Search(const PlannerOptions& options, std::int64_t block_dim, std::int64_t action_dim, ThreadPool& pool);
  ~Search();

  // `start`: when the call that has the deadline began, by the options' clock.
  Status run(Objective& objective, const PlanRequest& request, double start, PlanResult& result) noexcept;

  const char* message() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lewm
