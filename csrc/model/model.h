// A loaded world model: packed weights, read-only and shared by any number of encoders, rollouts and planners.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cpu/isa.h"
#include "model/config.h"
#include "model/tensors.h"

namespace lewm {

struct EncoderWeights;
struct PredictorWeights;
class WeightMemory;

// How pixels in [0, 255] become encoder input: (pixel / 255 - mean) / std per channel. Folded into the patch embedding.
struct Preprocessing {
  float mean[3] = {0.485f, 0.456f, 0.406f};
  float std[3] = {0.229f, 0.224f, 0.225f};
};

// Standardised action = (action - mean) / std, per dimension of one environment step.
struct ActionScaling {
  std::vector<float> mean;  // [action_dim]; empty: identity
  std::vector<float> std;
};

class Model {
 public:
  // Checks every tensor's name, shape and finiteness against `config`, folds and packs. Throws Error. The encoder has a
  // precision of its own, or the model's: training scales small differences between frames up, and with them what an
  // encoder rounds away.
  static std::shared_ptr<const Model> create(const Config& config, const TensorSource& tensors,
                                             const Preprocessing& preprocessing, ActionScaling scaling,
                                             Precision precision, cpu::Isa isa,
                                             std::optional<Precision> encoder_precision = {});
  // Opens a deployment file (DESIGN.md section 7).
  static std::shared_ptr<const Model> open(const std::string& path, Precision precision, cpu::Isa isa,
                                           std::optional<Precision> encoder_precision = {});
  ~Model();

  const Config& config() const { return config_; }
  Precision precision() const { return precision_; }
  Precision encoder_precision() const { return encoder_precision_; }
  // Of most layers of the predictor, and of the encoder.
  Precision layer_precision() const { return layers_.main; }
  Precision encoder_layer_precision() const { return encoder_layers_.main; }
  cpu::Isa isa() const { return isa_; }
  const cpu::Kernels& kernels() const { return cpu::kernels(isa_); }
  const Preprocessing& preprocessing() const { return preprocessing_; }
  const ActionScaling& action_scaling() const { return scaling_; }
  std::size_t weight_bytes() const;     // of the packed weights
  cpu::Store storage(Precision) const;  // of queries, keys, values and modulations

  const EncoderWeights& encoder() const { return *encoder_; }
  const PredictorWeights& predictor() const { return *predictor_; }

 private:
  explicit Model(const cpu::Kernels& kernels);
  Config config_;
  Precision precision_ = Precision::fp32, encoder_precision_ = Precision::fp32;
  cpu::LayerPrecisions layers_, encoder_layers_;
  cpu::Isa isa_ = cpu::Isa::scalar;
  Preprocessing preprocessing_;
  ActionScaling scaling_;
  std::unique_ptr<WeightMemory> memory_;
  std::unique_ptr<EncoderWeights> encoder_;
  std::unique_ptr<PredictorWeights> predictor_;
};

}  // namespace lewm
