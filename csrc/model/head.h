// The projection head, twice in the model: Linear -> norm -> GELU -> Linear, on the encoder's CLS token (projector) and
// on the predictor's output (pred_proj). What stands in front of it is part of it here, because it folds into the first
// linear layer: a LayerNorm and, in some predictors, a linear output layer.
#pragma once

#include <cstdint>
#include <string>

#include "core/arena.h"
#include "model/config.h"
#include "model/linear.h"
#include "model/weight_reader.h"

namespace lewm {

// y = second(gelu(first(n))) of the normalised input n; without `second` y = first(n); without both y = gamma * n +
// beta.
struct HeadWeights {
  float eps = 0;  // of the LayerNorm in front
  std::int64_t in = 0;
  const float* gamma = nullptr;  // [in], null when folded
  const float* beta = nullptr;
  Linear first, second;
  // norm "layer" cannot be folded: its affine part, null otherwise.
  const float* hidden_gamma = nullptr;  // [hidden]
  const float* hidden_beta = nullptr;
};

struct HeadSource {
  std::string prefix;        // "projector", "pred_proj"
  std::int64_t hidden, out;  // hidden 0: there is no head, only what stands in front of it
  NormAffine norm;           // the LayerNorm in front
  float eps;
  const Affine* before;  // the linear layer between that LayerNorm and the head; null: none
};

HeadWeights build_head(WeightReader& reader, WeightMemory& memory, const HeadSource& source,
                       const std::string& hidden_norm, Precision precision);

// Buffers for up to `rows` rows at once.
class HeadWorkspace {
 public:
  void lay_out(Arena& arena, const cpu::Kernels& kernels, const HeadWeights& head, std::int64_t rows);

  // y = head(LayerNorm(x)).  x: [rows, x_stride], y: [rows, y_stride] float.
  void run(const cpu::Kernels& kernels, const HeadWeights& head, const float* x, std::int64_t x_stride,
           std::int64_t rows, float* y, std::int64_t y_stride);

 private:
  cpu::Rows normed_;          // [rows, in]
  cpu::Rows hidden_;          // [rows, hidden]
  float* staging_ = nullptr;  // [rows, hidden], where the hidden row must be seen as floats
  cpu::Rows hidden_normed_;   // [rows, hidden] float, norm "layer"
};

}  // namespace lewm
