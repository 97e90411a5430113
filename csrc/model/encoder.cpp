#include "model/encoder.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/arena.h"
#include "model/encoder_weights.h"

namespace lewm {
namespace {

// Frames whose CLS tokens go through the end of the network together.
constexpr std::int64_t kGroup = 64;
// Rows that go through a layer's linear parts together: their hidden activations and the weights share a core's L2.
constexpr std::int64_t kChunk = 160;

std::int64_t element_bytes(cpu::Store store) { return store == cpu::Store::bf16 ? 2 : 4; }

// Rows first..last of `patch_size`-sized patches, as floats: [last - first, patch_size * patch_size * 3].
void gather_patches(const Config& config, const std::uint8_t* frame, std::int64_t first, std::int64_t last,
                    float* out) {
  const std::int64_t size = config.image_size, patch = config.patch_size, per_row = size / patch, run = 3 * patch;
  for (std::int64_t i = first; i < last; ++i) {
    const std::uint8_t* corner = frame + ((i / per_row) * patch * size + (i % per_row) * patch) * 3;
    for (std::int64_t y = 0; y < patch; ++y, out += run) {
      const std::uint8_t* row = corner + y * size * 3;
      for (std::int64_t x = 0; x < run; ++x) out[x] = static_cast<float>(row[x]) - kByteCentre;
    }
  }
}

void gather_patches(const Config& config, const float* frame, std::int64_t first, std::int64_t last, float* out) {
  const std::int64_t size = config.image_size, patch = config.patch_size, per_row = size / patch;
  for (std::int64_t i = first; i < last; ++i) {
    const float* corner = frame + (i / per_row) * patch * size + (i % per_row) * patch;
    for (std::int64_t channel = 0; channel < 3; ++channel) {
      for (std::int64_t y = 0; y < patch; ++y, out += patch) {
        const float* row = corner + (channel * size + y) * size;
        std::copy(row, row + patch, out);
      }
    }
  }
}

const Linear& patch_layer(const EncoderWeights& weights, const std::uint8_t*) { return weights.patch_bytes; }
const Linear& patch_layer(const EncoderWeights& weights, const float*) { return weights.patch_floats; }

// Rows [first, last).
struct Span {
  std::int64_t first, last;
  std::int64_t rows() const { return last - first; }
};

// Calls body(Span) for pieces of at most kChunk rows.
template <class Body>
void in_chunks(Span span, Body&& body) {
  const std::int64_t chunks = (span.rows() + kChunk - 1) / kChunk;
  for (std::int64_t i = 0; i < chunks; ++i) {
    body(Span{span.first + span.rows() * i / chunks, span.first + span.rows() * (i + 1) / chunks});
  }
}

// One frame on its way through the layers.
struct FrameState {
  float* x = nullptr;  // [tokens, dim], the residual stream
  void* qkv[2] = {};   // [tokens, qkv_stride] of `storage`: query, key, value; one layer reads, the next is written
  float* attended = nullptr;  // [tokens, dim]
};

// What one thread needs.
struct ChunkScratch {
  float* patches = nullptr;  // [kChunk, 3 * patch * patch]
  cpu::Rows patch_rows;      // the same as GEMM input
  cpu::Rows rows;            // [kChunk, dim]
  cpu::Rows hidden;          // [kChunk, mlp_dim]
  float* staging = nullptr;  // [kStagingRows, mlp_dim], where layers need it
  std::byte* attention = nullptr;
};

}  // namespace

struct Encoder::Workspace {
  Workspace(const Model& model, int threads);

  template <class Pixel>
  void encode(ThreadPool& pool, const Pixel* frames, std::int64_t n, float* latents);

  void lay_out(Arena& arena);
  template <class Pixel>
  void embed(FrameState& state, ChunkScratch& scratch, const Pixel* frame, Span rows);
  void layer(FrameState& state, ChunkScratch& scratch, std::int64_t index, Span rows);
  void attention(FrameState& state, ChunkScratch& scratch, std::int64_t index, Span queries);
  void attention_out_and_mlp(ChunkScratch& scratch, const EncoderLayerWeights& layer, const float* attended,
                             std::int64_t rows, float* x);
  void queries_keys_values(FrameState& state, ChunkScratch& scratch, std::int64_t index, Span rows);
  void finish_frame(FrameState& state, ChunkScratch& scratch, std::int64_t slot);
  void finish_group(std::int64_t frames, float* latents);

  // One of `threads` parts of the tokens.
  Span part(std::int64_t index) const { return {tokens * index / threads, tokens * (index + 1) / threads}; }
  std::int64_t last_layer() const { return static_cast<std::int64_t>(weights.layers.size()) - 1; }

  const Config& config;
  const cpu::Kernels& kernels;
  const EncoderWeights& weights;
  const std::int64_t dim, tokens;
  const Precision precision;  // of most layers
  const cpu::Store storage;   // of queries, keys and values
  const std::int64_t qkv_stride;
  const int threads;

