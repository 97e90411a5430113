#include "model/rollout.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/arena.h"
#include "core/error.h"
#include "cpu/bf16.h"
#include "model/predictor_weights.h"
#include "model/rollout_schedule.h"

namespace lewm {
namespace {

// Candidates of a tile, and token rows of one pass through the layers: a step that recomputes several tokens per
// candidate takes its tile in parts. Enough rows to pay for streaming the weights through L2, few enough to stay there.
constexpr std::int64_t kMostCandidates = 150;
constexpr std::int64_t kMostRows = 240;

std::int64_t element_bytes(cpu::Store store) { return store == cpu::Store::bf16 ? 2 : 4; }

// x[0..dim) += gate * y.  gate: elements of `storage` from `offset` on
void add_gated(const float* y, const void* gates, std::int64_t offset, cpu::Store storage, std::int64_t dim, float* x) {
  if (storage == cpu::Store::bf16) {
    const std::uint16_t* gate = static_cast<const std::uint16_t*>(gates) + offset;
    for (std::int64_t d = 0; d < dim; ++d) x[d] += cpu::float_from_bf16(gate[d]) * y[d];
  } else {
    const float* gate = static_cast<const float*>(gates) + offset;
    for (std::int64_t d = 0; d < dim; ++d) x[d] += gate[d] * y[d];
  }
}

}  // namespace

// What one thread needs for its tile.
struct TileScratch {
  // Blocks on their way to modulations, [tile_size, ...].
  cpu::Rows block;      // fp32, [A]
  cpu::Rows action;     // [hidden]
  cpu::Rows condition;  // SiLU(c), [dim]
  // Rings over the last `history` frames of each candidate: ring slot, then candidate.
  std::byte* modulations = nullptr;  // [history, tile_size, modulation_stride] of `storage`
  float* latents = nullptr;          // [history, tile_size, D]
  // A pass through the layers, [pass_rows, ...].
  float* x = nullptr;        // [dim], the residual stream
  cpu::Rows input;           // [D], only with an input layer
  cpu::Rows normed;          // [dim]
  cpu::Rows differences;     // [dim], of the normed rows from their window's anchor
  cpu::Rows attended;        // [inner]
  cpu::Rows hidden;          // [mlp_dim]
  float* staging = nullptr;  // [kStagingRows, max(dim, mlp_dim, hidden)], where layers need it
  void* queries = nullptr;   // [query_stride] of `storage`
  // Keys, then values of the differences of candidates' tokens from their anchor, the anchor left out. Before the
  // window slides: [depth, history - 1, tile_size, kv_stride], kept from step to step. After: [pass_rows, kv_stride],
  // of one layer at a time.
  std::byte* kv = nullptr;
  // Of candidates whose window begins with a token of theirs, kept likewise: its normed row and attention_alone of it,
  // [depth, tile_size, anchor_stride].
  float* anchors = nullptr;
  const void** modulation_of = nullptr;  // [pass_rows]
  const float** anchor_of = nullptr;     // [pass_rows]
  const void** query_of = nullptr;       // [pass_rows]
  const void** keys_of = nullptr;        // [pass_rows, history - 1]
  std::int32_t* keys = nullptr;          // [pass_rows]
  HeadWorkspace pred_proj;               // pass_rows
};

struct Rollout::Workspace {
  Workspace(const Model& model, const RolloutLimits& limits);
  void lay_out(Arena& arena);

  // A pass of `count` candidates' fresh tokens through all layers. Row slot * count + i is candidate i's token of frame
  // first_frame + slot.
  struct Pass {
    RolloutStep step;
    std::int64_t problem;
    std::int64_t first_frame;
    std::int64_t count;
    bool keeps;  // keys and values go where later steps find them
    std::int64_t rows() const { return step.fresh * count; }
    std::int64_t anchors() const { return step.alone() ? count : 0; }  // rows that are, the first ones
  };
  using Tile = TileScratch;

