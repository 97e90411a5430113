// Frame and goal -> plan: the encoder, the rollout and a sampling search over one model.
#pragma once

#include <cstdint>
#include <memory>

#include "core/error.h"
#include "core/thread_pool.h"
#include "model/model.h"
#include "plan/options.h"

namespace lewm {

// Construction checks the options, allocates all memory and throws Error. Planning does not allocate, lock or throw: it
// returns a status, and message() says what was wrong. A plan is a pure function of model, options and request: the
// same bytes for any number of threads and any batch (without a deadline). One thread at a time; any number of planners
// share a model.
class Planner {
 public:
  // `pool` is used by this planner alone while it plans; it may be shared with other users at other times.
  Planner(std::shared_ptr<const Model> model, const PlannerOptions& options, std::shared_ptr<ThreadPool> pool);
  ~Planner();

  // Fills result's arrays. Status: ok; invalid_argument; no_finite_cost when fewer than `elites` candidates of a
  // problem have a finite cost. With a deadline: never worse in cost than the warm start, and late by one tile of
  // candidates at most, beyond encoding and one evaluation of each start. When not ok the result's arrays hold no plan.
  Status plan(const PlanRequest& request, PlanResult& result) noexcept;

  // The same from pixels: request.latents and request.goals are not read. The deadline covers the encoder.
  // frames: [B, C, image_size, image_size, 3] uint8 RGB; goals: [B, image_size, image_size, 3].
  Status plan_frames(const std::uint8_t* frames, const std::uint8_t* goals, const PlanRequest& request,
                     PlanResult& result) noexcept;
  // frames: [B, C, 3, image_size, image_size] float, normalised with the model's preprocessing; goals alike without C.
  Status plan_frames(const float* frames, const float* goals, const PlanRequest& request, PlanResult& result) noexcept;

  // n frames -> latents [n, D], with this planner's threads.
  Status encode(const std::uint8_t* frames, std::int64_t n, float* latents) noexcept;
  Status encode(const float* frames, std::int64_t n, float* latents) noexcept;

  // Cost of given candidates under this planner's cost. actions: [B, S, H, A] -> cost: [B, S]. Any S >= 1.
  Status evaluate(const PlanRequest& request, const float* actions, std::int64_t samples, float* cost) noexcept;

  // With a device: what calls from now on are ordered on, a cudaStream_t; null: streams of the planner's own. The
  // arrays of requests and results may then lie in the device's memory.
  void set_stream(void* stream);

  // Why the last call returned something else than ok; valid until the next call.
  const char* message() const;

  const Model& model() const;
  const PlannerOptions& options() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lewm
