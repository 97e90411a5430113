// Latents and action blocks -> predicted latents on the device, with the schedule of model/rollout_schedule.h.
#pragma once

#include <functional>

#include "cuda/head.h"
#include "model/rollout_schedule.h"

namespace lewm::cuda {

class Rollout {
 public:
  // Allocates. candidates: the most of a call.
  Rollout(const Weights& weights, const Limits& limits, std::int64_t candidates);

  // Candidates that go through the network together: limits.tile, or where that is 0 what the memory for modulations
  // allows, but no more than there are.
  static int tile_for(const Weights& weights, const Limits& limits, std::int64_t candidates);
  int tile() const { return tile_; }

  // Copies in, and computes, what all candidates of a problem share.
  void prepare(const Seen& seen, cudaStream_t stream);

  // Candidates [first, first + count) and their latents, [horizon, count, D] in device memory.
  struct Tile {
    std::int64_t first, count;
    const float* latents;
  };
  // Rolls out the B * samples candidates of the prepared problems, [B, samples, horizon, A] in device memory, a tile
  // after the other; `use` enqueues what is done with a tile's latents before the next tile overwrites them.
  void run(const float* actions, std::int64_t samples, std::int64_t horizon, cudaStream_t stream,
           const std::function<void(const Tile&)>& use);

  // As `prepare` was told.
  std::int64_t problems() const { return problems_; }
  std::int64_t context() const { return context_; }

 private:
  // One pass of fresh tokens through the layers; the rows of `sequences` follow each other, slot by slot.
  struct Pass {
    RolloutStep step;
    int sequences;                // candidates of a tile, or problems
    std::int64_t first, samples;  // sequence i belongs to problem (first + i) / samples
    int first_frame;
    int own_row;  // where in the cache the first own frame's keys lie
    int rows() const { return static_cast<int>(step.fresh) * sequences; }
    int fresh_row() const { return own_row + static_cast<int>(step.cached) * sequences; }
  };

  void encode_blocks(const float* blocks, int count, int steps, int row, cudaStream_t stream);
  void share_context(int window, cudaStream_t stream);
  void run_tile(const float* actions, std::int64_t first, int count, std::int64_t samples, std::int64_t horizon,
                cudaStream_t stream);
  void open(const Pass& pass, cudaStream_t stream);
  void attention(const Pass& pass, int layer, int first_row, cudaStream_t stream);
  void mlp(int layer, int first_row, int rows, cudaStream_t stream);
  void normalise(int layer, int shift, int first_row, int rows, cudaStream_t stream);
  GemmEpilogue gated(int layer, int gate, int first_row) const;
  std::uint16_t* cache_of(int layer) const { return cache_.get() + layer * cache_rows_ * cache_stride_; }

  const Weights& weights_;
  const int dim_, latent_dim_, history_, depth_, inner_, inner_stride_, dim_stride_, latent_stride_, mlp_stride_;
  const int modulation_width_;  // of all layers
  const std::int64_t most_problems_, horizon_;
  const int tile_;         // candidates
  const int rows_;         // tokens of a pass
  const int past_rows_;    // modulations of executed blocks come first
  const int shared_rows_;  // of a layer's cache, before the candidates' own
  const std::int64_t cache_rows_, cache_stride_;
  std::int64_t problems_ = 0, context_ = 0;

  Buffer<float> context_latents_;                         // [B, context, D]
  Buffer<float> past_;                                    // [B, context - 1, A]
  Buffer<float> modulations_;                             // [past_rows + horizon * tile, modulation_width]
  Buffer<float> predicted_;                               // [horizon, tile, D]
  Buffer<std::uint16_t> action_rows_;                     // [max(horizon * tile, past_rows), padded(hidden)]
  Buffer<std::uint16_t> condition_;                       // the same rows, [dim_stride]
  Buffer<float> x_;                                       // [rows, dim], the residual stream
  Buffer<std::uint16_t> input_;                           // [rows, latent_stride], only with an input layer
  Buffer<std::uint16_t> normed_;                          // [rows, dim_stride]
  Buffer<std::uint16_t> queries_;                         // [rows, inner_stride]
  Buffer<std::uint16_t> attended_;                        // [rows, inner_stride]
  Buffer<std::uint16_t> hidden_;                          // [rows, mlp_stride]
  Buffer<std::uint16_t> cache_;                           // [depth, cache_rows, cache_stride]: keys, then values
  Buffer<std::int32_t> modulation_row_, keys_, key_row_;  // [rows], [rows], [rows, history]
  HeadWorkspace pred_proj_;
};

}  // namespace lewm::cuda