  void encode_blocks(Tile& tile, const float* blocks, std::int64_t block_stride, std::int64_t n,
                     std::byte* modulations);
  void run_step(Tile& tile, std::int64_t problem, std::int64_t step, std::int64_t horizon, std::int64_t n);
  void fill_inputs(Tile& tile, const Pass& pass, std::int64_t first_candidate);
  void add_positions(Tile& tile, const float* latents, std::int64_t stride, std::int64_t n, std::int64_t position,
                     std::int64_t row);
  void run_layers(Tile& tile, const Pass& pass);
  void attention(Tile& tile, const Pass& pass, std::int64_t layer, std::int64_t first_row);
  void attend_alone(Tile& tile, const Pass& pass, std::int64_t layer);
  void point_at_anchors(Tile& tile, const Pass& pass, std::int64_t layer);
  void point_at_keys(Tile& tile, const Pass& pass, std::int64_t layer, std::int64_t first_row);
  void mlp(Tile& tile, std::int64_t layer, std::int64_t first_row, std::int64_t rows);
  cpu::AdaLN ada_ln(Tile& tile, std::int64_t layer, Modulation shift, std::int64_t first_row, std::int64_t rows) const;
  cpu::Epilogue gated(Tile& tile, std::int64_t layer, Modulation gate, std::int64_t row) const;
  void share_context(std::int64_t problem, std::int64_t window);

  // The first frame of the window that has keys and values, and is no shared one.
  static std::int64_t first_key(const Pass& pass) {
    return std::max(pass.step.window + 1, pass.first_frame - pass.step.cached);
  }
  std::byte* kv_row(Tile& tile, const Pass& pass, std::int64_t layer, std::int64_t frame, std::int64_t candidate) const;
  std::byte* shared_kv(std::int64_t problem, std::int64_t window, std::int64_t layer, std::int64_t frame) const;
  float* shared_anchor(std::int64_t problem, std::int64_t window, std::int64_t layer) const;
  // Of candidate 0; those of the others follow.
  float* own_anchors(Tile& tile, const Pass& pass, std::int64_t layer) const {
    return tile.anchors + (pass.keeps ? layer * tile_size * anchor_stride : 0);
  }
  std::int64_t ring(std::int64_t frame) const { return frame % history * tile_size; }
  std::byte* modulation_row(Tile& tile, std::int64_t frame) const {
    return tile.modulations + ring(frame) * modulation_bytes;
  }
  float* latent_row(Tile& tile, std::int64_t frame) const { return tile.latents + ring(frame) * latent_dim; }

  const Config& config;
  const cpu::Kernels& kernels;
  const PredictorWeights& weights;
  const std::int64_t history, depth, dim, latent_dim, inner, block_dim;
  const Precision precision;  // of most layers
  const cpu::Store storage;   // of modulations, queries, keys and values
  const std::int64_t query_stride, query_bytes, kv_stride, kv_bytes, anchor_stride, modulation_stride, modulation_bytes;
  const RolloutLimits limits;
  // Candidates of a tile, at least as many as there are context blocks to encode; token rows of a pass.
  const std::int64_t tile_size, pass_rows;

