#include "cuda/rollout.h"

#include <algorithm>

#include "cuda/attention.cuh"
#include "cuda/norm.cuh"
#include "cuda/tokens.cuh"
#include "model/predictor_weights.h"

namespace lewm::cuda {
namespace {

// Modulations are by far the largest thing that a candidate needs.
constexpr std::int64_t kModulationBytes = std::int64_t{256} << 20;
constexpr std::int64_t kSmallestTile = 64, kLargestTile = 4096;

}  // namespace

int Rollout::tile_for(const Weights& weights, const Limits& limits, std::int64_t candidates) {
  if (limits.tile > 0) return static_cast<int>(limits.tile);
  const std::int64_t bytes = limits.horizon * weights.modulation.n * std::int64_t{sizeof(float)};
  return static_cast<int>(std::min(std::clamp(kModulationBytes / bytes, kSmallestTile, kLargestTile),
                                   std::max<std::int64_t>(candidates, 1)));
}

Rollout::Rollout(const Weights& weights, const Limits& limits, std::int64_t candidates)
    : weights_(weights),
      dim_(weights.sizes.predictor_dim),
      latent_dim_(weights.sizes.latent_dim),
      history_(weights.sizes.history),
      depth_(weights.sizes.predictor_depth),
      inner_(weights.sizes.predictor_heads * weights.sizes.predictor_head_dim),
      inner_stride_(padded(inner_)),
      dim_stride_(padded(dim_)),
      latent_stride_(padded(latent_dim_)),
      mlp_stride_(padded(weights.predictor.front().mlp_in.n)),
      modulation_width_(weights.modulation.n),
      most_problems_(limits.problems),
      horizon_(limits.horizon),
      tile_(tile_for(weights, limits, candidates)),
      rows_(static_cast<int>(history_ * std::max<std::int64_t>(tile_, limits.problems))),
      past_rows_(static_cast<int>(limits.problems * (history_ - 1))),
      shared_rows_(static_cast<int>(limits.problems * (history_ - 1) * (history_ - 1))),
      cache_rows_(shared_rows_ + std::int64_t{history_} * tile_),
      cache_stride_(padded(2 * inner_)),
      context_latents_(limits.problems * history_ * latent_dim_),
      past_(past_rows_ * std::int64_t{weights.sizes.block_dim}),
      modulations_((past_rows_ + horizon_ * tile_) * modulation_width_),
      predicted_(horizon_ * tile_ * latent_dim_),
      action_rows_(std::max<std::int64_t>(horizon_ * tile_, past_rows_) * padded(weights.action_hidden)),
      condition_(std::max<std::int64_t>(horizon_ * tile_, past_rows_) * dim_stride_),
      x_(std::int64_t{rows_} * dim_),
      input_(weights.input ? std::int64_t{rows_} * latent_stride_ : 0),
      normed_(std::int64_t{rows_} * dim_stride_),
      queries_(std::int64_t{rows_} * inner_stride_),
      attended_(std::int64_t{rows_} * inner_stride_),
      hidden_(std::int64_t{rows_} * mlp_stride_),
      cache_(depth_ * cache_rows_ * cache_stride_),
      modulation_row_(rows_),
      keys_(rows_),
      key_row_(std::int64_t{rows_} * history_),
      pred_proj_(weights.pred_proj, rows_) {}

void Rollout::prepare(const Seen& seen, cudaStream_t stream) {
  problems_ = seen.problems;
  context_ = seen.context;
  copy(context_latents_.get(), seen.latents, problems_ * context_ * latent_dim_, stream);
  if (context_ == 1) return;
  const int past = static_cast<int>(context_ - 1);
  copy(past_.get(), seen.past_actions, problems_ * past * weights_.sizes.block_dim, stream);
  encode_blocks(past_.get(), static_cast<int>(problems_), past, 0, stream);
  const std::int64_t windows = std::min(context_ - 1, std::max<std::int64_t>(1, context_ + horizon_ - history_));
  for (int window = 0; window < windows; ++window) share_context(window, stream);
}

// Standardised blocks [count, steps, A] -> the modulations of all layers, from modulation row `row` on.
void Rollout::encode_blocks(const float* blocks, int count, int steps, int row, cudaStream_t stream) {
  const int stride = padded(weights_.action_hidden);
  const std::int64_t rows = std::int64_t{count} * steps;
  launch_encode_actions({count, steps, weights_.sizes.block_dim, weights_.action_hidden, blocks, weights_.action_weight,
                         weights_.action_bias, action_rows_.get(), stride},
                        stream);
  run_linear(weights_.action_out, action_rows_.get(), stride, rows, stored_bf16(Activation::silu), condition_.get(),
             dim_stride_, stream);
  run_linear(weights_.modulation, condition_.get(), dim_stride_, rows, {},
             modulations_.get() + std::int64_t{row} * modulation_width_, modulation_width_, stream);
}

// x, and the modulations and keys, of a pass's tokens.
void Rollout::open(const Pass& pass, cudaStream_t stream) {
  const int window = static_cast<int>(pass.step.window);
  OpenPass open{};
  open.count = pass.sequences;
  open.fresh = static_cast<int>(pass.step.fresh);
  open.d = latent_dim_;
  open.first = pass.first;
  open.samples = pass.samples;
  open.problems = static_cast<int>(problems_);
  open.history = history_;
  open.context = static_cast<int>(context_);
  open.window = window;
  open.first_frame = pass.first_frame;
  open.own = pass.first_frame - static_cast<int>(pass.step.cached);
  open.own_row = pass.own_row;
  open.block_row = past_rows_;
  open.context_latents = context_latents_.get();
  open.predicted = predicted_.get();
  open.positions = weights_.positions;
  open.x = weights_.input ? nullptr : x_.get();
  open.input = input_.get();
  open.input_stride = latent_stride_;
  open.modulation_row = modulation_row_.get();
  open.keys = keys_.get();
  open.key_row = key_row_.get();
  launch_open_pass(open, stream);
  for (int slot = 0; weights_.input && slot < open.fresh; ++slot) {
    GemmEpilogue position;  // the same row for all
    position.residual = weights_.positions + std::int64_t{pass.first_frame + slot - window} * dim_;
    const std::int64_t row = std::int64_t{slot} * pass.sequences;
    run_linear(weights_.input, input_.get() + row * latent_stride_, latent_stride_, pass.sequences, position,
               x_.get() + row * dim_, dim_, stream);
  }
}

// normed rows = AdaLN of x rows [first_row, first_row + rows), from normed row 0 on.
void Rollout::normalise(int layer, int shift, int first_row, int rows, cudaStream_t stream) {
  const std::int64_t offset = (std::int64_t{layer} * kModulations + shift) * dim_;
  launch_ada_ln(
      {x_.get() + std::int64_t{first_row} * dim_, dim_, rows, dim_, modulations_.get(),
       modulation_row_.get() + first_row, modulation_width_, offset, offset + dim_, normed_.get(), dim_stride_},
      stream);
}

// x += gate * y for rows from first_row on.
GemmEpilogue Rollout::gated(int layer, int gate, int first_row) const {
  GemmEpilogue epilogue;
  epilogue.gate = modulations_.get() + (std::int64_t{layer} * kModulations + gate) * dim_;
  epilogue.gate_row = modulation_row_.get() + first_row;
  epilogue.gate_stride = modulation_width_;
  epilogue.residual = x_.get() + std::int64_t{first_row} * dim_;
  epilogue.residual_stride = dim_;
  return epilogue;
}

// x += gate * attention for rows from first_row on. Keys and values are those of all rows.
void Rollout::attention(const Pass& pass, int layer, int first_row, cudaStream_t stream) {
  const PredictorLayer& w = weights_.predictor[static_cast<std::size_t>(layer)];
  normalise(layer, kShiftAttention, 0, pass.rows(), stream);
  if (pass.step.needs_keys) {
    run_linear(w.key_value, normed_.get(), dim_stride_, pass.rows(), stored_bf16(),
               cache_of(layer) + pass.fresh_row() * cache_stride_, cache_stride_, stream);
  }
  if (first_row == 0 && pass.step.alone()) {
    run_linear(w.attention_alone, normed_.get(), dim_stride_, pass.sequences, gated(layer, kGateAttention, 0), x_.get(),
               dim_, stream);
    first_row = pass.sequences;
  }
  const int rows = pass.rows() - first_row;
  if (rows == 0) return;
  run_linear(w.query, normed_.get() + std::int64_t{first_row} * dim_stride_, dim_stride_, rows, stored_bf16(),
             queries_.get(), inner_stride_, stream);
  launch_window_attention(
      {rows, weights_.sizes.predictor_heads, weights_.sizes.predictor_head_dim, queries_.get(), inner_stride_,
       cache_of(layer), cache_stride_, inner_, key_row_.get() + std::int64_t{first_row} * history_,
       keys_.get() + first_row, history_, attended_.get(), inner_stride_},
      stream);
  run_linear(w.attention_out, attended_.get(), inner_stride_, rows, gated(layer, kGateAttention, first_row),
             x_.get() + std::int64_t{first_row} * dim_, dim_, stream);
}

void Rollout::mlp(int layer, int first_row, int rows, cudaStream_t stream) {
  const PredictorLayer& w = weights_.predictor[static_cast<std::size_t>(layer)];
  normalise(layer, kShiftMlp, first_row, rows, stream);
  run_linear(w.mlp_in, normed_.get(), dim_stride_, rows, stored_bf16(Activation::gelu), hidden_.get(), mlp_stride_,
             stream);
  run_linear(w.mlp_out, hidden_.get(), mlp_stride_, rows, gated(layer, kGateMlp, first_row),
             x_.get() + std::int64_t{first_row} * dim_, dim_, stream);
}

// Keys and values of the frames window .. context - 2 of all problems, at positions counted from `window`.
void Rollout::share_context(int window, cudaStream_t stream) {
  const int frames = static_cast<int>(context_) - 1 - window, problems = static_cast<int>(problems_);
  const Pass pass{{window, 0, 0, frames, true}, problems, 0, 1, window, window * (history_ - 1) * problems};
  open(pass, stream);
  for (int layer = 0; layer < depth_; ++layer) {
    attention(pass, layer, 0, stream);
    mlp(layer, 0, pass.rows(), stream);
  }
}

void Rollout::run_tile(const float* actions, std::int64_t first, int count, std::int64_t samples, std::int64_t horizon,
                       cudaStream_t stream) {
  encode_blocks(actions + first * horizon * weights_.sizes.block_dim, count, static_cast<int>(horizon), past_rows_,
                stream);
  for (std::int64_t step = 0; step < horizon; ++step) {
    const RolloutStep schedule = rollout_step(history_, context_, step, horizon);
    const int first_frame = static_cast<int>(context_ + step - schedule.fresh);
    const Pass pass{schedule, count, first, samples, first_frame, shared_rows_};
    open(pass, stream);
    const int newest = pass.rows() - count;  // in the last layer only the newest token of each candidate goes on
    for (int layer = 0; layer < depth_; ++layer) {
      const int first_row = layer + 1 < depth_ ? 0 : newest;
      attention(pass, layer, first_row, stream);
      mlp(layer, first_row, pass.rows() - first_row, stream);
    }
    pred_proj_.run(x_.get() + std::int64_t{newest} * dim_, dim_, count, predicted_.get() + step * count * latent_dim_,
                   latent_dim_, stream);
  }
}

void Rollout::run(const float* actions, std::int64_t samples, std::int64_t horizon, cudaStream_t stream,
                  const std::function<void(const Tile&)>& use) {
  const std::int64_t candidates = problems_ * samples;
  const std::int64_t tiles = (candidates + tile_ - 1) / tile_;
  for (std::int64_t tile = 0; tile < tiles; ++tile) {  // of equal size
    const std::int64_t first = candidates * tile / tiles, last = candidates * (tile + 1) / tiles;
    run_tile(actions, first, static_cast<int>(last - first), samples, horizon, stream);
    use({first, last - first, predicted_.get()});
  }
}

}  // namespace lewm::cuda
