// What a search minimises: the cost of candidate block sequences.
#pragma once

#include <cstdint>

namespace lewm {

class Objective {
 public:
  virtual ~Objective() = default;

  // Most candidates of one evaluate().
  virtual std::int64_t tile() const = 0;

  // cost[n] of n <= tile() candidates of one problem, actions: [n, H, A]. A candidate's cost does not depend on the
  // others or on the thread. Concurrent calls need different `thread`s. False: the user's cost function refused.
  virtual bool evaluate(int thread, std::int64_t problem, const float* actions, std::int64_t n,
                        float* cost) noexcept = 0;
};

}  // namespace lewm
