// The controller's sequence: actions in order, de-standardised and clipped; the replan cadence; warm starts and history
// as a hand-written loop over the planner has them; reset; no allocation.
#include <limits>

#include "check.h"
#include "failing_allocations.h"
#include "model_support.h"
#include "plan/controller.h"

using namespace lewm;
using model_test::random_frames;

namespace {

Config test_config() {
  Config config = model_test::small_config();
  config.action_dim = 2;
  config.frame_skip = 3;
  return config;
}

constexpr std::int64_t kHorizon = 4, kSkip = 3, kActionDim = 2, kBlock = kSkip * kActionDim;

struct Fixture {
  Fixture() : weights(naive::random_weights(config, 5)) {
    scaling.mean = {10.0f, -3.0f};
    scaling.std = {2.0f, 0.5f};
    model = Model::create(config, weights, {}, scaling, Precision::fp32, cpu::active_isa());
    options.samples = 16;
    options.elites = 4;
    options.iterations = 2;
    options.horizon = kHorizon;
    options.seed = 11;
    frames = random_frames(config, 64, 7);
    frame_bytes = static_cast<std::size_t>(3 * config.image_size * config.image_size);
  }
  const std::uint8_t* frame(std::size_t i) const { return frames.data() + i * frame_bytes; }
  std::shared_ptr<Planner> planner() const {
    return std::make_shared<Planner>(model, options, std::make_shared<ThreadPool>(1));
  }

  Config config = test_config();
  naive::Tensors weights;
  ActionScaling scaling;
  std::shared_ptr<const Model> model;
  PlannerOptions options;
  std::vector<std::uint8_t> frames;
  std::size_t frame_bytes = 0;
};

// The same loop by hand: everything is remembered, windows are cut out when they are needed.
class HandLoop {
 public:
  HandLoop(const Fixture& fixture, const ControllerOptions& options)
      : fixture_(fixture), options_(options), planner_(fixture.planner()), goal_(latent(fixture.frame(0))) {
    every_ = options.replan_every ? options.replan_every : kHorizon;
  }

  // Encodes every frame at a block's start, whether it will be used or not.
  std::vector<float> act(const std::uint8_t* frame) {
    const std::int64_t block = step_ / kSkip;
    if (step_ % kSkip == 0) {
      latents_.push_back(latent(frame));
      if (block % every_ == 0) replan(static_cast<std::uint32_t>(block / every_));
    }
    std::vector<float> action;
    for (std::int64_t d = 0; d < kActionDim; ++d) {
      const std::size_t i = static_cast<std::size_t>(d);
      const float planned = plan_[static_cast<std::size_t>(block % every_ * kBlock + step_ % kSkip * kActionDim + d)];
      const float mean = fixture_.scaling.mean[i], std = fixture_.scaling.std[i];
      float value = std::fma(planned, std, mean);
      if (!options_.low.empty()) value = std::max(value, options_.low[i]);
      if (!options_.high.empty()) value = std::min(value, options_.high[i]);
      action.push_back(value);
      const bool clipped = value != std::fma(planned, std, mean);
      executed_.push_back(clipped ? (value - mean) / std : planned);
    }
    ++step_;
    return action;
  }

 private:
  std::vector<float> latent(const std::uint8_t* frame) {
    std::vector<float> out(static_cast<std::size_t>(fixture_.config.latent_dim));
    planner_->encode(frame, 1, out.data());
    return out;
  }
  void replan(std::uint32_t index) {
    const std::size_t context = std::min(latents_.size(), static_cast<std::size_t>(options_.context));
    std::vector<float> window;
    for (auto it = latents_.end() - static_cast<std::ptrdiff_t>(context); it != latents_.end(); ++it) {
      window.insert(window.end(), it->begin(), it->end());
    }
    const std::vector<float> rest(plan_.begin() + (plan_.empty() ? 0 : every_ * kBlock), plan_.end());
    PlanRequest request;
    request.context = static_cast<std::int64_t>(context);
    request.latents = window.data();
    request.past_actions = executed_.data() + executed_.size() - (context - 1) * kBlock;
    request.goals = goal_.data();
    if (options_.warm_start && !rest.empty()) {
      request.warm_start = rest.data();
      request.warm_blocks = static_cast<std::int64_t>(rest.size()) / kBlock;
    }
    request.plan_index = index;
    std::vector<float> next(kHorizon * kBlock);
    float cost = 0;
    PlanResult result;
    result.actions = next.data();
    result.cost = &cost;
    CHECK(planner_->plan(request, result) == Status::ok);
    plan_ = next;
  }

