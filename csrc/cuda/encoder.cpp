#include "cuda/encoder.h"

#include <algorithm>

#include "cuda/attention.cuh"
#include "cuda/norm.cuh"
#include "cuda/tokens.cuh"

namespace lewm::cuda {
namespace {

constexpr std::int64_t kCameraBytes = std::int64_t{64} << 20;  // of frames that wait to be resized
constexpr float kEncoderEps = 1e-12f;                          // as in model/encoder_weights.h

int patches_of(const HostModel& sizes) {
  const int per_row = sizes.image_size / sizes.patch_size;
  return per_row * per_row;
}

}  // namespace

Encoder::Encoder(const Weights& weights, std::int64_t frames)
    : weights_(weights),
      frames_(frames),
      dim_(weights.sizes.encoder_dim),
      dim_stride_(padded(dim_)),
      head_dim_(padded(weights.sizes.encoder_dim / weights.sizes.encoder_heads)),
      inner_(head_dim_ * weights.sizes.encoder_heads),
      patches_(patches_of(weights.sizes)),
      tokens_(patches_ + 1),
      patch_stride_(padded(weights.patch_bytes.k)),
      mlp_stride_(padded(weights.encoder.front().mlp_in.n)),
      frame_values_(std::int64_t{3} * weights.sizes.image_size * weights.sizes.image_size),
      bytes_(weights.device),
      floats_(weights.device),
      camera_(weights.device),
      patches_rows_(frames * patches_ * patch_stride_),
      embedded_(frames * patches_ * dim_),
      x_(frames * tokens_ * dim_),
      normed_(frames * tokens_ * dim_stride_),
      qkv_(frames * tokens_ * 3 * inner_),
      attended_(frames * tokens_ * inner_),
      hidden_(frames * tokens_ * mlp_stride_),
      projector_(weights.projector, frames) {}

Frames Frames::from(std::int64_t first, std::int64_t frame_values) const {
  Frames rest = *this;
  if (bytes) rest.bytes += first * frame_values;
  if (floats) rest.floats += first * frame_values;
  if (camera) rest.camera += first * resize->height * resize->width * resize->channels;
  return rest;
}

void Encoder::encode(const Frames& frames, std::int64_t n, float* latents, cudaStream_t stream) {
  for (std::int64_t first = 0; first < n; first += frames_) {
    const std::int64_t group = std::min(frames_, n - first);
    embed(frames.from(first, frame_values_), group, stream);
    for (std::int64_t l = 0; l + 1 < weights_.sizes.encoder_depth; ++l) layer(l, group, stream);
    last_layer(group, stream);
    projector_.run(x_.get(), std::int64_t{tokens_} * dim_, group, latents + first * weights_.sizes.latent_dim,
                   weights_.sizes.latent_dim, stream);
  }
}

// Camera frames as the model's bytes; those of the host come over a few at a time.
const std::uint8_t* Encoder::resized(const Frames& frames, std::int64_t n, cudaStream_t stream) {
  std::uint8_t* out = bytes_.reserve(n * frame_values_, stream);
  Resize resize = *frames.resize;
  const std::int64_t raw = std::int64_t{resize.height} * resize.width * resize.channels;
  const std::int64_t at_once = std::clamp(kCameraBytes / raw, std::int64_t{1}, n);
  for (std::int64_t first = 0; first < n; first += at_once) {
    resize.frames = std::min(at_once, n - first);
    resize.source = camera_.input(frames.camera + first * raw, resize.frames * raw, stream);
    resize.target = out + first * frame_values_;
    launch_resize(resize, stream);
  }
  return out;
}

// Pixels -> x.
void Encoder::embed(const Frames& frames, std::int64_t n, cudaStream_t stream) {
  const std::uint8_t* bytes = nullptr;
  const float* floats = nullptr;
  if (frames.camera) {
    bytes = resized(frames, n, stream);
  } else if (frames.bytes) {
    bytes = bytes_.input(frames.bytes, n * frame_values_, stream);
  } else {
    floats = floats_.input(frames.floats, n * frame_values_, stream);
  }
  const HostModel& sizes = weights_.sizes;
  launch_gather_patches({n, sizes.image_size, sizes.patch_size, bytes, floats, patches_rows_.get(), patch_stride_},
                        stream);
  run_linear(bytes ? weights_.patch_bytes : weights_.patch_floats, patches_rows_.get(), patch_stride_, n * patches_, {},
             embedded_.get(), dim_, stream);
  launch_assemble_tokens({n, patches_, dim_, weights_.cls, weights_.patch_positions, embedded_.get(), x_.get()},
                         stream);
}

// normed = LayerNorm(x); its affine part is in the layers that follow.
void Encoder::normalise(std::int64_t rows, std::int64_t x_stride, cudaStream_t stream) {
  launch_layer_norm(
      {x_.get(), x_stride, static_cast<int>(rows), dim_, kEncoderEps, nullptr, nullptr, normed_.get(), dim_stride_},
      stream);
}

// x += attention_out(attended); x += mlp(LayerNorm(x)), for `rows` rows of x that are x_stride apart.
void Encoder::attention_out_and_mlp(const EncoderLayer& layer, std::int64_t rows, std::int64_t x_stride,
                                    cudaStream_t stream) {
  GemmEpilogue add;
  add.residual = x_.get();
  add.residual_stride = x_stride;
  run_linear(layer.attention_out, attended_.get(), inner_, rows, add, x_.get(), x_stride, stream);
  normalise(rows, x_stride, stream);
  run_linear(layer.mlp_in, normed_.get(), dim_stride_, rows, stored_bf16(Activation::gelu), hidden_.get(), mlp_stride_,
             stream);
  run_linear(layer.mlp_out, hidden_.get(), mlp_stride_, rows, add, x_.get(), x_stride, stream);
}

void Encoder::layer(std::int64_t index, std::int64_t n, cudaStream_t stream) {
  const EncoderLayer& layer = weights_.encoder[static_cast<std::size_t>(index)];
  const std::int64_t rows = n * tokens_;
  const int heads = weights_.sizes.encoder_heads;
  normalise(rows, dim_, stream);
  run_linear(layer.query_key_value, normed_.get(), dim_stride_, rows, stored_bf16(), qkv_.get(), 3 * inner_, stream);
  launch_full_attention({static_cast<int>(n), tokens_, heads, head_dim_, qkv_.get(), 3 * inner_, inner_, 2 * inner_,
                         attended_.get(), inner_, tokens_},
                        stream);
  attention_out_and_mlp(layer, rows, dim_, stream);
}

// Of the last layer the CLS token alone goes on: its query against everybody's keys.
void Encoder::last_layer(std::int64_t n, cudaStream_t stream) {
  const EncoderLayer& layer = weights_.encoder.back();
  const std::int64_t frame_stride = std::int64_t{tokens_} * dim_, frame_inner = std::int64_t{tokens_} * inner_;
  const int heads = weights_.sizes.encoder_heads;
  normalise(n * tokens_, dim_, stream);
  run_linear(layer.key_value, normed_.get(), dim_stride_, n * tokens_, stored_bf16(), qkv_.get() + inner_, 3 * inner_,
             stream);
  run_linear(layer.query, normed_.get(), std::int64_t{tokens_} * dim_stride_, n, stored_bf16(), qkv_.get(),
             3 * frame_inner, stream);
  launch_full_attention({static_cast<int>(n), tokens_, heads, head_dim_, qkv_.get(), 3 * inner_, inner_, 2 * inner_,
                         attended_.get(), inner_, 1},
                        stream);
  attention_out_and_mlp(layer, n, frame_stride, stream);
}

}  // namespace lewm::cuda
