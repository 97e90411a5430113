// The searches against plain double-precision twins on the same noise, and the planner contract on formulas: ties,
// non-finite costs, bounds, warm starts, the same bytes for any threads, tiles and batches.
#include <algorithm>
#include <limits>

#include "check.h"
#include "core/error.h"
#include "plan/refit.h"
#include "plan_support.h"
#include "plan_twin.h"

using namespace lewm;
using lewm::testing::FormulaObjective;
using lewm::testing::OwnedResult;
using lewm::testing::valley;

namespace {

constexpr double kTwinTolerance = 2e-5;  // absolute, means and stds of a few units after float rounding
constexpr std::int64_t kBlockDim = 6, kActionDim = 2;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

PlannerOptions small_options(Method method) {
  PlannerOptions options = default_options(method);
  options.samples = 64;
  options.elites = 8;
  options.iterations = 6;
  options.horizon = 4;
  options.seed = 3;
  return options;
}

std::size_t elements(const PlannerOptions& options) { return static_cast<std::size_t>(options.horizon * kBlockDim); }

Status run(const PlannerOptions& options, Objective& objective, const PlanRequest& request, OwnedResult& result,
           int threads = 1, std::string* message = nullptr) {
  ThreadPool pool(threads);
  Search search(options, kBlockDim, kActionDim, pool);
  const Status status = search.run(objective, request, 0.0, result.view);
  if (message) *message = search.message();
  return status;
}

FormulaObjective valley_objective(const PlannerOptions& options, std::int64_t tile = 16) {
  const std::size_t n = elements(options);
  return {[n](std::int64_t problem, const float* actions) {
            return valley(actions, n, 0.5 + 0.1 * static_cast<double>(problem));
          },
          static_cast<std::int64_t>(n), tile};
}

double twin_valley(const twin::Sequence& actions) {
  const std::vector<float> rounded(actions.begin(), actions.end());
  return valley(rounded.data(), rounded.size(), 0.5);
}

// Plans once, compares mean, std and elites with the twin's, and the cost with the formula's.
void compare_with_twin(const PlannerOptions& options, const PlanRequest& request = {}, twin::Sequence start = {}) {
  FormulaObjective objective = valley_objective(options);
  OwnedResult result(options, kBlockDim);
  CHECK(run(options, objective, request, result) == Status::ok);
  const std::uint32_t id = request.problem_ids ? request.problem_ids[0] : 0;
  const twin::Plan expected = twin::plan(options, kBlockDim, twin_valley, start, request.plan_index, id);
  for (std::size_t e = 0; e < elements(options); ++e) {
    CHECK_NEAR(result.actions[e], expected.mean[e], kTwinTolerance);
    CHECK_NEAR(result.std[e], expected.std[e], kTwinTolerance);
  }
  for (std::size_t i = 0; i < expected.elites.size(); ++i) CHECK_EQ(result.elites[i], expected.elites[i]);
  CHECK_NEAR(result.elite_cost[0], expected.elite_cost, 1e-4 * (1 + std::fabs(expected.elite_cost)));
  CHECK_EQ(result.cost[0], static_cast<float>(valley(result.actions.data(), elements(options), 0.5)));
  CHECK_EQ(result.view.iterations, options.iterations);
}

}  // namespace

TEST(cem_equals_its_twin) {
  PlannerOptions options = small_options(Method::cem);
  for (options.iterations = 1; options.iterations <= 10; options.iterations += 3) compare_with_twin(options);
}

TEST(cem_with_momentum_and_floor_equals_its_twin) {
  PlannerOptions options = small_options(Method::cem);
  options.momentum = 0.3f;
  options.std_min = 0.2f;
  options.std_init = 1.5f;
  compare_with_twin(options);
}

TEST(icem_equals_its_twin) {
  PlannerOptions options = small_options(Method::icem);
  compare_with_twin(options);
  options.noise_exponent = 0.0f;
  compare_with_twin(options);
  options.noise_exponent = 0.8f;
  options.kept_elites = 0;
  compare_with_twin(options);
  options.kept_elites = 100;  // more than there are elites
  options.horizon = 1;
  compare_with_twin(options);
}

TEST(mppi_equals_its_twin) {
  PlannerOptions options = small_options(Method::mppi);
  compare_with_twin(options);
  options.temperature = 0.05f;
  compare_with_twin(options);
  options.elites = 0;
  options.temperature = 5.0f;
  compare_with_twin(options);
}

TEST(predictive_sampling_equals_its_twin) {
  PlannerOptions options = small_options(Method::predictive_sampling);
  for (options.iterations = 1; options.iterations <= 5; options.iterations += 4) compare_with_twin(options);
}