  std::vector<Tile> tiles;  // [threads]
  // Of each problem: its context, and of the frames before its last context frame, for each window start and layer, the
  // anchor, and the other frames' keys and values.
  std::int64_t context = 0;
  float* context_latents = nullptr;       // [B, history, D]
  std::byte* past_modulations = nullptr;  // [B, history - 1, modulation_stride] of `storage`
  std::byte* context_kv = nullptr;        // [B, history - 1, depth, history - 1, kv_stride]
  float* context_anchors = nullptr;       // [B, history - 1, depth, anchor_stride]
  Arena arena;
};

Rollout::Workspace::Workspace(const Model& model, const RolloutLimits& limits_)
    : config(model.config()),
      kernels(model.kernels()),
      weights(model.predictor()),
      history(config.history),
      depth(config.predictor_depth),
      dim(config.predictor_dim),
      latent_dim(config.latent_dim),
      inner(config.predictor_heads * config.predictor_head_dim),
      block_dim(config.block_dim()),
      precision(model.layer_precision()),
      storage(model.storage(model.precision())),
      query_stride(padded_stride(inner, element_bytes(storage))),
      query_bytes(query_stride * element_bytes(storage)),
      kv_stride(padded_stride(2 * inner, element_bytes(storage))),
      kv_bytes(kv_stride * element_bytes(storage)),
      anchor_stride(padded_stride(2 * dim, sizeof(float))),
      modulation_stride(padded_stride(weights.modulation.out(), element_bytes(storage))),
      modulation_bytes(modulation_stride * element_bytes(storage)),
      limits(limits_),
      tile_size(std::max(history, std::min(kMostCandidates, limits.candidates))),
      pass_rows(std::min(kMostRows, history * tile_size)),
      tiles(static_cast<std::size_t>(limits.threads)),
      arena([this](Arena& a) { lay_out(a); }) {}

void Rollout::Workspace::lay_out(Arena& a) {
  for (Tile& t : tiles) {
    t.block = take_rows(a, kernels, weights.action_in.precision, tile_size, block_dim);
    t.action = take_rows(a, kernels, weights.action_out.precision, tile_size, weights.action_out.in());
    t.condition = take_rows(a, kernels, weights.modulation.precision, tile_size, dim);
    t.modulations = a.take<std::byte>(history * tile_size * modulation_bytes);
    t.latents = a.take<float>(history * tile_size * latent_dim);
    t.x = a.take<float>(pass_rows * dim);
    if (weights.input) t.input = take_rows(a, kernels, weights.input.precision, pass_rows, latent_dim);
    t.normed = take_rows(a, kernels, precision, pass_rows, dim);
    t.differences = take_rows(a, kernels, precision, pass_rows, dim);
    t.attended = take_rows(a, kernels, precision, pass_rows, inner);
    t.hidden = take_rows(a, kernels, precision, pass_rows, config.predictor_mlp_dim);
    if (is_integer(precision)) {
      t.staging = take_staging(a, std::max({dim, config.predictor_mlp_dim, weights.action_out.in()}));
    }
    t.queries = a.take<std::byte>(pass_rows * query_bytes);
    t.kv = a.take<std::byte>(std::max(depth * (history - 1) * tile_size, pass_rows) * kv_bytes);
    t.anchors = a.take<float>(depth * tile_size * anchor_stride);
    t.modulation_of = a.take<const void*>(pass_rows);
    t.anchor_of = a.take<const float*>(pass_rows);
    t.query_of = a.take<const void*>(pass_rows);
    t.keys_of = a.take<const void*>(pass_rows * (history - 1));
    t.keys = a.take<std::int32_t>(pass_rows);
    t.pred_proj.lay_out(a, kernels, weights.pred_proj, pass_rows);
  }
  context_latents = a.take<float>(limits.problems * history * latent_dim);
  past_modulations = a.take<std::byte>(limits.problems * (history - 1) * modulation_bytes);
  context_kv = a.take<std::byte>(limits.problems * (history - 1) * depth * (history - 1) * kv_bytes);
  context_anchors = a.take<float>(limits.problems * (history - 1) * depth * anchor_stride);
}

std::byte* Rollout::Workspace::shared_kv(std::int64_t problem, std::int64_t window, std::int64_t layer,
                                         std::int64_t frame) const {
  const std::int64_t most = history - 1;
  return context_kv + (((problem * most + window) * depth + layer) * most + frame - window) * kv_bytes;
}

float* Rollout::Workspace::shared_anchor(std::int64_t problem, std::int64_t window, std::int64_t layer) const {
  return context_anchors + ((problem * (history - 1) + window) * depth + layer) * anchor_stride;
}

// Where a candidate's token keeps its keys and values.
std::byte* Rollout::Workspace::kv_row(Tile& tile, const Pass& pass, std::int64_t layer, std::int64_t frame,
                                      std::int64_t candidate) const {
  const std::int64_t slot = frame - first_key(pass);
  const std::int64_t row = pass.keeps ? (layer * (history - 1) + slot) * tile_size : slot * pass.count;
  return tile.kv + (row + candidate) * kv_bytes;
}

// Standardised blocks -> the modulations of all layers.  blocks: [n, block_stride]; modulations: [n, modulation_stride]
void Rollout::Workspace::encode_blocks(Tile& t, const float* blocks, std::int64_t block_stride, std::int64_t n,
                                       std::byte* modulations) {
  convert_rows(kernels, weights.action_in.precision, blocks, block_stride, n, block_dim, t.block);
  run_linear_to_rows(kernels, weights.action_in, t.block, n, cpu::Activation::silu, weights.action_out.precision,
                     t.staging, t.action);
  run_linear_to_rows(kernels, weights.action_out, t.action, n, cpu::Activation::silu, weights.modulation.precision,
                     t.staging, t.condition);
  cpu::Epilogue store;
  store.store = storage;
  run_linear(kernels, weights.modulation, t.condition, n, store, modulations, modulation_stride);
}

// x rows [row, row + n) = the predictor's input of n latents at one position.  latents: [n, stride], stride 0: one
// latent for all rows.
void Rollout::Workspace::add_positions(Tile& t, const float* latents, std::int64_t stride, std::int64_t n,
                                       std::int64_t position, std::int64_t row) {
  const float* at = weights.positions + position * dim;
  float* x = t.x + row * dim;
  if (weights.input) {
    const cpu::Rows input = rows_from(kernels, t.input, weights.input.precision, row);
    convert_rows(kernels, weights.input.precision, latents, stride, n, latent_dim, input);
    cpu::Epilogue epilogue;
    epilogue.residual = at;  // the same row for all
    run_linear(kernels, weights.input, input, n, epilogue, x, dim);
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t d = 0; d < dim; ++d) x[i * dim + d] = latents[i * stride + d] + at[d];
  }
}

