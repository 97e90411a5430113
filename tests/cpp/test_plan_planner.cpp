// The planner over a small random model: costs against the plain model in double precision, plans against the plain
// search, the same bytes for any threads and batch, refusals, and no allocation after construction.
#include <limits>

#include "check.h"
#include "failing_allocations.h"
#include "model_support.h"
#include "plan/planner.h"
#include "plan_support.h"
#include "plan_twin.h"

using namespace lewm;
using lewm::testing::OwnedResult;
using model_test::make_model;
using model_test::random_floats;
using model_test::random_frames;
using model_test::Tier;

namespace {

constexpr double kCostTolerance = 1e-4;  // relative, fp32: DESIGN.md section 6
constexpr std::int64_t kHorizon = 4;

Config test_config() {
  Config config = model_test::small_config();
  config.action_dim = 2;
  config.frame_skip = 3;
  return config;
}

PlannerOptions small_options() {
  PlannerOptions options;
  options.samples = 24;
  options.elites = 5;
  options.iterations = 3;
  options.horizon = kHorizon;
  options.problems = 8;
  return options;
}

struct Fixture {
  explicit Fixture(Tier tier = {cpu::active_isa(), Precision::fp32})
      : weights(naive::random_weights(config, 5)),
        model(make_model(config, weights, tier)),
        latents(random_floats(8 * 3 * d(), 1)),
        past(random_floats(8 * 2 * a(), 2)),
        goals(random_floats(8 * d(), 3)) {}
  std::size_t d() const { return static_cast<std::size_t>(config.latent_dim); }
  std::size_t a() const { return static_cast<std::size_t>(config.block_dim()); }

  PlanRequest request(std::int64_t problems = 1, std::int64_t context = 1) const {
    PlanRequest made;
    made.problems = problems;
    made.context = context;
    made.latents = latents.data();
    made.past_actions = past.data();
    made.goals = goals.data();
    return made;
  }
  std::shared_ptr<Planner> planner(const PlannerOptions& options, int threads = 1) const {
    return std::make_shared<Planner>(model, options, std::make_shared<ThreadPool>(threads));
  }

  // Squared distance to the goal after each block, by the plain model.
  std::vector<double> distances(std::size_t problem, std::size_t context, const float* actions) const {
    const naive::Model plain(config, weights);
    std::vector<naive::Vector> z, blocks;
    for (std::size_t c = 0; c < context; ++c) {
      const float* from = latents.data() + (problem * context + c) * d();
      z.emplace_back(from, from + d());
    }
    for (std::size_t c = 0; c + 1 < context; ++c) {
      const float* from = past.data() + (problem * (context - 1) + c) * a();
      blocks.emplace_back(from, from + a());
    }
    for (std::size_t h = 0; h < kHorizon; ++h) blocks.emplace_back(actions + h * a(), actions + (h + 1) * a());
    std::vector<double> result;
    for (const naive::Vector& latent : plain.rollout(z, blocks)) {
      double sum = 0;
      for (std::size_t i = 0; i < d(); ++i) sum += std::pow(latent[i] - goals[problem * d() + i], 2);
      result.push_back(sum);
    }
    return result;
  }

  Config config = test_config();
  naive::Tensors weights;
  std::shared_ptr<const Model> model;
  std::vector<float> latents, past, goals;
};

void check_costs(const PlannerOptions& options, std::int64_t context,
                 const std::function<double(const std::vector<double>& distances, const float* actions)>& expected) {
  const Fixture fixture;
  const std::shared_ptr<Planner> planner = fixture.planner(options, 2);
  constexpr std::size_t kProblems = 2, kSamples = 5;
  const std::size_t elements = kHorizon * fixture.a();
  const std::vector<float> actions = random_floats(kProblems * kSamples * elements, 9);
  std::vector<float> cost(kProblems * kSamples);
  CHECK(planner->evaluate(fixture.request(kProblems, context), actions.data(), kSamples, cost.data()) == Status::ok);
  for (std::size_t i = 0; i < cost.size(); ++i) {
    const float* candidate = actions.data() + i * elements;
    const double want =
        expected(fixture.distances(i / kSamples, static_cast<std::size_t>(context), candidate), candidate);
    CHECK_NEAR(cost[i], want, kCostTolerance * std::fabs(want));
  }
}

}  // namespace