TEST(every_method_equals_its_twin_within_bounds_from_a_warm_start) {
  for (const Method method : {Method::cem, Method::icem, Method::mppi, Method::predictive_sampling}) {
    PlannerOptions options = small_options(method);
    options.low = {-0.4f, -kInfinity};
    options.high = {0.3f, 0.2f, 0.25f, 1.0f, 0.1f, 0.2f};
    std::vector<float> warm(2 * kBlockDim);  // shorter than the horizon, partly outside of the bounds
    for (std::size_t e = 0; e < warm.size(); ++e) warm[e] = static_cast<float>(e % 5) * 0.2f - 0.5f;
    const std::uint32_t id = 17;
    PlanRequest request;
    request.warm_start = warm.data();
    request.warm_blocks = 2;
    request.plan_index = 4;
    request.problem_ids = &id;
    compare_with_twin(options, request, twin::Sequence(warm.begin(), warm.end()));
  }
}

TEST(no_candidate_leaves_the_bounds) {
  for (const Method method : {Method::cem, Method::icem, Method::mppi, Method::predictive_sampling}) {
    PlannerOptions options = small_options(method);
    options.low = {-0.1f, -0.2f};
    options.high = {0.3f, 0.2f};
    std::atomic<int> outside{0};
    const std::size_t n = elements(options);
    FormulaObjective objective(
        [&](std::int64_t, const float* actions) {
          for (std::size_t e = 0; e < n; ++e) {
            if (!(actions[e] >= options.low[e % 2] && actions[e] <= options.high[e % 2])) ++outside;
          }
          return valley(actions, n, 2.0);
        },
        static_cast<std::int64_t>(n));
    OwnedResult result(options, kBlockDim);
    CHECK(run(options, objective, {}, result) == Status::ok);
    CHECK_EQ(outside.load(), 0);
    for (std::size_t e = 0; e < n; ++e) {
      CHECK(result.actions[e] >= options.low[e % 2] && result.actions[e] <= options.high[e % 2]);
    }
  }
}

// The first draw of a block, of those that the search without a hold makes, for all of the block's steps.
TEST(held_actions_share_the_first_draw_of_their_block) {
  for (const Method method : {Method::cem, Method::icem, Method::mppi, Method::predictive_sampling}) {
    PlannerOptions options = small_options(method);
    options.iterations = 1;
    const std::size_t n = elements(options);
    const auto candidates = [&](std::int64_t hold) {
      options.action_hold = hold;
      std::vector<std::vector<float>> seen;
      FormulaObjective objective(
          [&](std::int64_t, const float* actions) {
            seen.emplace_back(actions, actions + n);
            return valley(actions, n, 0.5);
          },
          static_cast<std::int64_t>(n));
      OwnedResult result(options, kBlockDim);
      CHECK(run(options, objective, {}, result) == Status::ok);
      return seen;
    };
    const auto free = candidates(1), held = candidates(3);
    CHECK_EQ(held.size(), free.size());
    for (std::size_t i = 0; i < std::min<std::size_t>(64, held.size()); ++i) {
      for (std::size_t e = 0; e < n; ++e) {
        CHECK_EQ(held[i][e], free[i][e / kBlockDim * kBlockDim + e % kActionDim]);
      }
    }
    CHECK(free[1][0] != free[1][kActionDim] && held[1][0] != held[1][1] && held[1][0] != held[1][kBlockDim]);
  }
}

TEST(same_bytes_for_any_threads_and_tiles) {
  for (const Method method : {Method::cem, Method::icem, Method::mppi, Method::predictive_sampling}) {
    const PlannerOptions options = small_options(method);
    FormulaObjective plain = valley_objective(options, 64);
    OwnedResult expected(options, kBlockDim);
    CHECK(run(options, plain, {}, expected) == Status::ok);
    for (const int threads : {1, 2, 5}) {
      for (const std::int64_t tile : {1, 7, 16, 1000}) {
        FormulaObjective objective = valley_objective(options, tile);
        OwnedResult result(options, kBlockDim);
        CHECK(run(options, objective, {}, result, threads) == Status::ok);
        CHECK(result.actions == expected.actions);
        CHECK(result.std == expected.std);
        CHECK(result.cost == expected.cost);
        CHECK(result.elites == expected.elites);
      }
    }
  }
}

