// The rollout with all its savings equals the plain predictor over the whole window at every step.
#include <algorithm>
#include <thread>

#include "core/error.h"
#include "model/rollout.h"
#include "model_support.h"

using namespace model_test;
using lewm::Rollout;

namespace {

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

// One problem: its context, the executed blocks and some candidates.
struct Problem {
  Problem(const Config& c, std::int64_t context_, std::int64_t candidates_, std::int64_t horizon_, std::uint64_t seed)
      : config(c),
        context(context_),
        candidates(candidates_),
        horizon(horizon_),
        latents(random_floats(size(context * c.latent_dim), seed)),
        past(random_floats(size((context - 1) * c.block_dim()), seed + 1)),
        actions(random_floats(size(candidates * horizon * c.block_dim()), seed + 2)) {}

  std::vector<float> run(const std::shared_ptr<const lewm::Model>& model, bool every_step = true) const {
    Rollout rollout(model, {1, horizon, 1});
    rollout.prepare(latents.data(), past.data(), 1, context);
    std::vector<float> out(size(candidates * (every_step ? horizon : 1) * config.latent_dim));
    rollout.run_tile(0, 0, actions.data(), candidates, horizon, every_step, out.data());
    return out;
  }

  std::vector<naive::Vector> reference(const naive::Model& model, std::int64_t candidate) const {
    std::vector<naive::Vector> z, blocks;
    const std::int64_t d = config.latent_dim, a = config.block_dim();
    for (std::int64_t i = 0; i < context; ++i) z.emplace_back(&latents[size(i * d)], &latents[size(i * d)] + d);
    for (std::int64_t i = 0; i + 1 < context; ++i) blocks.emplace_back(past.data() + i * a, past.data() + (i + 1) * a);
    for (std::int64_t h = 0; h < horizon; ++h) {
      const float* block = actions.data() + (candidate * horizon + h) * a;
      blocks.emplace_back(block, block + a);
    }
    return model.rollout(z, blocks);
  }

  void compare(const naive::Tensors& tensors, const std::vector<Tier>& on, const std::string& what) const {
    const naive::Model naive_model(config, tensors);
    std::vector<std::vector<naive::Vector>> expected;
    for (std::int64_t i = 0; i < candidates; ++i) expected.push_back(reference(naive_model, i));
    for (const Tier& tier : on) {
      const std::vector<float> got = run(make_model(config, tensors, tier));
      for (std::int64_t i = 0; i < candidates; ++i) {
        for (std::int64_t h = 0; h < horizon; ++h) {
          check_latent(&got[size((i * horizon + h) * config.latent_dim)], expected[size(i)][size(h)], tier,
                       what + ", candidate " + std::to_string(i) + ", step " + std::to_string(h));
        }
      }
    }
  }

  Config config;
  std::int64_t context, candidates, horizon;
  std::vector<float> latents, past, actions;
};

}  // namespace

TEST(published_sizes) {
  const Config config;
  const naive::Tensors tensors = naive::random_weights(config, 1);
  for (const std::int64_t context : {1, 3}) {
    Problem(config, context, 2, 5, 10).compare(tensors, tiers(), "published sizes, context " + std::to_string(context));
  }
}

TEST(every_history_context_and_horizon) {
  for (const std::int64_t history : {1, 2, 3, 4}) {
    Config config = small_config();
    config.history = history;
    const naive::Tensors tensors = naive::random_weights(config, 20 + static_cast<std::uint64_t>(history));
    for (std::int64_t context = 1; context <= history; ++context) {
      for (std::int64_t horizon = 1; horizon <= 7; ++horizon) {
        Problem(config, context, 3, horizon, 30)
            .compare(tensors, fp32_tiers(),
                     "history " + std::to_string(history) + ", context " + std::to_string(context) + ", horizon " +
                         std::to_string(horizon));
      }
    }
  }
}

TEST(low_precisions_over_a_sliding_window) {
  // Wide enough for a cosine to mean something.
  Config config = small_config();
  config.latent_dim = config.predictor_dim = config.predictor_output_dim = 96;
  config.predictor_mlp_dim = 200;
  config.pred_proj_dim = 100;
  config.predictor_head_dim = 16;
  const naive::Tensors tensors = naive::random_weights(config, 40);
  Problem(config, 2, 3, 5, 41).compare(tensors, tiers(), "width 96");
}

// A weight that towers above its neighbours would take digits from them in int24 and int16: the model multiplies floats
// then, and for rows that are too long for many digits.
TEST(uneven_weights_and_long_rows_are_multiplied_as_floats) {
  Config config = small_config();
  config.predictor_mlp_dim = 300;
  naive::Tensors tensors = naive::random_weights(config, 55);
  std::vector<Tier> floats = tiers();
  std::erase_if(floats, [](const Tier& tier) { return tier.precision == Precision::int8; });
  const auto check = [&](const auto& expected) {
    for (const Tier tier : floats) {
      CHECK(make_model(config, tensors, tier)->layer_precision() ==
            expected(lewm::cpu::kernels(tier.isa), tier.precision));
    }
  };
  const auto of_table = [](const lewm::cpu::Kernels& kernels, Precision p) {
    return p == Precision::fp32 ? kernels.fp32 : kernels.bf16;
  };
  const auto of_floats = [](const lewm::cpu::Kernels& kernels, Precision p) {
    return kernels.gemm[static_cast<int>(p)].run ? p : Precision::fp32;
  };
  check(of_table);
  tensors.values("predictor.transformer.layers.1.mlp.net.4.weight")[7] = 100;
  check(of_floats);
  Problem(config, config.history, 3, 4, 56).compare(tensors, fp32_tiers(), "uneven weights");

  config.predictor_mlp_dim = lewm::cpu::kInt16MostK + 1;
  tensors = naive::random_weights(config, 57);
  check([&](const lewm::cpu::Kernels& kernels, Precision p) {
    return p == Precision::fp32 ? of_table(kernels, p) : of_floats(kernels, p);
  });
}

