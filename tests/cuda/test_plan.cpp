// Whole plans of the CUDA engine on the host run, against the CPU's planner: the same noise, the same elites, and from
// them the same bytes.
#include <algorithm>
#include <limits>

#include "engine_support.h"

using namespace engine_test;
using lewm::CostMode;
using lewm::Method;
using lewm::PlannerOptions;
using lewm::PlanRequest;
using lewm::Status;
using lewm::testing::OwnedResult;
namespace cuda = lewm::cuda;

namespace {

constexpr std::int64_t kHorizon = 4;

PlannerOptions small_options(Method method) {
  PlannerOptions options = lewm::default_options(method);
  options.samples = 14;
  options.elites = 4;
  options.iterations = method == Method::predictive_sampling ? 1 : 3;
  options.horizon = kHorizon;
  options.problems = 3;
  options.seed = 11;
  return options;
}

struct Both {
  Both(const Fixture& f, const PlannerOptions& options, const PlanRequest& request)
      : cpu(options, static_cast<std::int64_t>(f.a()), request.problems), device(cpu) {
    lewm::Planner planner(f.model, options, std::make_shared<lewm::ThreadPool>(1));
    status = planner.plan(request, cpu.view);
    lewm::DeviceSearch search(f.device, options, f.config, 17);
    device.view = {device.actions.data(), device.cost.data(), device.elite_cost.data(), device.std.data(),
                   device.elites.data()};
    cuda::host::counts() = {};
    device_status = search.plan(request, 0.0, device.view);
    message = search.message();
  }
  OwnedResult cpu, device;
  Status status, device_status;
  std::string message;
};

void expect_same_plan(const Both& both, bool bytes) {
  CHECK(both.status == Status::ok && both.device_status == Status::ok);
  CHECK_EQ(both.device.view.iterations, both.cpu.view.iterations);
  CHECK(both.device.elites == both.cpu.elites);
  if (bytes) {
    CHECK(model_test::same_bytes(both.device.actions, both.cpu.actions));
    CHECK(model_test::same_bytes(both.device.std, both.cpu.std));
  }
  for (std::size_t i = 0; i < both.cpu.actions.size(); ++i)
    CHECK_NEAR(both.device.actions[i], both.cpu.actions[i], 0.02);
  for (std::size_t b = 0; b < both.cpu.cost.size(); ++b) {
    CHECK_NEAR(both.device.cost[b], both.cpu.cost[b], 0.01 * both.cpu.cost[b]);
    CHECK_NEAR(both.device.elite_cost[b], both.cpu.elite_cost[b], 0.01 * both.cpu.elite_cost[b]);
  }
}

}  // namespace

TEST(cem_plans_have_the_bytes_of_the_cpu) {
  const Fixture f(device_config());
  schedule() = {};
  const Both both(f, small_options(Method::cem), f.request(1, 1));
  expect_same_plan(both, true);
  // An iteration: sample, 3 for the blocks, per step 4 and per layer 6, 8, 8 and 9 (8 in the last), cost, elites,
  // refit, close. Before and after: begin, and the rollout of the mean with its cost.
  const int rollout = 3 + 4 * 4 + 2 * (6 + 8 + 8) + (9 + 8) + 1;
  CHECK_EQ(cuda::host::counts().kernels, (rollout + 4) + 1 + rollout);
  CHECK_EQ(cuda::host::counts().graphs, 3);            // one an iteration
  CHECK_EQ(cuda::host::counts().synchronisations, 1);  // at the end
}

TEST(batches_of_problems_with_context_bounds_and_a_warm_start) {
  const Fixture f(device_config());
  schedule() = {Order::shuffled, Order::shuffled, 6};
  PlannerOptions options = small_options(Method::cem);
  options.low = {-0.9f, -0.8f};
  options.high = {1.0f, 0.7f};
  options.iterations = 2;
  options.seed = 2;  // costs of elites far enough apart for bf16
  PlanRequest request = f.request(2, 2);
  const std::uint32_t ids[] = {3, 8};
  const auto warm = model_test::random_floats(2 * 2 * f.a(), 6);
  request.problem_ids = ids;
  request.plan_index = 5;
  request.warm_start = warm.data();
  request.warm_blocks = 2;
  expect_same_plan(Both(f, options, request), true);
}