TEST(costs_equal_the_plain_model) {
  PlannerOptions options = small_options();
  for (const std::int64_t context : {1, 2, 3}) {
    check_costs(options, context, [](const auto& distances, const float*) { return distances.back(); });
  }
  options.cost_mode = CostMode::sum;
  check_costs(options, 2, [](const auto& distances, const float*) {
    return std::accumulate(distances.begin(), distances.end(), 0.0);
  });
  options.cost_mode = CostMode::discounted;
  options.discount = 0.8f;
  check_costs(options, 1, [](const auto& distances, const float*) {
    double sum = 0;
    for (std::size_t h = 0; h < distances.size(); ++h) sum += std::pow(0.8, h) * distances[h];
    return sum;
  });
}

TEST(action_penalty_adds_the_squares) {
  PlannerOptions options = small_options();
  options.action_penalty = 0.7f;
  const std::size_t elements = kHorizon * Fixture().a();
  check_costs(options, 1, [elements](const auto& distances, const float* actions) {
    double squares = 0;
    for (std::size_t e = 0; e < elements; ++e) squares += static_cast<double>(actions[e]) * actions[e];
    return distances.back() + 0.7 * squares;
  });
}

TEST(a_users_cost_sees_latents_actions_and_goal) {
  PlannerOptions options = small_options();
  double weight = 3.0;
  options.cost_context = &weight;
  options.cost = [](void* context, const CostArguments& arguments, float* cost) {
    for (std::int64_t i = 0; i < arguments.n; ++i) {
      const float* candidate = arguments.actions + i * arguments.horizon * arguments.block_dim;
      double sum = 0;
      for (std::int64_t h = 0; h < arguments.horizon; ++h) {
        const float* latent = arguments.latents + (i * arguments.horizon + h) * arguments.latent_dim;
        for (std::int64_t d = 0; d < arguments.latent_dim; ++d) {
          sum += static_cast<double>(h + 1) * std::pow(latent[d] - arguments.goal[d], 2);
        }
      }
      cost[i] = static_cast<float>(sum + *static_cast<double*>(context) * candidate[1]);
    }
    return 0;
  };
  check_costs(options, 3, [](const auto& distances, const float* actions) {
    double sum = 3.0 * actions[1];
    for (std::size_t h = 0; h < distances.size(); ++h) sum += static_cast<double>(h + 1) * distances[h];
    return sum;
  });
  options.cost = [](void*, const CostArguments&, float*) { return 7; };
  const Fixture fixture;
  const std::shared_ptr<Planner> planner = fixture.planner(options);
  OwnedResult result(options, fixture.config.block_dim());
  CHECK(planner->plan(fixture.request(), result.view) == Status::invalid_argument);
  CHECK(std::string(planner->message()) == "cost: the cost function reported an error");
}

TEST(a_plan_equals_the_plain_search_on_the_plain_model) {
  constexpr double kPlanTolerance = 1e-3;  // of means: cost rounding moves no elite here
  const PlannerOptions options = small_options();
  const Fixture fixture;
  for (const std::int64_t context : {1, 3}) {
    OwnedResult result(options, fixture.config.block_dim());
    CHECK(fixture.planner(options)->plan(fixture.request(1, context), result.view) == Status::ok);
    const twin::Plan expected = twin::plan(options, fixture.a(), [&](const twin::Sequence& actions) {
      const std::vector<float> rounded(actions.begin(), actions.end());
      return fixture.distances(0, static_cast<std::size_t>(context), rounded.data()).back();
    });
    for (std::size_t e = 0; e < expected.mean.size(); ++e)
      CHECK_NEAR(result.actions[e], expected.mean[e], kPlanTolerance);
    const double cost = fixture.distances(0, static_cast<std::size_t>(context), result.actions.data()).back();
    CHECK_NEAR(result.cost[0], cost, kCostTolerance * cost);
  }
}

TEST(the_cost_of_a_plan_is_what_evaluate_says) {
  for (const Tier& tier : model_test::tiers()) {
    const PlannerOptions options = small_options();
    const Fixture fixture(tier);
    const std::shared_ptr<Planner> planner = fixture.planner(options);
    OwnedResult result(options, fixture.config.block_dim(), 8);
    CHECK(planner->plan(fixture.request(8), result.view) == Status::ok);
    std::vector<float> cost(8);
    CHECK(planner->evaluate(fixture.request(8), result.actions.data(), 1, cost.data()) == Status::ok);
    CHECK(cost == result.cost);
  }
}