// x and the modulation of every row of a pass over candidates [first, first + pass.count) of the tile.
void Rollout::Workspace::fill_inputs(Tile& t, const Pass& pass, std::int64_t first) {
  for (std::int64_t slot = 0; slot < pass.step.fresh; ++slot) {
    const std::int64_t frame = pass.first_frame + slot, row = slot * pass.count;
    const bool observed = frame < context;
    const float* latents = observed ? context_latents + (pass.problem * history + frame) * latent_dim
                                    : latent_row(t, frame) + first * latent_dim;
    add_positions(t, latents, observed ? 0 : latent_dim, pass.count, frame - pass.step.window, row);
    const std::byte* modulations = modulation_row(t, frame) + first * modulation_bytes;
    for (std::int64_t i = 0; i < pass.count; ++i) t.modulation_of[row + i] = modulations + i * modulation_bytes;
  }
}

// AdaLN of x rows [first_row, first_row + rows).
cpu::AdaLN Rollout::Workspace::ada_ln(Tile& t, std::int64_t layer, Modulation shift, std::int64_t first_row,
                                      std::int64_t rows) const {
  const std::int64_t offset = (layer * kModulations + shift) * dim;
  return {t.x + first_row * dim, dim, rows, dim, t.modulation_of + first_row, offset, offset + dim, storage};
}

// x += gate * y for rows from `row` on.
cpu::Epilogue Rollout::Workspace::gated(Tile& t, std::int64_t layer, Modulation gate, std::int64_t row) const {
  cpu::Epilogue epilogue;
  epilogue.gate = t.modulation_of + row;
  epilogue.gate_storage = storage;
  epilogue.gate_offset = (layer * kModulations + gate) * dim;
  epilogue.residual = t.x + row * dim;
  epilogue.residual_stride = dim;
  return epilogue;
}

// The keys that rows from first_row on attend to: shared ones, then the candidate's own up to the row's frame.
void Rollout::Workspace::point_at_keys(Tile& t, const Pass& pass, std::int64_t layer, std::int64_t first_row) {
  const std::int64_t window = pass.step.window, own = first_key(pass);
  for (std::int64_t row = first_row; row < pass.rows(); ++row) {
    const std::int64_t slot = row / pass.count, candidate = row % pass.count, r = row - first_row;
    const std::int64_t last = pass.first_frame + slot;
    const void** keys = t.keys_of + r * (history - 1);
    for (std::int64_t frame = window + 1; frame <= last; ++frame) {
      *keys++ = frame < own ? shared_kv(pass.problem, window, layer, frame) : kv_row(t, pass, layer, frame, candidate);
    }
    t.keys[r] = static_cast<std::int32_t>(last - window);
    t.query_of[r] = static_cast<std::byte*>(t.queries) + r * query_bytes;
  }
}

void Rollout::Workspace::point_at_anchors(Tile& t, const Pass& pass, std::int64_t layer) {
  const bool shared = pass.step.shared != 0;
  const float* anchors = shared ? shared_anchor(pass.problem, pass.step.window, layer) : own_anchors(t, pass, layer);
  for (std::int64_t row = pass.anchors(); row < pass.rows(); ++row) {
    t.anchor_of[row] = anchors + (shared ? 0 : row % pass.count * anchor_stride);
  }
}

// x += gate * attention for the rows of a pass that are anchors; what others need of them is kept.
void Rollout::Workspace::attend_alone(Tile& t, const Pass& pass, std::int64_t layer) {
  const PredictorLayerWeights& w = weights.layers[static_cast<std::size_t>(layer)];
  cpu::AdaLN norm = ada_ln(t, layer, kShiftAttention, 0, pass.anchors());
  norm.kept = own_anchors(t, pass, layer);
  norm.kept_stride = anchor_stride;
  kernels.ada_ln(norm, precision, t.normed);
  float* alone = norm.kept + dim;
  run_linear(kernels, w.attention_alone, t.normed, pass.anchors(), {}, alone, anchor_stride);
  const std::int64_t gate = (layer * kModulations + kGateAttention) * dim;
  for (std::int64_t row = 0; row < pass.anchors(); ++row) {
    add_gated(alone + row * anchor_stride, t.modulation_of[row], gate, storage, dim, t.x + row * dim);
  }
}

