// A model's weights in device memory, shared by all engines over it.
#pragma once

#include <vector>

#include "cuda/gemm.cuh"
#include "cuda/runtime.h"
#include "cuda/table.h"

namespace lewm::cuda {

constexpr int kRowChunk = 8;  // GEMM rows are padded to 16 bytes of bf16

inline int padded(int k) { return static_cast<int>((k + kRowChunk - 1) / kRowChunk * kRowChunk); }

// A layer that the model does not have has no weight.
struct Linear {
  const std::uint16_t* weight = nullptr;  // [n, padded(k)] bf16
  const float* bias = nullptr;            // [n]
  int n = 0, k = 0;
  explicit operator bool() const { return weight != nullptr; }
};

// y = epilogue(layer(x)).  x: [rows, x_stride] bf16; y: [rows, y_stride] float or bf16
void run_linear(const Linear& layer, const std::uint16_t* x, std::int64_t x_stride, std::int64_t rows,
                GemmEpilogue epilogue, void* y, std::int64_t y_stride, cudaStream_t stream);

// As lewm::HeadWeights.
struct Head {
  float eps = 0;
  int in = 0;
  const float* gamma = nullptr;  // [in], null when folded
  const float* beta = nullptr;
  Linear first, second;
  const float* hidden_gamma = nullptr;  // [hidden], null when folded
  const float* hidden_beta = nullptr;
};

struct EncoderLayer {
  Linear query_key_value;   // both linears of the host, rows one after the other
  Linear query, key_value;  // the same rows
  Linear attention_out, mlp_in, mlp_out;
};

struct PredictorLayer {
  Linear query, key_value, attention_out, attention_alone, mlp_in, mlp_out;
};

struct Weights {
  // Uploads and waits. Throws Error: unsupported for sizes that the kernels do not have.
  Weights(const HostModel& model, int device);

  const int device;
  HostModel sizes;  // its pointers are not to be followed

  Linear patch_bytes, patch_floats;
  const float* cls = nullptr;              // [encoder_dim]
  const float* patch_positions = nullptr;  // [patches, encoder_dim]
  std::vector<EncoderLayer> encoder;
  Head projector;

  const float* action_weight = nullptr;  // [hidden, block_dim], fp32
  const float* action_bias = nullptr;
  int action_hidden = 0;
  Linear action_out, modulation, input;
  const float* positions = nullptr;  // [history, predictor_dim]
  std::vector<PredictorLayer> predictor;
  Head pred_proj;

 private:
  Buffer<std::uint8_t> memory_;
};

}  // namespace lewm::cuda