// A GPU's weights are rounded to bf16 once.
TEST(weights_for_a_gpu_are_floats) {
  for (const Tier tier : fp32_tiers()) {
    const lewm::cpu::Kernels& kernels = lewm::cpu::kernels(tier.isa);
    const Tier gpu{tier.isa, lewm::cpu::precision_for_gpu(kernels)};
    const naive::Tensors tensors = naive::random_weights(small_config(), 58);
    CHECK(make_model(small_config(), tensors, gpu)->layer_precision() != Precision::int16);
  }
}

TEST(other_architectures) {
  const auto compare = [](const char* what, const Config& config) {
    const naive::Tensors tensors = naive::random_weights(config, 50);
    Problem(config, config.history, 3, 4, 51).compare(tensors, fp32_tiers(), what);
    Problem(config, 1, 2, 5, 52).compare(tensors, fp32_tiers(), what);
  };
  Config projected = small_config();
  projected.predictor_dim = 40;
  projected.predictor_output_dim = 28;
  compare("input, condition and output projections", projected);

  Config output_only = projected;
  output_only.pred_proj_dim = 0;
  output_only.predictor_output_dim = output_only.latent_dim;
  compare("output projection without pred_proj", output_only);

  Config bare = small_config();
  bare.pred_proj_dim = 0;
  compare("no pred_proj", bare);

  Config one_head = small_config();
  one_head.predictor_heads = 1;
  one_head.predictor_head_dim = one_head.predictor_dim;
  compare("one head as wide as the predictor", one_head);

  Config layer = small_config();
  layer.projector_norm = "layer";
  compare("LayerNorm in the heads", layer);

  Config none = small_config();
  none.projector_norm = "none";
  compare("no norm in the heads", none);

  Config shallow = small_config();
  shallow.predictor_depth = 1;
  compare("one layer", shallow);

  Config long_history = small_config();
  long_history.history = 9;
  compare("history 9", long_history);

  Config wide = small_config();  // beyond int24
  wide.predictor_mlp_dim = lewm::cpu::kInt24MostK + 1;
  compare("a hidden layer wider than int24 takes", wide);
}

TEST(last_step_alone_equals_every_step) {
  const Config config = small_config();
  const naive::Tensors tensors = naive::random_weights(config, 60);
  const Problem problem(config, 2, 5, 4, 61);
  for (const Tier& tier : tiers()) {
    const auto model = make_model(config, tensors, tier);
    const std::vector<float> all = problem.run(model), last = problem.run(model, false);
    for (std::int64_t i = 0; i < 5; ++i) {
      const float* expected = &all[size((i * 4 + 3) * config.latent_dim)];
      CHECK(std::equal(expected, expected + config.latent_dim, &last[size(i * config.latent_dim)]));
    }
  }
}

// A candidate's latents are the same bytes whoever shares its tile, its thread, and its batch of problems.
TEST(bytes_do_not_depend_on_tiles_threads_or_batch) {
  const Config config = small_config();
  const naive::Tensors tensors = naive::random_weights(config, 70);
  const std::int64_t context = 2, horizon = 5, problems = 3, d = config.latent_dim, a = config.block_dim();
  for (const Tier& tier : tiers()) {
    const auto model = make_model(config, tensors, tier);
    std::vector<Problem> each;
    std::vector<float> latents, past;
    const std::int64_t candidates = Rollout(model, {1, horizon, 1}).tile();
    for (std::int64_t b = 0; b < problems; ++b) {
      each.emplace_back(config, context, candidates, horizon, 71 + static_cast<std::uint64_t>(b) * 3);
      latents.insert(latents.end(), each.back().latents.begin(), each.back().latents.end());
      past.insert(past.end(), each.back().past.begin(), each.back().past.end());
    }
    Rollout rollout(model, {problems, horizon + 3, 2});
    rollout.prepare(latents.data(), past.data(), problems, context);
    for (std::int64_t b = 0; b < problems; ++b) {
      const std::vector<float> expected = each[size(b)].run(model);
      std::vector<float> got(expected.size());
      const auto split = [&](int thread, std::int64_t first, std::int64_t last, std::int64_t step) {
        for (std::int64_t i = first; i < last; i += step) {
          rollout.run_tile(thread, b, &each[size(b)].actions[size(i * horizon * a)], std::min(step, last - i), horizon,
                           true, &got[size(i * horizon * d)]);
        }
      };
      std::thread other([&] { split(1, 0, 77, 13); });
      split(0, 77, candidates, 31);
      other.join();
      CHECK(same_bytes(got, expected));
    }
  }
}

TEST(limits_are_checked) {
  Config config = small_config();
  config.history = 65;
  const auto model = make_model(config, naive::random_weights(config, 80), {lewm::cpu::Isa::scalar, Precision::fp32});
  CHECK_THROWS(Rollout(model, {}), lewm::Error, "history");
  config.history = 2;
  const auto good = make_model(config, naive::random_weights(config, 80), {lewm::cpu::Isa::scalar, Precision::fp32});
  CHECK_THROWS(Rollout(good, {0, 5, 1}), lewm::Error, "problems: expected 1..");
  CHECK_THROWS(Rollout(good, {1, 0, 1}), lewm::Error, "horizon");
  CHECK_THROWS(Rollout(good, {1, 5, 0}), lewm::Error, "threads");
}

CHECK_MAIN
