// A model on the device of the host run, beside the same model on the CPU.
#pragma once

#include <memory>
#include <vector>

#include "check.h"
#include "core/thread_pool.h"
#include "host_cuda.h"
#include "model_support.h"
#include "plan/device.h"
#include "plan/planner.h"
#include "plan_support.h"

extern "C" const lewm::cuda::Table* lewm_cuda_table();

namespace engine_test {

using lewm::cuda::host::Order;
using lewm::cuda::host::schedule;

// bf16 here and there, but sums of different order: DESIGN.md section 6 asks for 0.999.
constexpr double kCosine = 0.9999;

// Small, with every optional part of a model that a device has code for.
inline lewm::Config device_config() {
  lewm::Config c = model_test::small_config();
  c.encoder_dim = 48;  // three heads of 16
  c.action_dim = 2;
  c.frame_skip = 3;
  return c;
}

// Widths that differ from each other everywhere: an input layer, an output layer, hidden LayerNorms.
inline lewm::Config projecting_config() {
  lewm::Config c = device_config();
  c.predictor_dim = 28;
  c.predictor_output_dim = 20;
  c.projector_norm = "layer";
  c.history = 4;
  return c;
}

// No heads behind the encoder and the predictor.
inline lewm::Config headless_config() {
  lewm::Config c = device_config();
  c.latent_dim = 48;
  c.projector_dim = 0;
  c.pred_proj_dim = 0;
  c.predictor_dim = 48;
  c.predictor_output_dim = 48;
  return c;
}

struct Fixture {
  explicit Fixture(const lewm::Config& sizes, std::uint64_t seed = 5)
      : config(sizes),
        weights(naive::random_weights(config, seed)),
        model(model_test::make_model(config, weights, {lewm::cpu::Isa::scalar, lewm::Precision::bf16})),
        device(std::make_shared<const lewm::Device>(*model, 0, *lewm_cuda_table())),
        latents(model_test::random_floats(8 * 4 * d(), 1)),
        past(model_test::random_floats(8 * 3 * a(), 2)),
        goals(model_test::random_floats(8 * d(), 3)) {}
  std::size_t d() const { return static_cast<std::size_t>(config.latent_dim); }
  std::size_t a() const { return static_cast<std::size_t>(config.block_dim()); }

  lewm::PlanRequest request(std::int64_t problems, std::int64_t context) const {
    lewm::PlanRequest made;
    made.problems = problems;
    made.context = context;
    made.latents = latents.data();
    made.past_actions = past.data();
    made.goals = goals.data();
    return made;
  }

  lewm::Config config;
  naive::Tensors weights;
  std::shared_ptr<const lewm::Model> model;
  std::shared_ptr<const lewm::Device> device;
  std::vector<float> latents, past, goals;
};

// Rows of `width` point the same way, and are as long.
inline void check_rows(const std::vector<float>& got, const std::vector<float>& expected, std::size_t width,
                       const char* what) {
  CHECK_EQ(got.size(), expected.size());
  for (std::size_t row = 0; row < got.size(); row += width) {
    double dot = 0, x = 0, y = 0;
    for (std::size_t i = row; i < row + width; ++i) {
      dot += static_cast<double>(got[i]) * expected[i];
      x += static_cast<double>(got[i]) * got[i];
      y += static_cast<double>(expected[i]) * expected[i];
    }
    const double cosine = dot / std::sqrt(x * y), length = std::sqrt(x / y);
    if (cosine >= kCosine && std::fabs(length - 1) <= 0.02) continue;
    check::fail(__FILE__, __LINE__,
                std::string(what) + ", row " + std::to_string(row / width) + ": cosine " + std::to_string(cosine) +
                    ", length " + std::to_string(length));
    return;
  }
}

}  // namespace engine_test