TEST(same_bytes_alone_and_in_a_batch) {
  for (const Method method : {Method::cem, Method::icem, Method::mppi, Method::predictive_sampling}) {
    PlannerOptions options = small_options(method);
    constexpr std::int64_t kProblems = 8;
    options.problems = kProblems;
    const std::size_t n = elements(options);
    std::vector<float> warm(kProblems * n);
    for (std::size_t e = 0; e < warm.size(); ++e) warm[e] = 0.01f * static_cast<float>(e % 37);
    const std::uint32_t ids[kProblems] = {0, 1, 2, 3, 0, 0, 9, 4000000000u};
    PlanRequest batch;
    batch.problems = kProblems;
    batch.warm_start = warm.data();
    batch.warm_blocks = options.horizon;
    batch.problem_ids = ids;
    FormulaObjective objective = valley_objective(options);
    OwnedResult together(options, kBlockDim, kProblems);
    CHECK(run(options, objective, batch, together, 2) == Status::ok);
    for (std::size_t b = 0; b < kProblems; ++b) {
      FormulaObjective own(
          [&](std::int64_t, const float* actions) { return valley(actions, n, 0.5 + 0.1 * static_cast<double>(b)); },
          static_cast<std::int64_t>(n));
      PlanRequest alone = batch;
      alone.problems = 1;
      alone.warm_start = warm.data() + b * n;
      alone.problem_ids = ids + b;
      OwnedResult result(options, kBlockDim);
      CHECK(run(options, own, alone, result) == Status::ok);
      CHECK(std::memcmp(result.actions.data(), together.actions.data() + b * n, n * sizeof(float)) == 0);
      CHECK_EQ(result.cost[0], together.cost[b]);
    }
  }
}

TEST(a_search_keeps_nothing_between_plans) {
  const PlannerOptions options = small_options(Method::icem);
  ThreadPool pool(1);
  Search search(options, kBlockDim, kActionDim, pool);
  FormulaObjective objective = valley_objective(options);
  OwnedResult first(options, kBlockDim), other(options, kBlockDim), again(options, kBlockDim);
  PlanRequest request;
  CHECK(search.run(objective, request, 0.0, first.view) == Status::ok);
  request.plan_index = 1;
  CHECK(search.run(objective, request, 0.0, other.view) == Status::ok);
  request.plan_index = 0;
  CHECK(search.run(objective, request, 0.0, again.view) == Status::ok);
  CHECK(first.actions == again.actions);
  CHECK(first.actions != other.actions);
}

TEST(ties_go_to_the_lower_index) {
  PlannerOptions options = small_options(Method::cem);
  options.iterations = 1;
  FormulaObjective flat([](std::int64_t, const float*) { return 1.0; }, static_cast<std::int64_t>(elements(options)),
                        5);
  OwnedResult result(options, kBlockDim);
  CHECK(run(options, flat, {}, result, 3) == Status::ok);
  for (std::int32_t i = 0; i < options.elites; ++i) CHECK_EQ(result.elites[static_cast<std::size_t>(i)], i);

  const float cost[] = {3, 1, 2, 1, -0.0f, 0.0f, 1};
  std::int32_t order[7];
  CHECK_EQ(select_elites(cost, 7, 5, order), 5);
  const std::int32_t expected[] = {4, 5, 1, 3, 6};
  CHECK(std::equal(expected, expected + 5, order));
}

TEST(elites_are_those_of_a_stable_sort) {
  std::vector<float> cost(500);
  for (std::size_t i = 0; i < cost.size(); ++i) cost[i] = static_cast<float>(i * 7919 % 61);
  cost[3] = cost[100] = kNaN;
  cost[7] = kInfinity;
  cost[8] = -kInfinity;
  std::vector<std::int32_t> expected;
  for (std::int32_t i = 0; i < 500; ++i) {
    if (std::isfinite(cost[static_cast<std::size_t>(i)])) expected.push_back(i);
  }
  std::stable_sort(expected.begin(), expected.end(), [&](std::int32_t a, std::int32_t b) {
    return cost[static_cast<std::size_t>(a)] < cost[static_cast<std::size_t>(b)];
  });
  for (const std::int64_t k : {1, 2, 30, 495, 496, 500}) {
    std::vector<std::int32_t> order(cost.size());
    const std::int64_t found = select_elites(cost.data(), 500, k, order.data());
    CHECK_EQ(found, std::min<std::int64_t>(k, 496));
    CHECK(std::equal(expected.begin(), expected.begin() + found, order.begin()));
  }
}