TEST(same_bytes_for_any_threads_and_batch_at_every_tier) {
  for (const Tier& tier : model_test::tiers()) {
    for (const std::int64_t context : {1, 2}) {
      const PlannerOptions options = small_options();
      const Fixture fixture(tier);
      OwnedResult batch(options, fixture.config.block_dim(), 8);
      CHECK(fixture.planner(options, 1)->plan(fixture.request(8, context), batch.view) == Status::ok);
      for (const int threads : {2, 3}) {
        OwnedResult again(options, fixture.config.block_dim(), 8);
        CHECK(fixture.planner(options, threads)->plan(fixture.request(8, context), again.view) == Status::ok);
        CHECK(again.actions == batch.actions);
        CHECK(again.cost == batch.cost);
      }
      const std::shared_ptr<Planner> planner = fixture.planner(options, 2);
      const std::size_t elements = kHorizon * fixture.a();
      for (std::size_t b = 0; b < 8; ++b) {
        PlanRequest request = fixture.request(1, context);
        request.latents += b * static_cast<std::size_t>(context) * fixture.d();
        request.past_actions += b * static_cast<std::size_t>(context - 1) * fixture.a();
        request.goals += b * fixture.d();
        OwnedResult alone(options, fixture.config.block_dim());
        CHECK(planner->plan(request, alone.view) == Status::ok);
        CHECK(std::memcmp(alone.actions.data(), batch.actions.data() + b * elements, elements * sizeof(float)) == 0);
        CHECK_EQ(alone.cost[0], batch.cost[b]);
      }
    }
  }
}

TEST(frames_are_encoded_like_encode_does) {
  const PlannerOptions options = small_options();
  const Fixture fixture;
  const std::shared_ptr<Planner> planner = fixture.planner(options, 2);
  const std::vector<std::uint8_t> frames = random_frames(fixture.config, 4, 1),
                                  goals = random_frames(fixture.config, 2, 2);
  const std::vector<std::uint8_t> other_goals = random_frames(fixture.config, 2, 3);
  std::vector<float> latents(4 * fixture.d()), goal_latents(2 * fixture.d());
  CHECK(planner->encode(frames.data(), 4, latents.data()) == Status::ok);
  for (const auto* goal_frames : {&goals, &goals, &other_goals, &goals}) {
    CHECK(planner->encode(goal_frames->data(), 2, goal_latents.data()) == Status::ok);
    PlanRequest request = fixture.request(2, 2);
    OwnedResult from_frames(options, fixture.config.block_dim(), 2),
        from_latents(options, fixture.config.block_dim(), 2);
    CHECK(planner->plan_frames(frames.data(), goal_frames->data(), request, from_frames.view) == Status::ok);
    request.latents = latents.data();
    request.goals = goal_latents.data();
    CHECK(planner->plan(request, from_latents.view) == Status::ok);
    CHECK(from_frames.actions == from_latents.actions);
    CHECK(from_frames.cost == from_latents.cost);
  }
}

TEST(float_frames_plan_like_their_bytes) {
  const PlannerOptions options = small_options();
  const Fixture fixture;
  const std::shared_ptr<Planner> planner = fixture.planner(options);
  const std::size_t area = static_cast<std::size_t>(fixture.config.image_size * fixture.config.image_size);
  const std::vector<std::uint8_t> bytes = random_frames(fixture.config, 2, 1);
  std::vector<float> floats(bytes.size());
  const Preprocessing& scale = fixture.model->preprocessing();
  for (std::size_t f = 0; f < 2; ++f) {
    for (std::size_t i = 0; i < area; ++i) {
      for (std::size_t c = 0; c < 3; ++c) {
        floats[(f * 3 + c) * area + i] =
            (static_cast<float>(bytes[(f * area + i) * 3 + c]) / 255 - scale.mean[c]) / scale.std[c];
      }
    }
  }
  OwnedResult a(options, fixture.config.block_dim()), b(options, fixture.config.block_dim());
  CHECK(planner->plan_frames(bytes.data(), bytes.data() + 3 * area, fixture.request(), a.view) == Status::ok);
  CHECK(planner->plan_frames(floats.data(), floats.data() + 3 * area, fixture.request(), b.view) == Status::ok);
  for (std::size_t e = 0; e < a.actions.size(); ++e) CHECK_NEAR(a.actions[e], b.actions[e], 1e-3);
  floats[7] = std::numeric_limits<float>::quiet_NaN();
  CHECK(planner->plan_frames(floats.data(), floats.data() + 3 * area, fixture.request(), b.view) ==
        Status::invalid_argument);
}