TEST(icem_plans_have_the_bytes_of_the_cpu) {
  const Fixture f(device_config());
  schedule() = {};
  PlannerOptions options = small_options(Method::icem);
  options.kept_elites = 2;
  options.seed = 1;  // costs of elites far enough apart for bf16
  options.return_best = true;
  options.cost_mode = CostMode::discounted;
  expect_same_plan(Both(f, options, f.request(2, 1)), true);
}

TEST(mppi_plans_agree_with_the_cpu) {
  const Fixture f(device_config());
  schedule() = {};
  PlannerOptions options = small_options(Method::mppi);
  options.temperature = 20.0f;
  options.cost_mode = CostMode::sum;
  options.action_penalty = 0.1f;
  expect_same_plan(Both(f, options, f.request(1, 1)), false);
  options.elites = 0;  // all candidates, whose order may differ where costs are close
  options.iterations = 1;
  const Both all(f, options, f.request(1, 1));
  CHECK(all.status == Status::ok && all.device_status == Status::ok);
  for (std::size_t i = 0; i < all.cpu.actions.size(); ++i) CHECK_NEAR(all.device.actions[i], all.cpu.actions[i], 0.02);
}

TEST(predictive_sampling_finds_the_cpus_candidate) {
  const Fixture f(device_config());
  schedule() = {};
  expect_same_plan(Both(f, small_options(Method::predictive_sampling), f.request(3, 1)), true);
}

TEST(too_few_finite_costs_are_an_error_with_the_cpus_words) {
  const Fixture f(device_config());
  schedule() = {};
  PlanRequest request = f.request(2, 1);
  std::vector<float> goals(f.goals);
  goals[f.d()] = 1e30f;  // squares to infinity
  request.goals = goals.data();
  PlannerOptions options = small_options(Method::cem);
  options.iterations = 1;
  const Both both(f, options, request);
  CHECK(both.status == Status::no_finite_cost && both.device_status == Status::no_finite_cost);
  CHECK_EQ(both.message, std::string("problem 1: 0 of 14 candidates have a finite cost, 4 are needed"));
}

namespace {

// A clock that a second passes on each look.
double next_second(void* count) { return static_cast<double>(++*static_cast<int*>(count)); }

}  // namespace

TEST(deadlines_end_a_plan_and_never_leave_it_empty) {
  const Fixture f(device_config());
  schedule() = {};
  int looks = 0;
  PlannerOptions options = small_options(Method::cem);
  options.iterations = 50;
  options.clock = {next_second, &looks};
  lewm::DeviceSearch search(f.device, options, f.config);
  OwnedResult result(options, static_cast<std::int64_t>(f.a()));
  PlanRequest request = f.request(1, 1);
  request.deadline = 8.0;
  CHECK(search.plan(request, 0.0, result.view) == Status::ok);
  CHECK(result.view.iterations >= 1 && result.view.iterations < 8);
  CHECK(std::isfinite(result.cost[0]));
  request.deadline = 0.0;  // nothing fits: the warm start, evaluated
  const auto warm = model_test::random_floats(f.a(), 6);
  request.warm_start = warm.data();
  request.warm_blocks = 1;
  CHECK(search.plan(request, static_cast<double>(looks), result.view) == Status::ok);
  CHECK_EQ(result.view.iterations, 0);
  for (std::size_t i = 0; i < result.actions.size(); ++i) CHECK_EQ(result.actions[i], i < f.a() ? warm[i] : 0.0f);
  CHECK(std::isfinite(result.cost[0]));
}

namespace {

// A clock that stands still but while the device works: a second passes with each operation.
double busy_seconds(void*) { return cuda::host::counts().operations; }

// A plan's time on that clock.
double elapsed(lewm::DeviceSearch& search, const PlanRequest& request, OwnedResult& result) {
  const double start = busy_seconds(nullptr);
  CHECK(search.plan(request, start, result.view) == Status::ok);
  return busy_seconds(nullptr) - start;
}

}  // namespace

