// Y = epilogue(X W^T + bias) on tensor cores: bf16 operands, fp32 accumulators.
#pragma once

#include "cuda/api.h"
#include "cuda/launch.h"

namespace lewm::cuda {

enum class Activation : int { none = 0, gelu = 1, silu = 2 };  // gelu is the exact (erf) one

// As cpu::Epilogue: y = act(x W^T + bias); if gate, y = residual + gate * y; else if residual, y = residual + y.
struct GemmEpilogue {
  const float* bias = nullptr;  // [n] or null
  Activation activation = Activation::none;
  const float* gate = nullptr;             // the gate of row i is gate + gate_row[i] * gate_stride, n floats
  const std::int32_t* gate_row = nullptr;  // [rows]; null: row i itself
  std::int64_t gate_stride = 0;
  const float* residual = nullptr;  // [rows, residual_stride]; may be y itself
  std::int64_t residual_stride = 0;
  bool store_bf16 = false;
};

inline GemmEpilogue stored_bf16(Activation activation = Activation::none) {
  GemmEpilogue epilogue;
  epilogue.activation = activation;
  epilogue.store_bf16 = true;
  return epilogue;
}

struct Gemm {
  const std::uint16_t* x;  // [rows, x_stride] bf16; strides of x and w are multiples of 8, both 16-byte aligned
  std::int64_t x_stride;
  const std::uint16_t* w;  // [n, w_stride] bf16
  std::int64_t w_stride;
  int rows, n, k;
  GemmEpilogue epilogue;
  void* y;  // [rows, y_stride] float or bf16
  std::int64_t y_stride;
  bool vectors = false;  // set by launch_gemm: four columns are read and written at once
};

// The largest tile of which there are enough to keep a GPU busy is chosen: `enough_tiles`, one a multiprocessor of a
// large one, or a few times as many. The bits of Y do not depend on it.
void launch_gemm(const Gemm& gemm, cudaStream_t stream, std::int64_t enough_tiles = kEnoughTiles);

}  // namespace lewm::cuda
