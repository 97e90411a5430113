// The action encoder's, predictor's and pred_proj's weights as the kernels read them.
#pragma once

#include <vector>

#include "model/head.h"
#include "model/model.h"

namespace lewm {

constexpr float kPredictorEps = 1e-5f;  // of the final LayerNorm

// The offsets of one layer's modulation, in units of predictor_dim.
enum Modulation : int {
  kShiftAttention,
  kScaleAttention,
  kGateAttention,
  kShiftMlp,
  kScaleMlp,
  kGateMlp,
  kModulations
};

// The second LayerNorm of each half is folded into the layers that it feeds; the query carries 1/sqrt(head_dim).
struct PredictorLayerWeights {
  Linear query;            // dim -> inner
  Linear key_value;        // dim -> 2 * inner
  Linear attention_out;    // inner -> dim
  Linear attention_alone;  // dim -> dim: the attention of a token that sees only itself, attention_out(value(x))
  Linear mlp_in, mlp_out;  // dim -> mlp_dim -> dim
  // key_value and attention_out without bias, over the same weights, for differences between tokens: what the CPU
  // multiplies. A GPU reads those with it.
  Linear key_value_difference, attention_difference;
};

struct PredictorWeights {
  // Action block -> SiLU(c): the kernel-1 convolution is folded into the first layer, cond_proj into the second.
  Linear action_in;   // A -> hidden, followed by SiLU
  Linear action_out;  // hidden -> dim, followed by SiLU
  Linear modulation;  // dim -> depth * kModulations * dim, all layers at once

  Linear input;                      // latent_dim -> dim, not present when they are equal
  const float* positions = nullptr;  // [history, dim]; with `input`: input(position), bias included
  std::vector<PredictorLayerWeights> layers;
  HeadWeights pred_proj;  // with the final LayerNorm and output_proj folded in
};

PredictorWeights build_predictor_weights(WeightReader& reader, WeightMemory& memory, const Config& config,
                                         LayerPrecisions precisions);

}  // namespace lewm
