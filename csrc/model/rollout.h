// Latents and action blocks -> predicted latents, with the exact savings of DESIGN.md section 5.
#pragma once

#include <cstdint>
#include <memory>

#include "model/model.h"

namespace lewm {

struct RolloutLimits {
  std::int64_t problems = 1;  // B, most problems prepared at once
  std::int64_t horizon = 5;   // H, most blocks of a candidate
  int threads = 1;
  std::int64_t candidates = INT64_MAX;  // of a problem, at most: a tile need not hold more
};

// Fewer candidates than this are mostly overhead as a task of their own.
constexpr std::int64_t kFewestCandidates = 8;

// Candidates of a task, `most` or fewer: each problem in tasks of equal size, in all a multiple of the threads where
// the samples suffice.
std::int64_t candidates_of_task(std::int64_t problems, std::int64_t samples, std::int64_t most, int threads);

// A workspace over a shared model. Construction allocates all it will ever need; nothing else allocates or throws.
class Rollout {
 public:
  Rollout(std::shared_ptr<const Model> model, const RolloutLimits& limits);
  ~Rollout();

  // Candidates that one tile carries through all steps and layers (memory is bounded by threads * tile).
  std::int64_t tile() const;

  // Computes what all candidates of a problem share. latents: [problems, context, D]; past: [problems, context - 1, A]
  // standardised executed blocks, null when context is 1. context in 1..history. Not concurrent with run_tile.
  void prepare(const float* latents, const float* past, std::int64_t problems, std::int64_t context);

  // Rolls out n <= tile() candidates of one prepared problem. actions: [n, horizon, A], standardised.
  // latents: [n, horizon, D] when every_step, else [n, D] (the last). Concurrent calls need different `thread`s.
  void run_tile(int thread, std::int64_t problem, const float* actions, std::int64_t n, std::int64_t horizon,
                bool every_step, float* latents);

 private:
  struct Workspace;
  std::shared_ptr<const Model> model_;
  std::unique_ptr<Workspace> workspace_;
};

}  // namespace lewm