TEST(a_plan_is_late_by_one_iteration_at_most) {
  const Fixture f(device_config());
  schedule() = {};
  PlannerOptions options = small_options(Method::cem);
  options.samples = 4;
  options.elites = 2;
  options.clock = {busy_seconds, nullptr};
  OwnedResult result(options, static_cast<std::int64_t>(f.a()));
  PlanRequest request = f.request(1, 1);
  request.deadline = 1e6;
  double all[2];  // with one iteration and with two
  for (int i = 0; i < 2; ++i) {
    options.iterations = i + 1;
    lewm::DeviceSearch search(f.device, options, f.config);
    all[i] = elapsed(search, request, result);
  }
  const double iteration = all[1] - all[0], rest = all[0] - iteration;  // rest: to begin, and to evaluate the plan
  options.iterations = 6;
  for (const double iterations_of_time : {0.0, 1.0, 2.4}) {
    lewm::DeviceSearch search(f.device, options, f.config);
    request.deadline = iterations_of_time * iteration;
    for (int plan = 0; plan < 2; ++plan) {  // the first one has no durations to go by
      const double taken = elapsed(search, request, result);
      CHECK_EQ(result.view.elapsed, taken);
      CHECK(taken <= std::max(request.deadline, rest) + iteration);
      CHECK(static_cast<double>(result.view.iterations) >= (request.deadline - rest) / iteration - 1);
    }
  }
}

// A plan that is worse than where it started gives way to its start.
TEST(with_a_deadline_a_plan_is_no_worse_than_its_start) {
  const Fixture f(device_config());
  schedule() = {};
  int looks = 0;
  PlannerOptions options = small_options(Method::mppi);
  options.iterations = 1;
  options.temperature = 1e6f;   // the mean of everything,
  options.action_penalty = 50;  // where zero is best
  options.clock = {next_second, &looks};
  lewm::DeviceSearch search(f.device, options, f.config);
  OwnedResult result(options, static_cast<std::int64_t>(f.a()));
  PlanRequest request = f.request(1, 1);
  request.deadline = 1e6;
  CHECK(search.plan(request, 0.0, result.view) == Status::ok);
  for (const float action : result.actions) CHECK_EQ(action, 0.0f);
}

TEST(given_candidates_are_evaluated_under_the_search_s_cost) {
  const Fixture f(device_config());
  schedule() = {};
  PlannerOptions options = small_options(Method::cem);
  options.cost_mode = CostMode::sum;
  options.action_penalty = 0.5f;
  const PlanRequest request = f.request(2, 1);
  const auto actions = model_test::random_floats(2 * 3 * static_cast<std::size_t>(kHorizon) * f.a(), 7);
  std::vector<float> expected(6), got(6);
  lewm::Planner planner(f.model, options, std::make_shared<lewm::ThreadPool>(1));
  CHECK(planner.evaluate(request, actions.data(), 3, expected.data()) == Status::ok);
  lewm::DeviceSearch search(f.device, options, f.config);
  CHECK(search.evaluate(request, actions.data(), 3, got.data()) == Status::ok);
  for (std::size_t i = 0; i < got.size(); ++i) CHECK_NEAR(got[i], expected[i], 0.01 * expected[i]);
}

TEST(what_a_device_cannot_search_is_refused) {
  const Fixture f(device_config());
  PlannerOptions options = small_options(Method::cem);
  options.samples = 9000;
  CHECK_THROWS(lewm::DeviceSearch(f.device, options, f.config), lewm::Error, "samples: expected at most 8192 on cuda");
  options = small_options(Method::cem);
  options.cost = [](void*, const lewm::CostArguments&, float*) { return 0; };
  CHECK_THROWS(lewm::DeviceSearch(f.device, options, f.config), lewm::Error, "cost: a cost function runs on the CPU");
}

CHECK_MAIN
