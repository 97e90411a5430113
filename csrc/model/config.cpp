#include "model/config.h"

#include "core/error.h"
#include "core/json.h"

namespace lewm {
namespace {

struct SizeField {
  const char* name;
  std::int64_t Config::*member;
  std::int64_t least;
};

// In the order in which they are written and checked.
constexpr SizeField kSizes[] = {
    {"image_size", &Config::image_size, 1},
    {"patch_size", &Config::patch_size, 1},
    {"encoder_dim", &Config::encoder_dim, 1},
    {"encoder_depth", &Config::encoder_depth, 1},
    {"encoder_heads", &Config::encoder_heads, 1},
    {"encoder_mlp_dim", &Config::encoder_mlp_dim, 1},
    {"latent_dim", &Config::latent_dim, 1},
    {"projector_dim", &Config::projector_dim, 0},
    {"pred_proj_dim", &Config::pred_proj_dim, 0},
    {"history", &Config::history, 1},
    {"predictor_depth", &Config::predictor_depth, 1},
    {"predictor_heads", &Config::predictor_heads, 1},
    {"predictor_head_dim", &Config::predictor_head_dim, 1},
    {"predictor_mlp_dim", &Config::predictor_mlp_dim, 1},
    {"predictor_dim", &Config::predictor_dim, 1},
    {"predictor_output_dim", &Config::predictor_output_dim, 1},
    {"action_dim", &Config::action_dim, 1},
    {"frame_skip", &Config::frame_skip, 1},
    {"action_smoothed_dim", &Config::action_smoothed_dim, 1},
    {"action_mlp_scale", &Config::action_mlp_scale, 1},
};

// Keeps every product of three sizes inside 64 bits; far beyond any model.
constexpr std::int64_t kLargest = 1 << 20;

[[noreturn]] void fail(const std::string& field, const std::string& expected, const std::string& got) {
  throw Error(Status::invalid_argument, field + ": expected " + expected + ", got " + got);
}

}  // namespace

void Config::validate() const {
  for (const SizeField& field : kSizes) {
    const std::int64_t value = this->*field.member;
    if (value < field.least || value > kLargest) {
      fail(field.name, std::to_string(field.least) + ".." + std::to_string(kLargest), std::to_string(value));
    }
  }
  if (projector_norm != "batch" && projector_norm != "layer" && projector_norm != "none") {
    fail("projector_norm", "batch, layer or none", json::quote(projector_norm));
  }
  if (image_size % patch_size) {
    fail("image_size", "a multiple of patch_size (" + std::to_string(patch_size) + ")", std::to_string(image_size));
  }
  if (encoder_dim % encoder_heads) {
    fail("encoder_dim", "a multiple of encoder_heads (" + std::to_string(encoder_heads) + ")",
         std::to_string(encoder_dim));
  }
  if (!projector_dim && encoder_dim != latent_dim) {
    fail("latent_dim", "encoder_dim (" + std::to_string(encoder_dim) + ") without a projector",
         std::to_string(latent_dim));
  }
  if (!pred_proj_dim && predictor_output_dim != latent_dim) {
    fail("predictor_output_dim", "latent_dim (" + std::to_string(latent_dim) + ") without a pred_proj",
         std::to_string(predictor_output_dim));
  }
}

Config config_from_json(std::string_view text) {
  const json::Value value = json::parse(text);
  const auto bad = [](const std::string& what) -> Error { return Error(Status::bad_file, "config: " + what); };
  if (!value.object()) throw bad(std::string("expected an object, got ") + json::kind_name(value.kind()));

  Config config;
  for (const auto& [name, field] : *value.object()) {
    if (name == "projector_norm") {
      if (!field.string()) throw bad(name + ": expected a string, got " + json::kind_name(field.kind()));
      config.projector_norm = *field.string();
      continue;
    }
    const SizeField* known = nullptr;
    for (const SizeField& size : kSizes) {
      if (name == size.name) known = &size;
    }
    if (!known) throw bad("unknown field " + json::quote(name));
    if (!field.integer()) throw bad(name + ": expected an integer, got " + json::kind_name(field.kind()));
    config.*(known->member) = *field.integer();
  }
  try {
    config.validate();
  } catch (const Error& e) {
    throw bad(e.what());
  }
  return config;
}

std::string config_to_json(const Config& config) {
  std::string text = "{";
  for (const SizeField& field : kSizes) {
    text += json::quote(field.name) + ": " + std::to_string(config.*field.member) + ", ";
  }
  return text + "\"projector_norm\": " + json::quote(config.projector_norm) + "}";
}

}  // namespace lewm