// x += gate * attention for anchors, if there are any, and rows from first_row on. Keys and values are those of all
// rows.
void Rollout::Workspace::attention(Tile& t, const Pass& pass, std::int64_t layer, std::int64_t first_row) {
  const PredictorLayerWeights& w = weights.layers[static_cast<std::size_t>(layer)];
  const std::int64_t first = pass.anchors(), others = pass.rows() - first;
  if (first) attend_alone(t, pass, layer);
  if (others == 0) return;
  point_at_anchors(t, pass, layer);
  cpu::AdaLN norm = ada_ln(t, layer, kShiftAttention, first, others);
  norm.anchor = t.anchor_of + first;
  norm.differences = t.differences;
  kernels.ada_ln(norm, precision, t.normed);
  cpu::Epilogue store;
  store.store = storage;
  run_linear(kernels, w.key_value_difference, t.differences, others, store,
             kv_row(t, pass, layer, pass.first_frame + first / pass.count, 0), kv_stride);

  first_row = std::max(first_row, first);
  const std::int64_t rows = pass.rows() - first_row;
  run_linear(kernels, w.query, rows_from(kernels, t.normed, precision, first_row - first), rows, store, t.queries,
             query_stride);
  point_at_keys(t, pass, layer, first_row);
  kernels.window_attention({rows, config.predictor_heads, config.predictor_head_dim, storage, t.query_of, t.keys_of,
                            inner, history - 1, t.keys},
                           precision, t.attended);
  cpu::Epilogue add = gated(t, layer, kGateAttention, first_row);
  add.addend = t.anchor_of + first_row;
  add.addend_offset = dim;
  run_linear(kernels, w.attention_difference, t.attended, rows, add, t.x + first_row * dim, dim);
}

void Rollout::Workspace::mlp(Tile& t, std::int64_t layer, std::int64_t first_row, std::int64_t rows) {
  const PredictorLayerWeights& w = weights.layers[static_cast<std::size_t>(layer)];
  kernels.ada_ln(ada_ln(t, layer, kShiftMlp, first_row, rows), precision, t.normed);
  run_linear_to_rows(kernels, w.mlp_in, t.normed, rows, cpu::Activation::gelu, precision, t.staging, t.hidden);
  run_linear(kernels, w.mlp_out, t.hidden, rows, gated(t, layer, kGateMlp, first_row), t.x + first_row * dim, dim);
}

// All layers; in the last one only the newest token of each candidate goes on, ending in the last `count` rows of x.
void Rollout::Workspace::run_layers(Tile& t, const Pass& pass) {
  for (std::int64_t layer = 0; layer < depth; ++layer) {
    const std::int64_t first_row = layer + 1 < depth ? 0 : pass.rows() - pass.count;
    attention(t, pass, layer, first_row);
    mlp(t, layer, first_row, pass.rows() - first_row);
  }
}

// Step `step` for all n candidates of a tile: the latent of frame context + step.
void Rollout::Workspace::run_step(Tile& t, std::int64_t problem, std::int64_t step, std::int64_t horizon,
                                  std::int64_t n) {
  const RolloutStep schedule = rollout_step(history, context, step, horizon);
  const std::int64_t first_frame = context + step - schedule.fresh;
  const std::int64_t most = pass_rows / schedule.fresh, parts = (n + most - 1) / most;
  for (std::int64_t part = 0; part < parts; ++part) {
    const std::int64_t first = n * part / parts, last = n * (part + 1) / parts;
    const Pass pass{schedule, problem, first_frame, last - first, schedule.window == 0};
    fill_inputs(t, pass, first);
    run_layers(t, pass);
    t.pred_proj.run(kernels, weights.pred_proj, t.x + (pass.rows() - pass.count) * dim, dim, pass.count,
                    latent_row(t, context + step) + first * latent_dim, latent_dim);
  }
}

