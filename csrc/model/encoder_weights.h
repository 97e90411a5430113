// The encoder's weights as the kernels read them.
#pragma once

#include <vector>

#include "model/head.h"
#include "model/model.h"

namespace lewm {

constexpr float kEncoderEps = 1e-12f;
constexpr float kByteCentre = 128.0f;  // the patch embedding reads byte - 128: exact in 8 bits, and nearly centred

// LayerNorms are folded into the layers that they feed; the query carries 1/sqrt(head_dim).
struct EncoderLayerWeights {
  Linear query;            // dim -> dim
  Linear key_value;        // dim -> 2 * dim
  Linear attention_out;    // dim -> dim
  Linear mlp_in, mlp_out;  // dim -> mlp_dim -> dim
};

struct EncoderWeights {
  Linear patch_bytes;                // (byte - 128) in (y, x, channel) order -> dim; the preprocessing is folded in
  Linear patch_floats;               // normalised floats in (channel, y, x) order -> dim
  const float* cls = nullptr;        // [dim], CLS token + its position embedding
  const float* positions = nullptr;  // [patches, dim]
  std::vector<EncoderLayerWeights> layers;
  HeadWeights projector;
};

EncoderWeights build_encoder_weights(WeightReader& reader, WeightMemory& memory, const Config& config,
                                     const Preprocessing& preprocessing, LayerPrecisions precisions);

}  // namespace lewm
