#include "model/encoder_weights.h"

#include <cmath>
#include <span>

namespace lewm {
namespace {

// The patch embedding over normalised (channel, y, x) floats -> the same over byte - 128 in (y, x, channel) order.
Affine fold_preprocessing(const Affine& layer, std::int64_t patch_size, const Preprocessing& preprocessing) {
  Affine folded = layer;
  const std::int64_t area = patch_size * patch_size;
  for (std::int64_t i = 0; i < layer.out; ++i) {
    const double* from = layer.weight.data() + i * layer.in;
    double* to = folded.weight.data() + i * layer.in;
    double shift = 0;
    for (std::int64_t channel = 0; channel < 3; ++channel) {
      const double mean = preprocessing.mean[channel], std = preprocessing.std[channel];
      const double centre = (static_cast<double>(kByteCentre) / 255.0 - mean) / std;
      for (std::int64_t pixel = 0; pixel < area; ++pixel) {
        const double w = from[channel * area + pixel];
        to[pixel * 3 + channel] = w / (255.0 * std);
        shift += w * centre;
      }
    }
    folded.bias[static_cast<std::size_t>(i)] += shift;
  }
  return folded;
}

EncoderLayerWeights build_layer(WeightReader& reader, WeightMemory& memory, const Config& config, std::int64_t layer,
                                Precision precision) {
  const std::string prefix = "encoder.encoder.layer." + std::to_string(layer) + ".";
  const std::int64_t dim = config.encoder_dim, mlp = config.encoder_mlp_dim, head_dim = dim / config.encoder_heads;
  const NormAffine before = reader.norm(prefix + "layernorm_before", dim);
  const NormAffine after = reader.norm(prefix + "layernorm_after", dim);

  Affine query = reader.linear(prefix + "attention.attention.query", dim, dim);
  fold_input_norm(query, before);
  scale_outputs(query, 0, dim, 1.0 / std::sqrt(static_cast<double>(head_dim)));
  Affine key_value = reader.linear(prefix + "attention.attention.key", dim, dim);
  append(key_value, reader.linear(prefix + "attention.attention.value", dim, dim));
  fold_input_norm(key_value, before);
  Affine mlp_in = reader.linear(prefix + "intermediate.dense", mlp, dim);
  fold_input_norm(mlp_in, after);

  EncoderLayerWeights weights;
  weights.query = memory.pack(query, precision);
  weights.key_value = memory.pack(key_value, precision);
  weights.attention_out = memory.pack(reader.linear(prefix + "attention.output.dense", dim, dim), precision);
  weights.mlp_in = memory.pack(mlp_in, precision);
  weights.mlp_out = memory.pack(reader.linear(prefix + "output.dense", dim, mlp), precision);
  return weights;
}

}  // namespace

EncoderWeights build_encoder_weights(WeightReader& reader, WeightMemory& memory, const Config& config,
                                     const Preprocessing& preprocessing, LayerPrecisions precisions) {
  const std::int64_t dim = config.encoder_dim, patch = config.patch_size;
  EncoderWeights weights;

  const Affine patches = reader.linear("encoder.embeddings.patch_embeddings.projection", dim, 3 * patch * patch, true,
                                       {dim, 3, patch, patch});
  weights.patch_floats = memory.pack(patches, precisions.fine);
  weights.patch_bytes = memory.pack(fold_preprocessing(patches, patch, preprocessing), precisions.fine);

  Values cls = reader.read("encoder.embeddings.cls_token", {1, 1, dim});
  const Values positions = reader.read("encoder.embeddings.position_embeddings", {1, config.tokens(), dim});
  for (std::size_t i = 0; i < cls.size(); ++i) cls[i] += positions[i];
  weights.cls = memory.keep(cls);
  weights.positions = memory.keep(std::span(positions).subspan(static_cast<std::size_t>(dim)));

  for (std::int64_t l = 0; l < config.encoder_depth; ++l) {
    weights.layers.push_back(build_layer(reader, memory, config, l, precisions.main));
  }

  const HeadSource projector{"projector",       config.projector_dim,
                             config.latent_dim, reader.norm("encoder.layernorm", dim),
                             kEncoderEps,       nullptr};
  weights.projector = build_head(reader, memory, projector, config.projector_norm, precisions.fine);
  return weights;
}

}  // namespace lewm
