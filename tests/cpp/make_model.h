// Deployment files with random weights, written from a test.
#pragma once

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

#include "naive_model.h"

namespace model_file {

inline std::string json_array(const std::vector<float>& values) {
  std::string text = "[";
  for (const float value : values) text += (text.size() > 1 ? ", " : "") + std::to_string(value);
  return text + "]";
}

// A JSON string literal of text that has quotes but no control characters.
inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) out += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return out + "\"";
}

// https://github.com/huggingface/safetensors#format: header length (u64, little-endian), JSON header, tensors.
inline void write(const std::string& path, const lewm::Config& config, const naive::Tensors& tensors,
                  const lewm::ActionScaling& scaling) {
  const lewm::Preprocessing preprocessing;
  const auto scale = [](const float* mean, const float* std, std::size_t n) {
    return "{\"mean\": " + json_array({mean, mean + n}) + ", \"std\": " + json_array({std, std + n}) + "}";
  };
  std::string header = "{\"__metadata__\": {\"format\": \"lewm\", \"format_version\": \"1\"";
  header += ", \"config\": " + quoted(lewm::config_to_json(config));
  header += ", \"preprocessing\": " + quoted(scale(preprocessing.mean, preprocessing.std, 3));
  if (!scaling.mean.empty()) {
    header += ", \"action_scaling\": " + quoted(scale(scaling.mean.data(), scaling.std.data(), scaling.mean.size()));
  }
  header += "}";
  std::size_t offset = 0;
  for (const std::string_view name : tensors.names()) {
    const lewm::TensorView& view = *tensors.find(name);
    std::string shape;
    for (const std::int64_t size : view.shape) shape += (shape.empty() ? "" : ", ") + std::to_string(size);
    const std::size_t end = offset + tensors.values(std::string(name)).size() * sizeof(float);
    header += ", \"" + std::string(name) + "\": {\"dtype\": \"F32\", \"shape\": [" + shape + "], \"data_offsets\": [" +
              std::to_string(offset) + ", " + std::to_string(end) + "]}";
    offset = end;
  }
  header += "}";
  while (header.size() % 8) header += ' ';
  std::ofstream file(path, std::ios::binary);
  const std::uint64_t length = header.size();
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file.write(header.data(), static_cast<std::streamsize>(header.size()));
  for (const std::string_view name : tensors.names()) {
    const std::vector<float>& values = tensors.values(std::string(name));
    file.write(reinterpret_cast<const char*>(values.data()),
               static_cast<std::streamsize>(values.size() * sizeof(float)));
  }
}

// A small model with two action dimensions, frame skip 3 and an action scaling that is not the identity.
inline lewm::Config small_config() {
  lewm::Config config;
  config.image_size = 20;
  config.patch_size = 5;
  config.encoder_dim = 36;
  config.encoder_depth = 2;
  config.encoder_heads = 3;
  config.encoder_mlp_dim = 50;
  config.latent_dim = 24;
  config.projector_dim = 40;
  config.pred_proj_dim = 40;
  config.history = 3;
  config.predictor_depth = 2;
  config.predictor_heads = 3;
  config.predictor_head_dim = 8;
  config.predictor_mlp_dim = 56;
  config.predictor_dim = 24;
  config.predictor_output_dim = 24;
  config.action_dim = 2;
  config.frame_skip = 3;
  config.action_mlp_scale = 2;
  return config;
}

inline void write_small(const std::string& path) {
  const lewm::Config config = small_config();
  write(path, config, naive::random_weights(config, 5), {{10.0f, -3.0f}, {2.0f, 0.5f}});
}

}  // namespace model_file