TEST(requests_out_of_range_are_refused_by_name) {
  const PlannerOptions options = small_options();
  const Fixture fixture;
  const std::shared_ptr<Planner> planner = fixture.planner(options);
  OwnedResult result(options, fixture.config.block_dim(), 8);
  const auto refuses = [&](const std::string& message, const std::function<void(PlanRequest&)>& change) {
    PlanRequest request = fixture.request();
    change(request);
    CHECK(planner->plan(request, result.view) == Status::invalid_argument);
    if (message != planner->message()) check::fail(__FILE__, __LINE__, std::string("message: ") + planner->message());
  };
  std::vector<float> bad(1000, 0.0f);
  bad[7] = std::numeric_limits<float>::infinity();
  refuses("problems: expected 1..8, got 0", [](PlanRequest& r) { r.problems = 0; });
  refuses("problems: expected 1..8, got 9", [](PlanRequest& r) { r.problems = 9; });
  refuses("context: expected 1..3, got 4", [](PlanRequest& r) { r.context = 4; });
  refuses("latents: expected an array, got null", [](PlanRequest& r) { r.latents = nullptr; });
  refuses("latents: expected finite numbers, got inf at element 7", [&](PlanRequest& r) { r.latents = bad.data(); });
  refuses("goals: expected an array, got null", [](PlanRequest& r) { r.goals = nullptr; });
  refuses("goals: expected finite numbers, got inf at element 7", [&](PlanRequest& r) { r.goals = bad.data(); });
  refuses("past_actions: expected an array, got null", [](PlanRequest& r) {
    r.context = 2;
    r.past_actions = nullptr;
  });
  refuses("warm_blocks: expected 0..4, got 5", [&](PlanRequest& r) {
    r.warm_start = bad.data();
    r.warm_blocks = 5;
  });
  refuses("warm_start: expected finite numbers, got inf at element 7", [&](PlanRequest& r) {
    r.warm_start = bad.data();
    r.warm_blocks = 2;
  });
  refuses("deadline: expected at least 0 seconds, got -1.000000", [](PlanRequest& r) { r.deadline = -1; });
  refuses("deadline: expected at least 0 seconds, got nan", [](PlanRequest& r) { r.deadline = std::nan(""); });
  result.view.actions = nullptr;
  refuses("result.actions: expected an array, got null", [](PlanRequest&) {});
  CHECK(planner->encode(static_cast<std::uint8_t*>(nullptr), 1, bad.data()) == Status::invalid_argument);
  CHECK(planner->evaluate(fixture.request(), bad.data(), 0, bad.data()) == Status::invalid_argument);
  CHECK_THROWS(Planner(nullptr, options, std::make_shared<ThreadPool>(1)), Error, "model");
  CHECK_THROWS(Planner(fixture.model, options, nullptr), Error, "pool");
}

TEST(planning_does_not_allocate) {
  for (const Method method : {Method::cem, Method::icem, Method::mppi, Method::predictive_sampling}) {
    PlannerOptions options = small_options();
    options.method = method;
    options.cost_mode = CostMode::sum;
    const Fixture fixture;
    const std::shared_ptr<Planner> planner = fixture.planner(options, 2);
    OwnedResult result(options, fixture.config.block_dim(), 8);
    const std::vector<std::uint8_t> frames = random_frames(fixture.config, 16, 1);
    PlanRequest request = fixture.request(8, 2);
    const long before = allocations.load();
    for (const double deadline : {kNoDeadline, 0.0, 1.0}) {
      request.deadline = deadline;
      CHECK(planner->plan(request, result.view) == Status::ok);
      CHECK(planner->plan_frames(frames.data(), frames.data(), request, result.view) == Status::ok);
    }
    request.problems = 9;
    CHECK(planner->plan(request, result.view) == Status::invalid_argument);
    CHECK_EQ(allocations.load(), before);
  }
}

CHECK_MAIN
