#include "model/predictor_weights.h"

#include <cmath>
#include <utility>

namespace lewm {
namespace {

PredictorLayerWeights build_layer(WeightReader& reader, WeightMemory& memory, const Config& config,
                                  const std::string& prefix, LayerPrecisions precisions) {
  const std::int64_t dim = config.predictor_dim, mlp = config.predictor_mlp_dim;
  const std::int64_t inner = config.predictor_heads * config.predictor_head_dim;

  Affine qkv = reader.linear(prefix + "attn.to_qkv", 3 * inner, dim, false);
  fold_input_norm(qkv, reader.norm(prefix + "attn.norm", dim));
  scale_outputs(qkv, 0, inner, 1.0 / std::sqrt(static_cast<double>(config.predictor_head_dim)));
  // One head as wide as the model has no output layer.
  const bool has_out = config.predictor_heads != 1 || config.predictor_head_dim != dim;
  const Affine out = has_out ? reader.linear(prefix + "attn.to_out.0", dim, inner) : identity(dim);
  Affine mlp_in = reader.linear(prefix + "mlp.net.1", mlp, dim);
  fold_input_norm(mlp_in, reader.norm(prefix + "mlp.net.0", dim));

  PredictorLayerWeights weights;
  weights.query = memory.pack(qkv, 0, inner, precisions.main);
  weights.key_value = memory.pack(qkv, inner, 3 * inner, precisions.main);
  weights.attention_out = memory.pack(out, precisions.main);
  weights.attention_alone = memory.pack(compose(out, qkv, 2 * inner, 3 * inner), precisions.main);
  weights.key_value_difference = memory.without_bias(weights.key_value);
  weights.attention_difference = memory.without_bias(weights.attention_out);
  weights.mlp_in = memory.pack(mlp_in, precisions.main);
  weights.mlp_out = memory.pack(reader.linear(prefix + "mlp.net.4", dim, mlp), precisions.main);
  return weights;
}

void build_action_encoder(WeightReader& reader, WeightMemory& memory, const Config& config, Precision precision,
                          PredictorWeights& weights) {
  const std::int64_t block = config.block_dim(), smoothed = config.action_smoothed_dim;
  const std::int64_t width = config.latent_dim, hidden = config.action_mlp_scale * width;
  const Affine convolution = reader.linear("action_encoder.patch_embed", smoothed, block, true, {smoothed, block, 1});
  const Affine first = reader.linear("action_encoder.embed.0", hidden, smoothed);
  Affine second = reader.linear("action_encoder.embed.2", width, hidden);
  if (width != config.predictor_dim) {
    second = compose(reader.linear("predictor.transformer.cond_proj", config.predictor_dim, width), second);
  }
  weights.action_in = memory.pack(compose(first, convolution), Precision::fp32);
  weights.action_out = memory.pack(second, precision);
}

void build_positions(WeightReader& reader, WeightMemory& memory, const Config& config, Precision precision,
                     PredictorWeights& weights) {
  const std::int64_t history = config.history, latent = config.latent_dim, dim = config.predictor_dim;
  Values positions = reader.read("predictor.pos_embedding", {1, history, latent});
  if (latent != dim) {
    // input(z + position) = input_without_bias(z) + input(position)
    Affine input = reader.linear("predictor.transformer.input_proj", dim, latent);
    const Values latents = std::move(positions);
    positions.clear();
    for (std::int64_t h = 0; h < history; ++h) {
      const std::vector<double> projected = apply(input, latents.data() + h * latent);
      positions.insert(positions.end(), projected.begin(), projected.end());
    }
    input.bias.assign(input.bias.size(), 0.0);
    weights.input = memory.pack(input, precision);
  }
  weights.positions = memory.keep(positions);
}

}  // namespace

PredictorWeights build_predictor_weights(WeightReader& reader, WeightMemory& memory, const Config& config,
                                         LayerPrecisions precisions) {
  const std::int64_t dim = config.predictor_dim;
  PredictorWeights weights;
  build_action_encoder(reader, memory, config, precisions.fine, weights);
  build_positions(reader, memory, config, precisions.fine, weights);

  const auto prefix_of = [](std::int64_t l) { return "predictor.transformer.layers." + std::to_string(l) + "."; };
  Affine modulation = reader.linear(prefix_of(0) + "adaLN_modulation.1", kModulations * dim, dim);
  for (std::int64_t l = 1; l < config.predictor_depth; ++l) {
    append(modulation, reader.linear(prefix_of(l) + "adaLN_modulation.1", kModulations * dim, dim));
  }
  weights.modulation = memory.pack(modulation, precisions.fine);

  for (std::int64_t l = 0; l < config.predictor_depth; ++l) {
    weights.layers.push_back(build_layer(reader, memory, config, prefix_of(l), precisions));
  }

  Affine output;
  const bool has_output = config.predictor_output_dim != dim;
  NormAffine norm = reader.norm("predictor.transformer.norm", dim);
  if (has_output) output = reader.linear("predictor.transformer.output_proj", config.predictor_output_dim, dim);
  const HeadSource pred_proj{"pred_proj",     config.pred_proj_dim, config.latent_dim,
                             std::move(norm), kPredictorEps,        has_output ? &output : nullptr};
  weights.pred_proj = build_head(reader, memory, pred_proj, config.projector_norm, precisions.fine);
  return weights;
}

}  // namespace lewm