TEST(nan_and_infinite_costs_are_never_elites) {
  for (const Method method : {Method::cem, Method::icem, Method::mppi, Method::predictive_sampling}) {
    const PlannerOptions options = small_options(method);
    const std::size_t n = elements(options);
    const auto rough = [n](const float* actions) {  // finite for about two thirds of the candidates
      if (actions[0] > 0.5f) return static_cast<double>(kNaN);
      if (actions[1] > 1.0f) return static_cast<double>(kInfinity);
      if (actions[1] < -1.5f) return -static_cast<double>(kInfinity);
      return valley(actions, n, 0.5);
    };
    FormulaObjective objective([&](std::int64_t, const float* actions) { return rough(actions); },
                               static_cast<std::int64_t>(n));
    OwnedResult result(options, kBlockDim);
    CHECK(run(options, objective, {}, result, 2) == Status::ok);
    const twin::Plan expected = twin::plan(options, kBlockDim, [&](const twin::Sequence& actions) {
      const std::vector<float> rounded(actions.begin(), actions.end());
      return rough(rounded.data());
    });
    for (std::size_t e = 0; e < n; ++e) CHECK_NEAR(result.actions[e], expected.mean[e], kTwinTolerance);
  }
}

TEST(fewer_finite_costs_than_elites_is_an_error) {
  for (const Method method : {Method::cem, Method::icem, Method::mppi, Method::predictive_sampling}) {
    const PlannerOptions options = small_options(method);
    const std::int64_t needed = method == Method::predictive_sampling ? 1 : options.elites;
    for (const std::int64_t finite : {needed - 1, needed}) {
      std::int64_t calls = 0;
      FormulaObjective objective(
          [&](std::int64_t, const float*) { return calls++ % options.samples < finite ? 1.0 : kNaN; },
          static_cast<std::int64_t>(elements(options)));
      OwnedResult result(options, kBlockDim);
      std::string message;
      const Status status = run(options, objective, {}, result, 1, &message);
      CHECK(status == (finite < needed ? Status::no_finite_cost : Status::ok));
      if (finite < needed) {
        CHECK(message == "problem 0: " + std::to_string(finite) + " of 64 candidates have a finite cost, " +
                             std::to_string(needed) + " are needed");
      }
    }
  }
}

TEST(the_error_names_the_problem_of_a_batch) {
  PlannerOptions options = small_options(Method::cem);
  options.problems = 3;
  FormulaObjective objective([](std::int64_t problem, const float*) { return problem == 1 ? kNaN : 1.0; },
                             static_cast<std::int64_t>(elements(options)));
  PlanRequest request;
  request.problems = 3;
  OwnedResult result(options, kBlockDim, 3);
  std::string message;
  CHECK(run(options, objective, request, result, 2, &message) == Status::no_finite_cost);
  CHECK(message.find("problem 1: 0 of 64") == 0);
}

TEST(mppi_over_all_needs_one_finite_cost) {
  PlannerOptions options = small_options(Method::mppi);
  options.elites = 0;
  options.iterations = 1;
  std::int64_t calls = 0;
  FormulaObjective one([&](std::int64_t, const float*) { return calls++ == 5 ? 1.0 : kNaN; },
                       static_cast<std::int64_t>(elements(options)));
  OwnedResult result(options, kBlockDim);
  CHECK(run(options, one, {}, result) == Status::ok);
  const twin::Sequence noise = twin::white_noise({options.seed, 0, 0, 0}, 5, elements(options));
  for (std::size_t e = 0; e < noise.size(); ++e) CHECK_NEAR(result.actions[e], noise[e], kTwinTolerance);
  FormulaObjective none([](std::int64_t, const float*) { return kNaN; }, static_cast<std::int64_t>(elements(options)));
  CHECK(run(options, none, {}, result) == Status::no_finite_cost);
}

TEST(one_elite_ends_the_spread) {
  PlannerOptions options = small_options(Method::cem);
  options.elites = 1;
  FormulaObjective objective = valley_objective(options);
  OwnedResult result(options, kBlockDim);
  CHECK(run(options, objective, {}, result) == Status::ok);
  CHECK(std::all_of(result.std.begin(), result.std.end(), [](float value) { return value == 0.0f; }));
  compare_with_twin(options);
}

TEST(return_best_is_the_best_candidate_of_the_last_iteration) {
  for (const Method method : {Method::cem, Method::icem}) {
    PlannerOptions options = small_options(method);
    const std::size_t n = elements(options);
    options.return_best = true;
    std::vector<double> seen;
    FormulaObjective objective(
        [&](std::int64_t, const float* actions) {
          seen.push_back(valley(actions, n, 0.5));
          return seen.back();
        },
        static_cast<std::int64_t>(n));
    OwnedResult result(options, kBlockDim);
    CHECK(run(options, objective, {}, result) == Status::ok);
    const auto last = seen.begin() + (options.iterations - 1) * options.samples;
    CHECK_EQ(result.cost[0], static_cast<float>(*std::min_element(last, last + options.samples)));
    CHECK_EQ(result.cost[0], static_cast<float>(valley(result.actions.data(), n, 0.5)));
  }
}

