#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "model/encoder_weights.h"
#include "model/predictor_weights.h"

namespace lewm {
namespace {

constexpr const char* kPrecisionNames[] = {"fp32", "bf16", "int8"};

// The kernels keep a row of these widths on the stack.
void check_widths(const Config& config) {
  const struct {
    const char* field;
    std::int64_t width;
  } widths[] = {{"encoder_dim", config.encoder_dim},
                {"latent_dim", config.latent_dim},
                {"projector_dim", config.projector_dim},
                {"pred_proj_dim", config.pred_proj_dim},
                {"predictor_dim", config.predictor_dim},
                {"predictor_output_dim", config.predictor_output_dim},
                {"predictor_heads * predictor_head_dim", config.predictor_heads * config.predictor_head_dim}};
  for (const auto& [field, width] : widths) {
    if (width > cpu::kMaxWidth) {
      throw Error(Status::unsupported, std::string(field) + ": expected at most " + std::to_string(cpu::kMaxWidth) +
                                           ", got " + std::to_string(width));
    }
  }
}

// Of the layers of fp32 and bf16 models that integers would be too coarse for.
LayerPrecisions as_floats(const cpu::Kernels& kernels, Precision precision) {
  const bool has_it = kernels.gemm[static_cast<int>(precision)].run;
  return has_it ? LayerPrecisions{precision, precision} : LayerPrecisions{Precision::fp32, Precision::fp32};
}

// Integers stand in for the floats that a model is named after.
bool stand_in(LayerPrecisions layers, Precision named) { return named != Precision::int8 && layers.main != named; }

// Rows of `widest` elements are the longest that it multiplies.
LayerPrecisions choose_precisions(const char* argument, const cpu::Kernels& kernels, Precision precision,
                                  std::int64_t widest) {
  if (!cpu::has(kernels, precision)) {
    throw Error(Status::unsupported, std::string(argument) + ": " + kPrecisionNames[static_cast<int>(precision)] +
                                         " is not available with instruction set " + kernels.isa);
  }
  const LayerPrecisions layers = cpu::layer_precisions(kernels, precision);
  if (precision == Precision::fp32 && widest > cpu::kInt24MostK) return as_floats(kernels, precision);
  if (precision == Precision::bf16 && widest > cpu::kInt16MostK) return as_floats(kernels, precision);
  if (precision == Precision::int8 && widest > cpu::kInt8MostK) {
    throw Error(Status::unsupported, std::string(argument) + ": int8 is not available for layers of more than " +
                                         std::to_string(cpu::kInt8MostK) + " inputs, got " + std::to_string(widest));
  }
  return layers;
}

// Of the rows whose width check_widths leaves free.
std::int64_t widest_predictor_row(const Config& config) {
  return std::max(config.predictor_mlp_dim, config.action_mlp_scale * config.latent_dim);
}
std::int64_t widest_encoder_row(const Config& config) {
  return std::max(config.encoder_mlp_dim, 3 * config.patch_size * config.patch_size);
}

void check_scale(const char* field, const float* mean, const float* std, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    if (!std::isfinite(mean[i]) || !std::isnormal(std[i]) || std[i] < 0) {
      throw Error(Status::invalid_argument, std::string(field) + ": expected a finite mean and a positive std, got " +
                                                std::to_string(mean[i]) + " and " + std::to_string(std[i]) +
                                                " in dimension " + std::to_string(i));
    }
  }
}

void check_action_scaling(const ActionScaling& scaling, std::int64_t action_dim) {
  const auto n = static_cast<std::size_t>(action_dim);
  if (scaling.mean.size() != n || scaling.std.size() != n) {
    throw Error(Status::invalid_argument, "action_scaling: expected mean and std of " + std::to_string(n) +
                                              " dimensions, got " + std::to_string(scaling.mean.size()) + " and " +
                                              std::to_string(scaling.std.size()));
  }
  check_scale("action_scaling", scaling.mean.data(), scaling.std.data(), n);
}

// ---------------------------------------------------------------------------------------------------------------------
// The metadata of a deployment file
// ---------------------------------------------------------------------------------------------------------------------

const std::string& required_metadata(const SafetensorsFile& file, std::string_view key) {
  const std::string* value = file.metadata(key);
  if (!value) {
    throw Error(Status::bad_file, "no metadata " + json::quote(key) + "; expected a file that lewm has written");
  }
  return *value;
}

void check_version(const SafetensorsFile& file) {
  const std::string& format = required_metadata(file, "format");
  if (format != "lewm") throw Error(Status::bad_file, "format: expected \"lewm\", got " + json::quote(format));
  const std::string& version = required_metadata(file, "format_version");
  if (version != "1") throw Error(Status::bad_file, "format_version: this build reads 1, got " + json::quote(version));
}

std::vector<float> read_floats(const json::Value& object, std::string_view field) {
  const json::Value* value = object.find(field);
  const auto* elements = value ? value->array() : nullptr;
  if (!elements) throw Error(Status::bad_file, std::string(field) + ": expected an array of numbers");
  std::vector<float> floats;
  for (const json::Value& element : *elements) {
    const auto number = element.number();
    if (!number) throw Error(Status::bad_file, std::string(field) + ": expected an array of numbers");
    floats.push_back(static_cast<float>(*number));
  }
  return floats;
}

// {"mean": [...], "std": [...]}
ActionScaling read_scale(const std::string& key, const std::string& text) {
  try {
    const json::Value value = json::parse(text);
    if (!value.object()) throw Error(Status::bad_file, "expected mean and std");
    for (const json::Member& member : *value.object()) {
      if (member.first != "mean" && member.first != "std") {
        throw Error(Status::bad_file, "expected mean and std, got " + json::quote(member.first));
      }
    }
    return {read_floats(value, "mean"), read_floats(value, "std")};
  } catch (const Error& e) {
    throw Error(e.status(), key + ": " + e.what());
  }
}

Preprocessing read_preprocessing(const SafetensorsFile& file) {
  const ActionScaling scale = read_scale("preprocessing", required_metadata(file, "preprocessing"));
  Preprocessing preprocessing;
  if (scale.mean.size() != 3 || scale.std.size() != 3) {
    throw Error(Status::bad_file, "preprocessing: expected mean and std of 3 channels");
  }
  for (std::size_t c = 0; c < 3; ++c) {
    preprocessing.mean[c] = scale.mean[c];
    preprocessing.std[c] = scale.std[c];
  }
  return preprocessing;
}

// Empty where the file has none.
ActionScaling read_action_scaling(const SafetensorsFile& file, std::int64_t action_dim) {
  const std::string* text = file.metadata("action_scaling");
  if (!text) return {};
  ActionScaling scaling = read_scale("action_scaling", *text);
  check_action_scaling(scaling, action_dim);
  return scaling;
}

}  // namespace