// The anchor, and keys and values, of the frames window .. context - 2 of a problem, at positions counted from
// `window`.
void Rollout::Workspace::share_context(std::int64_t problem, std::int64_t window) {
  Tile& t = tiles[0];
  const std::int64_t frames = context - 1 - window;
  const Pass pass{{window, 0, 0, frames, true}, problem, window, 1, false};
  for (std::int64_t slot = 0; slot < frames; ++slot) {
    add_positions(t, context_latents + (problem * history + window + slot) * latent_dim, 0, 1, slot, slot);
    t.modulation_of[slot] = past_modulations + (problem * (history - 1) + window + slot) * modulation_bytes;
  }
  for (std::int64_t layer = 0; layer < depth; ++layer) {
    attention(t, pass, layer, 0);
    std::copy_n(t.anchors, 2 * dim, shared_anchor(problem, window, layer));
    for (std::int64_t slot = 1; slot < frames; ++slot) {
      const std::byte* from = kv_row(t, pass, layer, window + slot, 0);
      std::copy(from, from + kv_bytes, shared_kv(problem, window, layer, window + slot));
    }
    mlp(t, layer, 0, frames);
  }
}

std::int64_t candidates_of_task(std::int64_t problems, std::int64_t samples, std::int64_t most, int threads) {
  std::int64_t tasks = (samples + most - 1) / most;
  while (tasks * problems % threads != 0 && samples / (tasks + 1) >= kFewestCandidates) ++tasks;
  return (samples + tasks - 1) / tasks;
}

Rollout::Rollout(std::shared_ptr<const Model> model, const RolloutLimits& limits) : model_(std::move(model)) {
  const auto check = [](const char* name, std::int64_t value, std::int64_t most) {
    if (value < 1 || value > most) {
      throw Error(Status::invalid_argument,
                  std::string(name) + ": expected 1.." + std::to_string(most) + ", got " + std::to_string(value));
    }
  };
  check("problems", limits.problems, 1 << 20);
  check("horizon", limits.horizon, 1 << 20);
  check("threads", limits.threads, 1 << 10);
  check("candidates", limits.candidates, INT64_MAX);
  if (model_->config().history > cpu::kMaxWindow) {
    throw Error(Status::unsupported, "history: expected at most " + std::to_string(cpu::kMaxWindow) + ", got " +
                                         std::to_string(model_->config().history));
  }
  workspace_ = std::make_unique<Workspace>(*model_, limits);
}
Rollout::~Rollout() = default;

std::int64_t Rollout::tile() const { return workspace_->tile_size; }

void Rollout::prepare(const float* latents, const float* past, std::int64_t problems, std::int64_t context) {
  Workspace& w = *workspace_;
  w.context = context;
  for (std::int64_t problem = 0; problem < problems; ++problem) {
    const float* own = latents + problem * context * w.latent_dim;
    std::copy(own, own + context * w.latent_dim, w.context_latents + problem * w.history * w.latent_dim);
    if (context == 1) continue;
    w.encode_blocks(w.tiles[0], past + problem * (context - 1) * w.block_dim, w.block_dim, context - 1,
                    w.past_modulations + problem * (w.history - 1) * w.modulation_bytes);
    const std::int64_t windows =
        std::min(context - 1, std::max<std::int64_t>(1, context + w.limits.horizon - w.history));
    for (std::int64_t window = 0; window < windows; ++window) w.share_context(problem, window);
  }
}

void Rollout::run_tile(int thread, std::int64_t problem, const float* actions, std::int64_t n, std::int64_t horizon,
                       bool every_step, float* latents) {
  Workspace& w = *workspace_;
  TileScratch& t = w.tiles[static_cast<std::size_t>(thread)];
  for (std::int64_t step = 0; step < horizon; ++step) {
    // The block of candidate step `step` leaves frame context - 1 + step.
    w.encode_blocks(t, actions + step * w.block_dim, horizon * w.block_dim, n,
                    w.modulation_row(t, w.context - 1 + step));
    w.run_step(t, problem, step, horizon, n);
    if (!every_step && step + 1 < horizon) continue;
    const float* from = w.latent_row(t, w.context + step);
    float* to = latents + (every_step ? step * w.latent_dim : 0);
    const std::int64_t stride = (every_step ? horizon : 1) * w.latent_dim;
    for (std::int64_t i = 0; i < n; ++i) {
      std::copy(from + i * w.latent_dim, from + (i + 1) * w.latent_dim, to + i * stride);
    }
  }
}

}  // namespace lewm