  const Fixture& fixture_;
  const ControllerOptions options_;
  std::shared_ptr<Planner> planner_;
  std::vector<float> goal_, plan_, executed_;
  std::vector<std::vector<float>> latents_;
  std::int64_t every_ = 0, step_ = 0;
};

std::vector<float> drive(Controller& controller, const Fixture& fixture, std::size_t steps, bool only_needed_frames) {
  std::vector<float> actions;
  for (std::size_t step = 0; step < steps; ++step) {
    float action[kActionDim];
    const std::uint8_t* frame = only_needed_frames && !controller.needs_frame() ? nullptr : fixture.frame(step % 64);
    CHECK(controller.act(frame, action) == Status::ok);
    actions.insert(actions.end(), action, action + kActionDim);
  }
  return actions;
}

}  // namespace

TEST(acts_like_a_loop_by_hand) {
  const Fixture fixture;
  for (const std::int64_t every : {1, 2, 3, 4, 0}) {
    for (const std::int64_t context : {1, 2, 3}) {
      for (const bool warm : {true, false}) {
        ControllerOptions options;
        options.replan_every = every;
        options.context = context;
        options.warm_start = warm;
        options.low = {9.0f, -3.2f};
        options.high = {11.0f, 100.0f};
        Controller controller(fixture.planner(), options);
        CHECK(controller.set_goal(fixture.frame(0)) == Status::ok);
        const std::vector<float> got = drive(controller, fixture, 40, true);
        HandLoop by_hand(fixture, options);
        for (std::size_t step = 0; step < 40; ++step) {
          const std::vector<float> expected = by_hand.act(fixture.frame(step));
          for (std::size_t d = 0; d < kActionDim; ++d) CHECK_EQ(got[step * kActionDim + d], expected[d]);
        }
      }
    }
  }
}

TEST(clips_and_stays_within_bounds) {
  const Fixture fixture;
  ControllerOptions options;
  options.low = {9.5f, -3.1f};
  options.high = {10.5f, -2.9f};
  Controller controller(fixture.planner(), options);
  controller.set_goal(fixture.frame(0));
  const std::vector<float> actions = drive(controller, fixture, 24, false);
  int at_bound = 0;
  for (std::size_t i = 0; i < actions.size(); ++i) {
    CHECK(actions[i] >= options.low[i % 2] && actions[i] <= options.high[i % 2]);
    at_bound += actions[i] == options.low[i % 2] || actions[i] == options.high[i % 2];
  }
  CHECK(at_bound > 0);
}

TEST(replans_and_looks_when_it_says) {
  const Fixture fixture;
  ControllerOptions options;
  options.replan_every = 3;
  options.context = 2;
  Controller controller(fixture.planner(), options);
  controller.set_goal(fixture.frame(0));
  CHECK(controller.current().actions == nullptr);
  for (std::int64_t step = 0; step < 4 * 3 * kSkip; ++step) {
    const std::int64_t block = step / kSkip % 3;
    CHECK_EQ(controller.needs_plan(), step % (3 * kSkip) == 0);
    CHECK_EQ(controller.needs_frame(), step % kSkip == 0 && block != 1);  // the plan's own, and the one before it
    float action[kActionDim];
    CHECK(controller.act(fixture.frame(static_cast<std::size_t>(step)), action) == Status::ok);
    CHECK_EQ(controller.plans(), step / (3 * kSkip) + 1);
    CHECK(controller.current().actions != nullptr);
    CHECK_EQ(controller.current().iterations, fixture.options.iterations);
  }
}

TEST(reset_forgets_everything) {
  const Fixture fixture;
  ControllerOptions options;
  options.replan_every = 2;
  options.context = 3;
  Controller fresh(fixture.planner(), options), used(fixture.planner(), options);
  fresh.set_goal(fixture.frame(3));
  const std::vector<float> expected = drive(fresh, fixture, 30, false);
  used.set_goal(fixture.frame(9));
  drive(used, fixture, 17, false);
  used.reset();
  float action[kActionDim];
  CHECK(used.act(fixture.frame(0), action) == Status::invalid_argument);
  CHECK(std::string(used.message()) == "goal: none is set; call set_goal first");
  CHECK_EQ(used.plans(), 0);
  used.set_goal(fixture.frame(3));
  CHECK(drive(used, fixture, 30, false) == expected);
}

TEST(a_new_goal_takes_effect_at_the_next_plan) {
  const Fixture fixture;
  ControllerOptions options;
  options.replan_every = 1;
  options.warm_start = false;
  Controller a(fixture.planner(), options), b(fixture.planner(), options);
  a.set_goal(fixture.frame(1));
  b.set_goal(fixture.frame(1));
  for (std::size_t step = 0; step < 2 * kSkip; ++step) {
    if (step == 1) b.set_goal(fixture.frame(2));
    float x[kActionDim], y[kActionDim];
    a.act(fixture.frame(step), x);
    b.act(fixture.frame(step), y);
    CHECK_EQ(std::memcmp(x, y, sizeof x) == 0, step < kSkip);
  }
}

