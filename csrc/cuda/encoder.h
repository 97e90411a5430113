// Frames -> latents on the device (model/encoder.h).
#pragma once

#include "cuda/head.h"

namespace lewm::cuda {

class Encoder {
 public:
  // Memory for `frames` frames at once.
  Encoder(const Weights& weights, std::int64_t frames);

  // bytes: [n, size, size, 3] or null, floats: [n, 3, size, size] normalised; in host or device memory.
  // latents: [n, D] in device memory. Everything is ordered on `stream`.
  void encode(const std::uint8_t* bytes, const float* floats, std::int64_t n, float* latents, cudaStream_t stream);

 private:
  void embed(const std::uint8_t* bytes, const float* floats, std::int64_t n, cudaStream_t stream);
  void layer(std::int64_t index, std::int64_t n, cudaStream_t stream);
  void last_layer(std::int64_t n, cudaStream_t stream);
  void attention_out_and_mlp(const EncoderLayer& layer, std::int64_t rows, std::int64_t x_stride, cudaStream_t stream);
  void normalise(std::int64_t rows, std::int64_t x_stride, cudaStream_t stream);

  const Weights& weights_;
  const std::int64_t frames_;
  const int dim_, patches_, tokens_, patch_stride_, mlp_stride_;
  const std::int64_t frame_values_;      // numbers in a frame
  Buffer<std::uint8_t> bytes_;           // [frames, frame_values], from the host
  Buffer<float> floats_;                 // the same as floats, allocated when first needed
  Buffer<std::uint16_t> patches_rows_;   // [frames * patches, patch_stride]
  Buffer<float> embedded_;               // [frames * patches, dim]
  Buffer<float> x_;                      // [frames * tokens, dim], the residual stream
  Buffer<std::uint16_t> normed_;         // [frames * tokens, dim]
  Buffer<std::uint16_t> qkv_;            // [frames * tokens, 3 * dim]
  Buffer<std::uint16_t> attended_;       // [frames * tokens, dim]
  Buffer<std::uint16_t> hidden_;         // [frames * tokens, mlp_stride]
  Buffer<std::int32_t> key_row_, keys_;  // [frames, tokens], [frames]: a CLS token attends to its whole frame
  HeadWorkspace projector_;
};

}  // namespace lewm::cuda
