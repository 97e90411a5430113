#include "plan/controller.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "plan/clock.h"
#include "plan/goal_cache.h"

namespace lewm {
namespace {

std::shared_ptr<Planner> checked(std::shared_ptr<Planner> planner) {
  if (!planner) throw Error(Status::invalid_argument, "planner: expected a planner, got null");
  return planner;
}

void check_count(const char* field, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value < least || value > most) {
    throw Error(Status::invalid_argument, std::string(field) + ": expected " + std::to_string(least) + ".." +
                                              std::to_string(most) + ", got " + std::to_string(value));
  }
}

}  // namespace

struct Controller::Impl {
  Impl(std::shared_ptr<Planner> shared_planner, const ControllerOptions& options_in);

  Status act(const std::uint8_t* frame, float* action, double spent);
  Status observe(const std::uint8_t* frame);
  void commit_frame();
  Status make_plan(double start);
  void hand_out(float* action);
  void advance();
  Status set_goal(const std::uint8_t* goal);
  Status set_goal_latent(const float* latent);
  void reset();

  std::int64_t block_in_plan() const { return step / config.frame_skip; }
  bool at_block_start() const { return step % config.frame_skip == 0; }
  bool needs_plan() const { return step == 0; }
  // The next plan's window ends at its own frame and reaches context - 1 blocks back.
  bool needs_frame() const {
    return at_block_start() && (needs_plan() || replan_every - block_in_plan() < options.context);
  }
  Status refuse(Status status, const char* what) {
    std::snprintf(text, sizeof text, "%s", what);
    return status;
  }
  Status refuse(const char* what) { return refuse(Status::invalid_argument, what); }

  std::shared_ptr<Planner> planner;
  const ControllerOptions options;
  const Config& config;
  const ActionScaling& scaling;
  const std::int64_t horizon, block_dim, latent_dim, replan_every;

  GoalCache goals;
  bool has_goal = false;

  // Frames and blocks up to now, oldest first: latent i was seen before block i was executed.
  std::int64_t latents_held = 0, blocks_held = 0;
  std::vector<float> latents;   // [context + 1, D], the last for a frame that is not committed
  std::vector<float> blocks;    // [context - 1, A], standardised, as executed
  std::vector<float> executed;  // [A], the block being executed

  std::int64_t step = 0;  // environment steps since the plan; 0: a plan is due
  std::int64_t plans = 0;
  bool has_plan = false;
  std::vector<float> plan;  // [H, A], being executed
  std::vector<float> next;  // [H, A], being made
  float cost = 0, next_cost = 0;
  std::int64_t iterations = 0;
  double elapsed = 0;
  char text[256] = "";
};

Controller::Impl::Impl(std::shared_ptr<Planner> shared_planner, const ControllerOptions& options_in)
    : planner(checked(std::move(shared_planner))),
      options(options_in),
      config(planner->model().config()),
      scaling(planner->model().action_scaling()),
      horizon(planner->options().horizon),
      block_dim(config.block_dim()),
      latent_dim(config.latent_dim),
      replan_every(options.replan_every ? options.replan_every : horizon),
      goals(1, 3 * config.image_size * config.image_size, config.latent_dim) {
  check_count("replan_every", options.replan_every, 0, horizon);
  check_count("context", options.context, 1, config.history);
  if (!(options.deadline >= 0)) {
    throw Error(Status::invalid_argument,
                "deadline: expected at least 0 seconds, got " + std::to_string(options.deadline));
  }
  check_bounds(options.low, options.high, config.action_dim, config.action_dim);
  latents.resize(static_cast<std::size_t>((options.context + 1) * latent_dim));
  blocks.resize(static_cast<std::size_t>((options.context - 1) * block_dim));
  executed.resize(static_cast<std::size_t>(block_dim));
  plan.resize(static_cast<std::size_t>(horizon * block_dim));
  next.resize(plan.size());
}

void Controller::Impl::reset() {
  latents_held = blocks_held = step = plans = iterations = 0;
  has_plan = has_goal = false;
  cost = 0;
  elapsed = 0;
}

// Encodes the frame behind the history; commit_frame() makes it part of it.
Status Controller::Impl::observe(const std::uint8_t* frame) {
  if (!frame) return refuse("frame: expected an image, got null");
  const Status status = planner->encode(frame, 1, latents.data() + latents_held * latent_dim);
  return status == Status::ok ? status : refuse(status, planner->message());
}

void Controller::Impl::commit_frame() {
  if (latents_held < options.context) {
    ++latents_held;
  } else {
    std::copy_n(latents.data() + latent_dim, options.context * latent_dim, latents.data());
  }
}

