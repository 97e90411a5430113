// Which tokens each step of a rollout computes.
//
// Frames are numbered from the first context frame: 0..C-1 are the context, C + t is predicted by step t. Frame f is
// paired with the block that leaves it: executed block f for f < C - 1, candidate block f - (C - 1) from there on. Step
// t sees the last `history` of the frames 0..C-1+t, at positions counted from the start of that window.
//
// Frames before C - 1 and their blocks are the same for all candidates: what others need of them is computed once per
// problem and window start. Until the window slides, the candidates' own keys and values are kept from step to step.
//
// Keys and values are linear, and softmax does not change when all its logits do by the same, so with the first token
// of the window, the anchor, x_0:
//   sum_j p_j V x_j = V x_0 + sum_{j>0} p_j V (x_j - x_0),   p = softmax_j(q . K x_j) = softmax_j(q . K (x_j - x_0))
// The anchor needs no query, key or value, and its part of every output, out(V x_0), is one dim x dim product.
#pragma once

#include <algorithm>
#include <cstdint>

#include "model/config.h"

namespace lewm {

struct RolloutStep {
  std::int64_t window;  // the first frame in the window
  std::int64_t shared;  // window frames that all candidates share: window .. window + shared - 1
  std::int64_t cached;  // candidate frames whose keys and values are kept from earlier steps
  std::int64_t fresh;   // candidate frames computed in this step; the last one gives the output
  // Of the GPU, which does without anchors: somebody attends to the fresh tokens, in this step or in a later one before
  // the window slides.
  bool needs_keys;

  // The first fresh frame is the window's first: the anchor.
  bool alone() const { return shared + cached == 0; }
};

inline RolloutStep rollout_step(std::int64_t history, std::int64_t context, std::int64_t step, std::int64_t horizon) {
  const std::int64_t last = context - 1 + step;  // the newest frame
  RolloutStep s;
  s.window = std::max<std::int64_t>(0, last + 1 - history);
  s.shared = std::max<std::int64_t>(0, context - 1 - s.window);
  const std::int64_t own = last + 1 - s.window - s.shared;
  s.cached = s.window == 0 ? own - 1 : 0;
  s.fresh = own - s.cached;
  const bool kept = last + 1 < history && step + 1 < horizon;
  s.needs_keys = !s.alone() || s.fresh > 1 || kept;
  return s;
}

// Floating-point operations of the GEMMs that one candidate costs, counting a multiply-add as two.
std::int64_t rollout_flops(const Config& config, std::int64_t context, std::int64_t horizon);

}  // namespace lewm