TEST(a_refusing_cost_function_ends_the_plan) {
  class Refusing final : public Objective {
   public:
    std::int64_t tile() const override { return 4; }
    bool evaluate(int, std::int64_t, const float*, std::int64_t n, float* cost) noexcept override {
      std::fill_n(cost, n, 0.0f);
      return ++calls < 3;
    }
    int calls = 0;
  } objective;
  const PlannerOptions options = small_options(Method::cem);
  OwnedResult result(options, kBlockDim);
  std::string message;
  CHECK(run(options, objective, {}, result, 1, &message) == Status::invalid_argument);
  CHECK(message == "cost: the cost function reported an error");
  CHECK_EQ(objective.calls, 3);
}

TEST(options_out_of_range_are_refused_by_name) {
  ThreadPool pool(1);
  const auto refuses = [&](const char* part, void (*change)(PlannerOptions&)) {
    PlannerOptions options;
    change(options);
    CHECK_THROWS(Search(options, kBlockDim, kActionDim, pool), Error, part);
  };
  refuses("samples: expected at least 1, got 0", [](PlannerOptions& o) { o.samples = 0; });
  refuses("elites: expected at least 1, got 0", [](PlannerOptions& o) { o.elites = 0; });
  refuses("elites: expected at most samples (300), got 301", [](PlannerOptions& o) { o.elites = 301; });
  refuses("iterations: expected at least 1, got -1", [](PlannerOptions& o) { o.iterations = -1; });
  refuses("iterations: expected at most 65535, got 65536", [](PlannerOptions& o) { o.iterations = 65536; });
  refuses("horizon: expected at least 1", [](PlannerOptions& o) { o.horizon = 0; });
  refuses("horizon: expected at most", [](PlannerOptions& o) { o.horizon = 1 << 20; });
  refuses("problems: expected at least 1", [](PlannerOptions& o) { o.problems = 0; });
  refuses("samples: expected problems * samples", [](PlannerOptions& o) { o.problems = o.samples = 1 << 24; });
  refuses("method: expected", [](PlannerOptions& o) { o.method = static_cast<Method>(9); });
  refuses("cost_mode: expected", [](PlannerOptions& o) { o.cost_mode = static_cast<CostMode>(-1); });
  refuses("std_init: expected", [](PlannerOptions& o) { o.std_init = kNaN; });
  refuses("std_init: expected", [](PlannerOptions& o) { o.std_init = -1; });
  refuses("std_min: expected", [](PlannerOptions& o) { o.std_min = kInfinity; });
  refuses("momentum: expected less than 1", [](PlannerOptions& o) { o.momentum = 1; });
  refuses("temperature: expected a finite number above 0", [](PlannerOptions& o) { o.temperature = 0; });
  refuses("noise_exponent: expected", [](PlannerOptions& o) { o.noise_exponent = -1; });
  refuses("noise_exponent: expected at most 103", [](PlannerOptions& o) { o.noise_exponent = 150; });
  refuses("discount: expected", [](PlannerOptions& o) { o.discount = kNaN; });
  refuses("action_penalty: expected", [](PlannerOptions& o) { o.action_penalty = -1; });
  refuses("kept_elites: expected at least 0", [](PlannerOptions& o) { o.kept_elites = -1; });
  refuses("action_hold: expected at least 1, got 0", [](PlannerOptions& o) { o.action_hold = 0; });
  refuses("action_hold: expected a divisor of a block's 3 steps, got 2", [](PlannerOptions& o) { o.action_hold = 2; });
  refuses("low: expected no, 2 or 6 entries, got 3", [](PlannerOptions& o) { o.low = {0, 0, 0}; });
  refuses("high: expected finite numbers or inf, got nan", [](PlannerOptions& o) { o.high = {0, kNaN}; });
  refuses("high: expected finite numbers or inf, got -inf", [](PlannerOptions& o) { o.high = {0, -kInfinity}; });
  refuses("low: expected finite numbers or -inf, got inf", [](PlannerOptions& o) { o.low = {kInfinity, 0}; });
  refuses("in dimension 1", [](PlannerOptions& o) {
    o.low = {0, 1};
    o.high = {0, 0};
  });
}

CHECK_MAIN