// Plans from the last `context` frames, the newest being the observed one that is not committed yet.
Status Controller::Impl::make_plan(double start) {
  PlanRequest request;
  request.context = std::min(options.context, latents_held + 1);
  request.latents = latents.data() + (latents_held + 1 - request.context) * latent_dim;
  if (request.context > 1) request.past_actions = blocks.data() + (blocks_held + 1 - request.context) * block_dim;
  request.goals = goals.latents();
  if (options.warm_start && has_plan && replan_every < horizon) {
    request.warm_start = plan.data() + replan_every * block_dim;
    request.warm_blocks = horizon - replan_every;
  }
  request.plan_index = static_cast<std::uint32_t>(plans);
  request.deadline = std::max(0.0, options.deadline - (seconds(planner->options().clock) - start));
  PlanResult result;
  result.actions = next.data();
  result.cost = &next_cost;
  const Status status = planner->plan(request, result);
  if (status != Status::ok) return refuse(status, planner->message());
  plan.swap(next);
  has_plan = true;
  ++plans;
  cost = next_cost;
  iterations = result.iterations;
  elapsed = seconds(planner->options().clock) - start;
  return status;
}

// The action of this step: de-standardised and clipped. What a clip changes is remembered as it was executed.
void Controller::Impl::hand_out(float* action) {
  const std::int64_t in_block = step % config.frame_skip * config.action_dim;
  const float* planned = plan.data() + step / config.frame_skip * block_dim + in_block;
  for (std::int64_t d = 0; d < config.action_dim; ++d) {
    const std::size_t i = static_cast<std::size_t>(d);
    const float mean = scaling.mean.empty() ? 0.0f : scaling.mean[i];
    const float std = scaling.mean.empty() ? 1.0f : scaling.std[i];
    const float value = std::fma(planned[d], std, mean);
    float clipped = value;
    if (!options.low.empty()) clipped = std::max(clipped, options.low[i]);
    if (!options.high.empty()) clipped = std::min(clipped, options.high[i]);
    action[d] = clipped;
    executed[static_cast<std::size_t>(in_block + d)] = clipped == value ? planned[d] : (clipped - mean) / std;
  }
}

void Controller::Impl::advance() {
  ++step;
  if (!at_block_start()) return;
  const std::int64_t most = options.context - 1;
  if (most > 0) {
    if (blocks_held == most) std::copy_n(blocks.data() + block_dim, (most - 1) * block_dim, blocks.data());
    blocks_held = std::min(blocks_held + 1, most);
    std::copy_n(executed.data(), block_dim, blocks.data() + (blocks_held - 1) * block_dim);
  }
  if (step == replan_every * config.frame_skip) step = 0;
}

Status Controller::Impl::act(const std::uint8_t* frame, float* action, double spent) {
  const double start = seconds(planner->options().clock) - spent;
  text[0] = 0;
  if (!action) return refuse("action: expected an array, got null");
  if (!has_goal) return refuse("goal: none is set; call set_goal first");
  const bool looks = needs_frame();
  if (looks) {
    const Status status = observe(frame);
    if (status != Status::ok) return status;
  }
  if (needs_plan()) {
    const Status status = make_plan(start);
    if (status != Status::ok) return status;
  }
  if (looks) commit_frame();
  hand_out(action);
  advance();
  return Status::ok;
}

Status Controller::Impl::set_goal(const std::uint8_t* goal) {
  text[0] = 0;
  if (!goal) return refuse("goal: expected an image, got null");
  if (!goals.holds(goal, 1)) {
    goals.forget();
    has_goal = false;
    const Status status = planner->encode(goal, 1, goals.latents());
    if (status != Status::ok) return refuse(status, planner->message());
    goals.remember(goal, 1);
  }
  has_goal = true;
  return Status::ok;
}

Status Controller::Impl::set_goal_latent(const float* latent) {
  text[0] = 0;
  if (!latent) return refuse("goal: expected a latent, got null");
  if (!std::all_of(latent, latent + latent_dim, [](float value) { return std::isfinite(value); })) {
    return refuse("goal: expected finite numbers");
  }
  goals.forget();
  std::copy_n(latent, latent_dim, goals.latents());
  has_goal = true;
  return Status::ok;
}

Controller::Controller(std::shared_ptr<Planner> planner, const ControllerOptions& options)
    : impl_(std::make_unique<Impl>(std::move(planner), options)) {}
Controller::~Controller() = default;

void Controller::reset() noexcept { impl_->reset(); }
Status Controller::set_goal(const std::uint8_t* goal) noexcept { return impl_->set_goal(goal); }
Status Controller::set_goal_latent(const float* latent) noexcept { return impl_->set_goal_latent(latent); }
bool Controller::needs_frame() const noexcept { return impl_->needs_frame(); }
bool Controller::needs_plan() const noexcept { return impl_->needs_plan(); }
Status Controller::act(const std::uint8_t* frame, float* action, double spent) noexcept {
  return impl_->act(frame, action, spent);
}
const char* Controller::message() const { return impl_->text; }
std::int64_t Controller::plans() const noexcept { return impl_->plans; }

Controller::Current Controller::current() const noexcept {
  return {impl_->has_plan ? impl_->plan.data() : nullptr, impl_->cost, impl_->iterations, impl_->elapsed};
}

}  // namespace lewm
