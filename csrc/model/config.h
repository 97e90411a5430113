// Sizes of a world model. The same fields, under the same names, as lewm.LeWMConfig and as the "config" metadata of a
// deployment file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lewm {

struct Config {
  std::int64_t image_size = 224;
  std::int64_t patch_size = 14;
  std::int64_t encoder_dim = 192;
  std::int64_t encoder_depth = 12;
  std::int64_t encoder_heads = 3;
  std::int64_t encoder_mlp_dim = 768;
  std::int64_t latent_dim = 192;         // D
  std::int64_t projector_dim = 2048;     // 0: no projector (then encoder_dim == latent_dim)
  std::int64_t pred_proj_dim = 2048;     // 0: no pred_proj
  std::string projector_norm = "batch";  // batch | layer | none, of projector and pred_proj alike
  std::int64_t history = 3;              // frames the predictor sees
  std::int64_t predictor_depth = 6;
  std::int64_t predictor_heads = 16;
  std::int64_t predictor_head_dim = 64;
  std::int64_t predictor_mlp_dim = 2048;
  std::int64_t predictor_dim = 192;         // width of its residual stream
  std::int64_t predictor_output_dim = 192;  // what pred_proj reads
  std::int64_t action_dim = 2;              // of one environment step
  std::int64_t frame_skip = 5;              // environment steps in a block
  std::int64_t action_smoothed_dim = 10;
  std::int64_t action_mlp_scale = 4;

  std::int64_t block_dim() const { return action_dim * frame_skip; }  // A
  std::int64_t patches() const { return (image_size / patch_size) * (image_size / patch_size); }
  std::int64_t tokens() const { return patches() + 1; }

  // Throws Error(invalid_argument) naming the first field that is out of range or contradicts another.
  void validate() const;
};

// Reads the JSON object of the deployment metadata; unknown keys are refused. Throws Error(bad_file).
Config config_from_json(std::string_view json);
std::string config_to_json(const Config& config);

}  // namespace lewm
