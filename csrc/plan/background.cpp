#include "plan/background.h"

#include <algorithm>
#include <cstdio>
#include <exception>

#include "core/signals.h"

namespace lewm {

BackgroundPlanner::BackgroundPlanner(std::shared_ptr<Planner> planner, const ThreadOptions& threads, const Log& log)
    : planner_(std::move(planner)), log_(log) {
  const Config& config = planner_->model().config();
  const PlannerOptions& options = planner_->options();
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  const std::int64_t problems = options.problems, frame = 3 * config.image_size * config.image_size;
  submitted_.initialise([&](Submitted& slot) {
    slot.latents.resize(size(problems * config.history * config.latent_dim));
    slot.past_actions.resize(size(problems * (config.history - 1) * config.block_dim()));
    slot.goals.resize(size(problems * config.latent_dim));
    slot.warm_start.resize(size(problems * options.horizon * config.block_dim()));
    slot.problem_ids.resize(size(problems));
    slot.frames.resize(size(problems * config.history * frame));
    slot.goal_frames.resize(size(problems * frame));
  });
  finished_.initialise([&](Finished& slot) {
    slot.actions.resize(size(problems * options.horizon * config.block_dim()));
    slot.cost.resize(size(problems));
  });
  std::exception_ptr failure;
  const auto start = [&] {
    try {
      place_this_thread(threads);
    } catch (...) {
      failure = std::current_exception();
    }
    const bool placed = !failure;
    started_.store(true);
    started_.notify_one();
    if (placed) work();
  };
  {
    const BlockedSignals blocked;
    thread_ = std::thread(start);
  }
  started_.wait(false);
  if (failure) {
    thread_.join();
    std::rethrow_exception(failure);
  }
}

BackgroundPlanner::~BackgroundPlanner() {
  if (getpid() != owner_) {               // a forked child has no such thread; its handle may by now be that of another
    new std::thread(std::move(thread_));  // kept, untouched
    return;
  }
  stop_.store(true);
  signal_.fetch_add(1);
  signal_.notify_one();
  thread_.join();
}

Status BackgroundPlanner::check(const PlanRequest& request) {
  checks_.clear();
  Status status = checks_.in_range("problems", request.problems, 1, planner_->options().problems);
  if (status == Status::ok) {
    status = checks_.in_range("context", request.context, 1, planner_->model().config().history);
  }
  if (status == Status::ok && request.context > 1) status = checks_.present("past_actions", request.past_actions);
  if (status == Status::ok && request.warm_start) {
    status = checks_.in_range("warm_blocks", request.warm_blocks, 0, planner_->options().horizon);
  }
  return status;
}

// Everything but latents, goals and frames into the slot that is being written.
void BackgroundPlanner::copy(const PlanRequest& request) {
  const std::int64_t block_dim = planner_->model().config().block_dim(), problems = request.problems;
  Submitted& slot = submitted_.back();
  slot.request = request;
  if (request.context > 1) {
    std::copy_n(request.past_actions, problems * (request.context - 1) * block_dim, slot.past_actions.data());
    slot.request.past_actions = slot.past_actions.data();
  }
  if (request.warm_start) {
    std::copy_n(request.warm_start, problems * request.warm_blocks * block_dim, slot.warm_start.data());
    slot.request.warm_start = slot.warm_start.data();
  }
  if (request.problem_ids) {
    std::copy_n(request.problem_ids, problems, slot.problem_ids.data());
    slot.request.problem_ids = slot.problem_ids.data();
  }
}

void BackgroundPlanner::publish(std::uint64_t* ticket) {
  submitted_.back().ticket = ++tickets_;
  if (ticket) *ticket = tickets_;
  submitted_.publish();
  signal_.fetch_add(1, std::memory_order_release);
  signal_.notify_one();
}

Status BackgroundPlanner::submit(const PlanRequest& request, std::uint64_t* ticket) noexcept {
  Status status = check(request);
  if (status == Status::ok) status = checks_.present("latents", request.latents);
  if (status == Status::ok) status = checks_.present("goals", request.goals);
  if (status != Status::ok) return status;
  const std::int64_t latent_dim = planner_->model().config().latent_dim;
  copy(request);
  Submitted& slot = submitted_.back();
  slot.from_frames = false;
  std::copy_n(request.latents, request.problems * request.context * latent_dim, slot.latents.data());
  std::copy_n(request.goals, request.problems * latent_dim, slot.goals.data());
  slot.request.latents = slot.latents.data();
  slot.request.goals = slot.goals.data();
  publish(ticket);
  return Status::ok;
}

Status BackgroundPlanner::submit_frames(const std::uint8_t* frames, const std::uint8_t* goals,
                                        const PlanRequest& request, std::uint64_t* ticket) noexcept {
  Status status = check(request);
  if (status == Status::ok) status = checks_.present("frames", frames);
  if (status == Status::ok) status = checks_.present("goals", goals);
  if (status != Status::ok) return status;
  const std::int64_t image_size = planner_->model().config().image_size, frame = 3 * image_size * image_size;
  copy(request);
  Submitted& slot = submitted_.back();
  slot.from_frames = true;
  std::copy_n(frames, request.problems * request.context * frame, slot.frames.data());
  std::copy_n(goals, request.problems * frame, slot.goal_frames.data());
  publish(ticket);
  return Status::ok;
}

const BackgroundPlanner::Finished& BackgroundPlanner::latest() noexcept {
  finished_.take();
  return finished_.front();
}

void BackgroundPlanner::work() {
  for (std::uint32_t seen = 0;;) {
    signal_.wait(seen, std::memory_order_acquire);
    seen = signal_.load(std::memory_order_acquire);
    if (stop_.load()) return;
    if (submitted_.take()) plan(submitted_.front());
  }
}

void BackgroundPlanner::plan(const Submitted& submitted) {
  Finished& slot = finished_.back();
  PlanResult result;
  result.actions = slot.actions.data();
  result.cost = slot.cost.data();
  slot.status = submitted.from_frames ? planner_->plan_frames(submitted.frames.data(), submitted.goal_frames.data(),
                                                              submitted.request, result)
                                      : planner_->plan(submitted.request, result);
  std::snprintf(slot.message, sizeof slot.message, "%s", planner_->message());
  slot.ticket = submitted.ticket;
  slot.problems = submitted.request.problems;
  slot.iterations = result.iterations;
  slot.elapsed = result.elapsed;
  if (slot.status != Status::ok) log_(slot.message);
  finished_.publish();
}

}  // namespace lewm
