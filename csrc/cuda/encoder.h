// Frames -> latents on the device (model/encoder.h).
#pragma once

#include "cuda/calls.h"
#include "cuda/frame.cuh"
#include "cuda/head.h"

namespace lewm::cuda {

// Frames in host or device memory, in one of three forms; the others are null.
struct Frames {
  const std::uint8_t* bytes = nullptr;   // [n, size, size, 3]
  const float* floats = nullptr;         // [n, 3, size, size] normalised
  const std::uint8_t* camera = nullptr;  // [n, height, width, channels] of
  const Resize* resize = nullptr;        // this resizer, whose source and target are not read

  const void* data() const {
    return bytes ? static_cast<const void*>(bytes) : floats ? static_cast<const void*>(floats) : camera;
  }
  Frames from(std::int64_t first, std::int64_t frame_values) const;  // frames [first, n)
};

class Encoder {
 public:
  // Memory for `frames` frames at once.
  Encoder(const Weights& weights, std::int64_t frames);

  // latents: [n, D] in device memory. Everything is ordered on `stream`.
  void encode(const Frames& frames, std::int64_t n, float* latents, cudaStream_t stream);

 private:
  void embed(const Frames& frames, std::int64_t n, cudaStream_t stream);
  const std::uint8_t* resized(const Frames& frames, std::int64_t n, cudaStream_t stream);
  void layer(std::int64_t index, std::int64_t n, cudaStream_t stream);
  void last_layer(std::int64_t n, cudaStream_t stream);
  void attention_out_and_mlp(const EncoderLayer& layer, std::int64_t rows, std::int64_t x_stride, cudaStream_t stream);
  void normalise(std::int64_t rows, std::int64_t x_stride, cudaStream_t stream);

  const Weights& weights_;
  const std::int64_t frames_;
  const int dim_, dim_stride_, head_dim_, inner_;  // head_dim_: a multiple of 8; inner_: of all heads
  const int patches_, tokens_, patch_stride_, mlp_stride_;
  const std::int64_t frame_values_;     // numbers in a frame
  Growing<std::uint8_t> bytes_;         // [frames, frame_values], from the host or resized
  Growing<float> floats_;               // the same, from the host
  Growing<std::uint8_t> camera_;        // some frames to resize, from the host
  Buffer<std::uint16_t> patches_rows_;  // [frames * patches, patch_stride]
  Buffer<float> embedded_;              // [frames * patches, dim]
  Buffer<float> x_;                     // [frames * tokens, dim], the residual stream
  Buffer<std::uint16_t> normed_;        // [frames * tokens, dim_stride]
  Buffer<std::uint16_t> qkv_;           // [frames * tokens, 3 * inner]
  Buffer<std::uint16_t> attended_;      // [frames * tokens, inner]
  Buffer<std::uint16_t> hidden_;        // [frames * tokens, mlp_stride]
  HeadWorkspace projector_;
};

}  // namespace lewm::cuda
