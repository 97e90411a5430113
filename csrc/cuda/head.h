// y = head(LayerNorm(x)) (model/head.h): the end of the encoder and of the predictor.
#pragma once

#include "cuda/weights.h"

namespace lewm::cuda {

class HeadWorkspace {
 public:
  HeadWorkspace(const Head& head, std::int64_t rows);  // for up to `rows` rows

  // x: [rows, x_stride], y: [rows, y_stride]
  void run(const float* x, std::int64_t x_stride, std::int64_t rows, float* y, std::int64_t y_stride,
           cudaStream_t stream);

 private:
  const Head& head_;
  Buffer<std::uint16_t> normed_;  // [rows, padded(in)]
  Buffer<std::uint16_t> hidden_;  // [rows, padded(hidden)]
  Buffer<float> staging_;         // [rows, hidden], of a hidden LayerNorm
};

}  // namespace lewm::cuda
