// Camera frames -> the square RGB image that the encoder reads (model/frame.h), on the device.
#pragma once

#include "cuda/api.h"

namespace lewm::cuda {

// One side of lewm::FrameResizer's filter: target sample i averages source samples first[i] .. first[i] + count[i] - 1
// with weight[i * taps ..].
struct ResizeFilter {
  int taps;
  const std::int32_t* first;  // [inner size]
  const std::int32_t* count;
  const float* weight;  // [inner size, taps]
};

// The same sums in the same order as FrameResizer::run, so the same bytes.
struct Resize {
  std::int64_t frames;
  int width, height, channels;               // of the source
  bool reversed;                             // blue first
  int size;                                  // of the square target
  int left, top, inner_width, inner_height;  // of the picture inside the target; the rest is black
  ResizeFilter horizontal, vertical;
  const std::uint8_t* source;  // [frames, height, width, channels]
  std::uint8_t* target;        // [frames, size, size, 3] RGB
};

void launch_resize(const Resize& args, cudaStream_t stream);

}  // namespace lewm::cuda