TEST(a_goal_latent_serves_like_its_frame) {
  const Fixture fixture;
  const std::shared_ptr<Planner> planner = fixture.planner();
  std::vector<float> latent(static_cast<std::size_t>(fixture.config.latent_dim));
  planner->encode(fixture.frame(5), 1, latent.data());
  Controller a(fixture.planner(), {}), b(fixture.planner(), {});
  a.set_goal(fixture.frame(5));
  b.set_goal(fixture.frame(6));
  b.set_goal_latent(latent.data());
  CHECK(drive(a, fixture, 20, true) == drive(b, fixture, 20, true));
  latent[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK(b.set_goal_latent(latent.data()) == Status::invalid_argument);
}

TEST(a_refused_call_changes_nothing) {
  const Fixture fixture;
  ControllerOptions options;
  options.context = 3;
  options.replan_every = 1;
  Controller a(fixture.planner(), options), b(fixture.planner(), options);
  a.set_goal(fixture.frame(1));
  b.set_goal(fixture.frame(1));
  const std::vector<float> expected = drive(a, fixture, 15, false);
  std::vector<float> got;
  for (std::size_t step = 0; step < 15; ++step) {
    float action[kActionDim];
    if (b.needs_frame()) {
      CHECK(b.act(nullptr, action) == Status::invalid_argument);
      CHECK(std::string(b.message()) == "frame: expected an image, got null");
    }
    CHECK(b.act(fixture.frame(step), nullptr) == Status::invalid_argument);
    CHECK(b.act(fixture.frame(step), action) == Status::ok);
    got.insert(got.end(), action, action + kActionDim);
  }
  CHECK(got == expected);
}

TEST(a_plan_without_finite_costs_can_be_repeated) {
  Fixture fixture;
  bool broken = true;
  fixture.options.cost_context = &broken;
  fixture.options.cost = [](void* context, const CostArguments& arguments, float* cost) {
    const bool is_broken = *static_cast<bool*>(context);
    for (std::int64_t i = 0; i < arguments.n; ++i) {
      cost[i] = is_broken ? std::numeric_limits<float>::quiet_NaN()
                          : arguments.latents[i * arguments.horizon * arguments.latent_dim];
    }
    return 0;
  };
  ControllerOptions options;
  options.context = 2;
  options.replan_every = 1;
  Controller controller(fixture.planner(), options), fresh(fixture.planner(), options);
  controller.set_goal(fixture.frame(1));
  fresh.set_goal(fixture.frame(1));
  float action[kActionDim];
  CHECK(controller.act(fixture.frame(0), action) == Status::no_finite_cost);
  CHECK(controller.act(fixture.frame(0), action) == Status::no_finite_cost);
  CHECK(std::string(controller.message()).find("problem 0: 0 of 16 candidates") == 0);
  broken = false;
  CHECK(drive(controller, fixture, 12, false) == drive(fresh, fixture, 12, false));
}

TEST(options_out_of_range_are_refused_by_name) {
  const Fixture fixture;
  const auto refuses = [&](const char* part, void (*change)(ControllerOptions&)) {
    ControllerOptions options;
    change(options);
    CHECK_THROWS(Controller(fixture.planner(), options), Error, part);
  };
  refuses("replan_every: expected 0..4, got 5", [](ControllerOptions& o) { o.replan_every = 5; });
  refuses("replan_every: expected 0..4, got -1", [](ControllerOptions& o) { o.replan_every = -1; });
  refuses("context: expected 1..3, got 4", [](ControllerOptions& o) { o.context = 4; });
  refuses("context: expected 1..3, got 0", [](ControllerOptions& o) { o.context = 0; });
  refuses("deadline: expected", [](ControllerOptions& o) { o.deadline = std::nan(""); });
  refuses("low: expected no or 2 entries, got 1", [](ControllerOptions& o) { o.low = {1}; });
  refuses("high: expected finite numbers", [](ControllerOptions& o) { o.high = {1, std::nanf("")}; });
  refuses("low: expected finite numbers or -inf, got inf", [](ControllerOptions& o) { o.low = {1, HUGE_VALF}; });
  refuses("low: expected at most high (1.000000) in dimension 1", [](ControllerOptions& o) {
    o.low = {0, 2};
    o.high = {0, 1};
  });
  CHECK_THROWS(Controller(nullptr, {}), Error, "planner");
}

TEST(acting_does_not_allocate) {
  const Fixture fixture;
  ControllerOptions options;
  options.context = 3;
  options.replan_every = 1;
  Controller controller(fixture.planner(), options);
  const long before = allocations.load();
  CHECK(controller.set_goal(fixture.frame(0)) == Status::ok);
  for (std::size_t step = 0; step < 50; ++step) {
    float action[kActionDim];
    CHECK(controller.act(fixture.frame(step % 64), action) == Status::ok);
    if (step == 20) CHECK(controller.set_goal(fixture.frame(1)) == Status::ok);
    if (step == 30) {
      controller.reset();
      CHECK(controller.set_goal(fixture.frame(1)) == Status::ok);
    }
  }
  CHECK_EQ(allocations.load(), before);
}

CHECK_MAIN