Model::Model(const cpu::Kernels& kernels) : memory_(std::make_unique<WeightMemory>(kernels)) {}
Model::~Model() = default;

cpu::Store Model::storage(Precision precision) const {
  const bool has_bf16 = kernels().gemm[static_cast<int>(Precision::bf16)].run;
  return precision != Precision::fp32 && has_bf16 ? cpu::Store::bf16 : cpu::Store::f32;
}

std::size_t Model::weight_bytes() const { return memory_->bytes(); }

std::shared_ptr<const Model> Model::create(const Config& config, const TensorSource& tensors,
                                           const Preprocessing& preprocessing, ActionScaling scaling,
                                           Precision precision, cpu::Isa isa,
                                           std::optional<Precision> encoder_precision) {
  config.validate();
  check_widths(config);
  check_scale("preprocessing", preprocessing.mean, preprocessing.std, 3);
  if (!scaling.mean.empty() || !scaling.std.empty()) check_action_scaling(scaling, config.action_dim);
  const cpu::Kernels& kernels = cpu::kernels(isa);
  LayerPrecisions layers = choose_precisions("precision", kernels, precision, widest_predictor_row(config));
  LayerPrecisions encoder_layers = choose_precisions("encoder_precision", kernels,
                                                     encoder_precision.value_or(precision), widest_encoder_row(config));

  std::shared_ptr<Model> model(new Model(kernels));
  model->config_ = config;
  model->precision_ = precision;
  model->encoder_precision_ = encoder_precision.value_or(precision);
  model->isa_ = isa;
  model->preprocessing_ = preprocessing;
  model->scaling_ = std::move(scaling);
  const auto build = [&] {
    WeightReader reader(tensors);
    model->encoder_ = std::make_unique<EncoderWeights>(
        build_encoder_weights(reader, *model->memory_, config, preprocessing, encoder_layers));
    model->predictor_ =
        std::make_unique<PredictorWeights>(build_predictor_weights(reader, *model->memory_, config, layers));
    reader.finish();
  };
  build();
  const bool predictor = stand_in(layers, precision), encoder = stand_in(encoder_layers, model->encoder_precision_);
  if (model->memory_->uneven() && (predictor || encoder)) {
    if (predictor) layers = as_floats(kernels, precision);
    if (encoder) encoder_layers = as_floats(kernels, model->encoder_precision_);
    model->memory_ = std::make_unique<WeightMemory>(kernels);
    build();
  }
  model->layers_ = layers;
  model->encoder_layers_ = encoder_layers;
  return model;
}

std::shared_ptr<const Model> Model::open(const std::string& path, Precision precision, cpu::Isa isa,
                                         std::optional<Precision> encoder_precision) {
  const SafetensorsFile file(path);
  try {
    check_version(file);
    const Config config = config_from_json(required_metadata(file, "config"));
    auto model = create(config, file, read_preprocessing(file), read_action_scaling(file, config.action_dim), precision,
                        isa, encoder_precision);
    file.check_unchanged();
    return model;
  } catch (const Error& e) {
    // Whatever the file says wrongly is the file's fault, not an argument's.
    const Status status = e.status() == Status::invalid_argument ? Status::bad_file : e.status();
    throw Error(status, path + ": " + e.what());
  }
}

}  // namespace lewm