  std::vector<FrameState> frames;     // [threads]
  std::vector<ChunkScratch> scratch;  // [threads]
  float* cls_attended = nullptr;      // [kGroup, dim], the last layer's attention of each frame's CLS token
  float* cls_x = nullptr;             // [kGroup, dim], and its residual stream
  HeadWorkspace projector;
  Arena arena;
};

Encoder::Workspace::Workspace(const Model& model, int threads_)
    : config(model.config()),
      kernels(model.kernels()),
      weights(model.encoder()),
      dim(config.encoder_dim),
      tokens(config.tokens()),
      precision(model.encoder_layer_precision()),
      storage(model.storage(model.encoder_precision())),
      qkv_stride(padded_stride(3 * dim, element_bytes(storage))),
      threads(threads_),
      frames(static_cast<std::size_t>(threads)),
      scratch(static_cast<std::size_t>(threads)),
      arena([this](Arena& a) { lay_out(a); }) {}

void Encoder::Workspace::lay_out(Arena& a) {
  const std::int64_t patch_values = 3 * config.patch_size * config.patch_size;
  for (FrameState& state : frames) {
    state.x = a.take<float>(tokens * dim);
    for (void*& qkv : state.qkv) qkv = a.take<std::byte>(tokens * qkv_stride * element_bytes(storage));
    state.attended = a.take<float>(tokens * dim);
  }
  for (ChunkScratch& s : scratch) {
    s.patches = a.take<float>(kChunk * patch_values);
    s.patch_rows = take_rows(a, kernels, weights.patch_bytes.precision, kChunk, patch_values);
    s.rows = take_rows(a, kernels, precision, kChunk, dim);
    s.hidden = take_rows(a, kernels, precision, kChunk, config.encoder_mlp_dim);
    if (is_integer(precision)) s.staging = take_staging(a, config.encoder_mlp_dim);
    const std::size_t bytes = kernels.full_attention_scratch(tokens, dim / config.encoder_heads);
    s.attention = a.take<std::byte>(static_cast<std::int64_t>(bytes));
  }
  cls_attended = a.take<float>(kGroup * dim);
  cls_x = a.take<float>(kGroup * dim);
  projector.lay_out(a, kernels, weights.projector, kGroup);
}

// Tokens from pixels, and their queries, keys and values of the first layer. Token 0 is CLS, token 1 + i is patch i.
template <class Pixel>
void Encoder::Workspace::embed(FrameState& state, ChunkScratch& s, const Pixel* frame, Span span) {
  const Linear& layer = patch_layer(weights, frame);
  cpu::Epilogue epilogue;
  epilogue.residual_stride = dim;
  in_chunks(span, [&](Span rows) {
    if (rows.first == 0) std::copy(weights.cls, weights.cls + dim, state.x);
    const Span patches{std::max<std::int64_t>(rows.first - 1, 0), rows.last - 1};
    if (patches.rows() > 0) {
      gather_patches(config, frame, patches.first, patches.last, s.patches);
      convert_rows(kernels, layer.precision, s.patches, layer.in(), patches.rows(), layer.in(), s.patch_rows);
      epilogue.residual = weights.positions + patches.first * dim;
      run_linear(kernels, layer, s.patch_rows, patches.rows(), epilogue, state.x + (patches.first + 1) * dim, dim);
    }
    queries_keys_values(state, s, 0, rows);
  });
}

// LayerNorm, then the layer's queries, keys and values. The last layer needs CLS's query alone.
void Encoder::Workspace::queries_keys_values(FrameState& state, ChunkScratch& s, std::int64_t index, Span rows) {
  const EncoderLayerWeights& layer = weights.layers[static_cast<std::size_t>(index)];
  const std::int64_t bytes = element_bytes(storage);
  auto* qkv = static_cast<std::byte*>(state.qkv[index % 2]) + rows.first * qkv_stride * bytes;
  cpu::Epilogue epilogue;
  epilogue.store = storage;
  kernels.layer_norm({state.x + rows.first * dim, dim, rows.rows(), dim, kEncoderEps, nullptr, nullptr}, precision,
                     s.rows);
  run_linear(kernels, layer.key_value, s.rows, rows.rows(), epilogue, qkv + dim * bytes, qkv_stride);
  const std::int64_t queries = index < last_layer() ? rows.rows() : rows.first == 0 ? 1 : 0;
  if (queries) run_linear(kernels, layer.query, s.rows, queries, epilogue, qkv, qkv_stride);
}

// All heads of these queries, over all tokens -> state.attended.
void Encoder::Workspace::attention(FrameState& state, ChunkScratch& s, std::int64_t index, Span queries) {
  const std::int64_t head_dim = dim / config.encoder_heads, bytes = element_bytes(storage);
  const auto* qkv = static_cast<const std::byte*>(state.qkv[index % 2]);
  for (std::int64_t head = 0; head < config.encoder_heads; ++head) {
    const std::byte* q = qkv + head * head_dim * bytes;
    kernels.full_attention({tokens, head_dim, queries.first, queries.last, storage, q, q + dim * bytes,
                            q + 2 * dim * bytes, qkv_stride, state.attended + head * head_dim, dim, s.attention});
  }
}

// x += attention_out(attended); x += mlp(LayerNorm(x)).  attended, x: [rows, dim], rows <= kChunk
void Encoder::Workspace::attention_out_and_mlp(ChunkScratch& s, const EncoderLayerWeights& layer, const float* attended,
                                               std::int64_t rows, float* x) {
  cpu::Epilogue add;
  add.residual = x;
  add.residual_stride = dim;
  convert_rows(kernels, precision, attended, dim, rows, dim, s.rows);
  run_linear(kernels, layer.attention_out, s.rows, rows, add, x, dim);
  kernels.layer_norm({x, dim, rows, dim, kEncoderEps, nullptr, nullptr}, precision, s.rows);
  run_linear_to_rows(kernels, layer.mlp_in, s.rows, rows, cpu::Activation::gelu, precision, s.staging, s.hidden);
  run_linear(kernels, layer.mlp_out, s.hidden, rows, add, x, dim);
}

// Rows through layer `index` (not the last), up to the next layer's queries, keys and values.
void Encoder::Workspace::layer(FrameState& state, ChunkScratch& s, std::int64_t index, Span span) {
  if (span.rows() == 0) return;
  attention(state, s, index, span);
  in_chunks(span, [&](Span rows) {
    attention_out_and_mlp(s, weights.layers[static_cast<std::size_t>(index)], state.attended + rows.first * dim,
                          rows.rows(), state.x + rows.first * dim);
    queries_keys_values(state, s, index + 1, rows);
  });
}

// The last layer's attention, for the CLS token alone.
void Encoder::Workspace::finish_frame(FrameState& state, ChunkScratch& s, std::int64_t slot) {
  attention(state, s, last_layer(), {0, 1});
  std::copy(state.attended, state.attended + dim, cls_attended + slot * dim);
  std::copy(state.x, state.x + dim, cls_x + slot * dim);
}

// The rest of the network for the CLS tokens of a group.
void Encoder::Workspace::finish_group(std::int64_t n, float* latents) {
  attention_out_and_mlp(scratch[0], weights.layers.back(), cls_attended, n, cls_x);
  projector.run(kernels, weights.projector, cls_x, dim, n, latents, config.latent_dim);
}

template <class Pixel>
void Encoder::Workspace::encode(ThreadPool& pool, const Pixel* pixels, std::int64_t n, float* latents) {
  const std::int64_t frame_values = config.image_size * config.image_size * 3;
  for (std::int64_t begin = 0; begin < n; begin += kGroup) {
    const std::int64_t group = std::min(kGroup, n - begin), whole = group / threads * threads;
    const Pixel* frame = pixels + begin * frame_values;
    // As many frames as divide among the threads, each on one of them ...
    pool.run(whole, [&](std::int64_t slot, int thread) {
      FrameState& state = frames[static_cast<std::size_t>(thread)];
      ChunkScratch& s = scratch[static_cast<std::size_t>(thread)];
      embed(state, s, frame + slot * frame_values, {0, tokens});
      for (std::int64_t l = 0; l < last_layer(); ++l) layer(state, s, l, {0, tokens});
      finish_frame(state, s, slot);
    });
    // ... the others one after the other, their rows split: the threads meet once per layer.
    for (std::int64_t slot = whole; slot < group; ++slot) {
      FrameState& state = frames[0];
      pool.run(threads, [&](std::int64_t task, int thread) {
        embed(state, scratch[static_cast<std::size_t>(thread)], frame + slot * frame_values, part(task));
      });
      for (std::int64_t l = 0; l < last_layer(); ++l) {
        pool.run(threads, [&](std::int64_t task, int thread) {
          layer(state, scratch[static_cast<std::size_t>(thread)], l, part(task));
        });
      }
      finish_frame(state, scratch[0], slot);
    }
    finish_group(group, latents + begin * config.latent_dim);
  }
}

Encoder::Encoder(std::shared_ptr<const Model> model, ThreadPool& pool)
    : model_(std::move(model)), pool_(pool), workspace_(std::make_unique<Workspace>(*model_, pool.threads())) {}
Encoder::~Encoder() = default;

void Encoder::encode(const std::uint8_t* frames, std::int64_t n, float* latents) {
  workspace_->encode(pool_, frames, n, latents);
}
void Encoder::encode(const float* frames, std::int64_t n, float* latents) {
  workspace_->encode(pool_, frames, n, latents);
}

std::int64_t encode_flops(const Config& c) {
  const std::int64_t dim = c.encoder_dim, tokens = c.tokens(), mlp = 2 * dim * c.encoder_mlp_dim;
  const std::int64_t attention = 2 * tokens * dim, token = 4 * dim * dim + mlp + attention;
  const std::int64_t patches = c.patches() * 3 * c.patch_size * c.patch_size * dim;
  const std::int64_t last = tokens * 2 * dim * dim + 2 * dim * dim + mlp + attention;
  const std::int64_t head = c.projector_dim * (dim + c.latent_dim);
  return 2 * (patches + (c.encoder_depth - 1) * tokens * token + last + head);
}

}  // namespace lewm
