// Model-predictive control: frames in, environment actions out, one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/error.h"
#include "plan/planner.h"

namespace lewm {

struct ControllerOptions {
  std::int64_t replan_every = 0;  // blocks executed before the next plan, 1..horizon; 0: the whole horizon
  std::int64_t context = 1;       // frames (and the blocks between them) that a plan sees, 1..history
  bool warm_start = true;         // start a plan from the shifted rest of the last one
  double deadline = kNoDeadline;  // seconds of a plan, encoding included
  std::vector<float> low, high;   // bounds of an environment action, [action_dim], its own units; empty: none
};

// Construction allocates and throws Error; everything else does neither. One thread at a time.
class Controller {
 public:
  Controller(std::shared_ptr<Planner> planner, const ControllerOptions& options);
  ~Controller();

  // Forgets everything, the goal too: the next actions are those of a fresh controller, byte for byte. (Setting the
  // same goal frame again costs nothing: its latent stays cached.)
  void reset() noexcept;

  // goal: [image_size, image_size, 3] uint8 RGB. Encodes only when the pixels differ from the last goal's. Takes effect
  // at the next plan.
  Status set_goal(const std::uint8_t* goal) noexcept;
  Status set_goal_latent(const float* latent) noexcept;  // [D]

  // Whether the next act() looks at its frame: at every plan, and at block boundaries whose frame a later plan's
  // context reaches back to.
  bool needs_frame() const noexcept;
  bool needs_plan() const noexcept;

  // frame: [image_size, image_size, 3] uint8 RGB, may be null when !needs_frame(). action: [action_dim] in the
  // environment's units, clipped to the bounds. spent: seconds of the deadline that are over. When not ok nothing has
  // changed and the call can be repeated.
  Status act(const std::uint8_t* frame, float* action, double spent = 0) noexcept;

  const char* message() const;

  // The plan being executed: standardised blocks [H, A], its cost, iterations and seconds. actions is null before the
  // first plan.
  struct Current {
    const float* actions;
    float cost;
    std::int64_t iterations;
    double elapsed;
  };
  Current current() const noexcept;
  std::int64_t plans() const noexcept;  // made since construction or reset

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lewm
