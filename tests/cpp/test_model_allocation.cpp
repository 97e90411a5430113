// Construction allocates; encode, prepare and run_tile do not.
#include "failing_allocations.h"
#include "model/encoder.h"
#include "model/rollout.h"
#include "model_support.h"

using namespace model_test;

TEST(the_counter_counts) {
  const long before = allocations.load();
  const auto value = std::make_unique<int>(1);
  CHECK_EQ(allocations.load() - before, 1);
  CHECK_EQ(*value, 1);
}

TEST(nothing_allocates_after_construction) {
  for (const char* norm : {"batch", "layer"}) {
    Config config = small_config();
    config.projector_norm = norm;
    config.predictor_dim = 40;
    config.predictor_output_dim = 28;
    const naive::Tensors tensors = naive::random_weights(config, 1);
    const std::vector<std::uint8_t> frames = random_frames(config, 3, 2);
    const std::vector<float> floats = random_floats(frames.size(), 3);
    for (const Tier& tier : tiers()) {
      const auto model = make_model(config, tensors, tier);
      lewm::ThreadPool pool(2);
      lewm::Encoder encoder(model, pool);
      lewm::Rollout rollout(model, {2, 5, 2});
      const std::int64_t n = rollout.tile();
      const auto values = [](std::int64_t count) { return static_cast<std::size_t>(count); };
      const std::vector<float> past = random_floats(values(2 * 2 * config.block_dim()), 4);
      const std::vector<float> actions = random_floats(values(n * 5 * config.block_dim()), 5);
      std::vector<float> latents(values(6 * config.latent_dim)), out(values(2 * n * 5 * config.latent_dim));

      const long before = allocations.load();
      encoder.encode(frames.data(), 3, latents.data());
      encoder.encode(floats.data(), 3, latents.data() + 3 * config.latent_dim);
      rollout.prepare(latents.data(), past.data(), 2, 3);
      pool.run(2, [&](std::int64_t task, int thread) {
        rollout.run_tile(thread, task, actions.data(), n, 5, true, out.data() + task * n * 5 * config.latent_dim);
      });
      CHECK_EQ(allocations.load(), before);
    }
  }
}

CHECK_MAIN
