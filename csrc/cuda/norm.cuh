// LayerNorm and the predictor's fused adaptive LayerNorm; rows leave as GEMM input (bf16).
#pragma once

#include "cuda/api.h"

namespace lewm::cuda {

// Rows go to y, or to y_float where that is given.
struct LayerNorm {
  const float* x;  // [rows, x_stride]
  std::int64_t x_stride;
  int rows, d;
  float eps;
  const float* gamma;  // [d], or null with beta: no affine part
  const float* beta;
  std::uint16_t* y;  // [rows, y_stride] bf16; elements d.. of a row are set to zero
  std::int64_t y_stride;
  bool gelu = false;         // of the result
  float* y_float = nullptr;  // [rows, y_stride]; elements d.. are left alone
};

constexpr int kMostAdaLN = 1024;  // of AdaLN::y_stride

// y = LN(LN(x; 1e-6) * (1 + scale) + shift; 1e-5); the modulation of row i starts at modulation + row[i] * stride.
struct AdaLN {
  const float* x;  // [rows, x_stride]
  std::int64_t x_stride;
  int rows, d;
  const float* modulation;
  const std::int32_t* row;  // [rows]; null: row i itself
  std::int64_t stride, shift_offset, scale_offset;
  std::uint16_t* y;  // [rows, y_stride] bf16; elements d.. of a row are set to zero
  std::int64_t y_stride;
};

void launch_layer_norm(const LayerNorm& norm, cudaStream_t stream);
void launch_ada_ln(const AdaLN& norm, cudaStream_t stream);

}  // namespace lewm::cuda
