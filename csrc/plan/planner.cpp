#include "plan/planner.h"

#include <atomic>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <vector>

#include "model/encoder.h"
#include "plan/clock.h"
#include "plan/goal_cache.h"
#include "plan/model_objective.h"
#include "plan/search.h"

namespace lewm {
namespace {

std::shared_ptr<const Model> checked(std::shared_ptr<const Model> model) {
  if (!model) throw Error(Status::invalid_argument, "model: expected a model, got null");
  return model;
}

std::shared_ptr<ThreadPool> checked(std::shared_ptr<ThreadPool> pool) {
  if (!pool) throw Error(Status::invalid_argument, "pool: expected a thread pool, got null");
  return pool;
}

// Index of the first element that is NaN or infinite; n when all are finite.
std::int64_t first_not_finite(const float* values, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(values[i])) return i;
  }
  return n;
}

}  // namespace

struct Planner::Impl {
  Impl(std::shared_ptr<const Model> shared_model, const PlannerOptions& options_in, std::shared_ptr<ThreadPool> threads)
      : model(checked(std::move(shared_model))),
        pool(checked(std::move(threads))),
        options(options_in),
        config(model->config()),
        search(options, config.block_dim(), config.action_dim, *pool),
        objective(model, options, pool->threads()),
        encoder(model, *pool),
        frame_values(3 * config.image_size * config.image_size),
        goals(options.problems, frame_values, config.latent_dim),
        latents(static_cast<std::size_t>(options.problems * config.history * config.latent_dim)) {}

  std::shared_ptr<const Model> model;
  std::shared_ptr<ThreadPool> pool;
  const PlannerOptions options;
  const Config& config;
  Search search;
  ModelObjective objective;
  Encoder encoder;
  const std::int64_t frame_values;  // numbers in a frame
  GoalCache goals;
  std::vector<float> latents;  // [problems, history, D], of plan_frames
  char own_text[256] = "";
  const char* text = own_text;

  [[gnu::format(printf, 2, 3)]] Status refuse(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(own_text, sizeof own_text, format, arguments);
    va_end(arguments);
    text = own_text;
    return Status::invalid_argument;
  }

  Status check_array(const char* name, const float* values, std::int64_t n) {
    if (!values) return refuse("%s: expected an array, got null", name);
    const std::int64_t bad = first_not_finite(values, n);
    if (bad == n) return Status::ok;
    return refuse("%s: expected finite numbers, got %f at element %lld", name, static_cast<double>(values[bad]),
                  static_cast<long long>(bad));
  }

  Status check_range(const char* name, std::int64_t value, std::int64_t least, std::int64_t most) {
    if (value >= least && value <= most) return Status::ok;
    return refuse("%s: expected %lld..%lld, got %lld", name, static_cast<long long>(least),
                  static_cast<long long>(most), static_cast<long long>(value));
  }

  Status check_sizes(const PlanRequest& request) {
    Status status = check_range("problems", request.problems, 1, options.problems);
    if (status == Status::ok) status = check_range("context", request.context, 1, config.history);
    if (status == Status::ok && request.context > 1) {
      status = check_array("past_actions", request.past_actions,
                           request.problems * (request.context - 1) * config.block_dim());
    }
    if (status != Status::ok || !request.warm_start) return status;
    status = check_range("warm_blocks", request.warm_blocks, 0, options.horizon);
    if (status != Status::ok) return status;
    return check_array("warm_start", request.warm_start, request.problems * request.warm_blocks * config.block_dim());
  }

  Status check_latents(const PlanRequest& request) {
    const Status status =
        check_array("latents", request.latents, request.problems * request.context * config.latent_dim);
    return status == Status::ok ? check_array("goals", request.goals, request.problems * config.latent_dim) : status;
  }

  Status check_result(const PlanRequest& request, const PlanResult& result) {
    if (!(request.deadline >= 0)) return refuse("deadline: expected at least 0 seconds, got %f", request.deadline);
    if (!result.actions) return refuse("result.actions: expected an array, got null");
    if (!result.cost) return refuse("result.cost: expected an array, got null");
    return Status::ok;
  }

  Status plan(const PlanRequest& request, double start, PlanResult& result) {
    Status status = check_sizes(request);
    if (status == Status::ok) status = check_latents(request);
    if (status == Status::ok) status = check_result(request, result);
    if (status != Status::ok) return status;
    objective.prepare(request);
    status = search.run(objective, request, start, result);
    if (status != Status::ok) text = search.message();
    return status;
  }

  // uint8 goals are compared with the last ones: encoding costs far more than looking at them.
  const float* encode_goals(const std::uint8_t* frames, std::int64_t n) {
    if (!goals.holds(frames, n)) {
      goals.forget();
      encoder.encode(frames, n, goals.latents());
      goals.remember(frames, n);
    }
    return goals.latents();
  }
  const float* encode_goals(const float* frames, std::int64_t n) {
    goals.forget();
    encoder.encode(frames, n, goals.latents());
    return goals.latents();
  }

  template <class Pixel>
  Status plan_frames(const Pixel* frames, const Pixel* goal_frames, const PlanRequest& request, PlanResult& result) {
    text = "";
    const double start = seconds(options.clock);
    if (!frames) return refuse("frames: expected an array, got null");
    if (!goal_frames) return refuse("goals: expected an array, got null");
    const Status status = check_sizes(request);
    if (status != Status::ok) return status;
    PlanRequest encoded = request;
    encoder.encode(frames, request.problems * request.context, latents.data());
    encoded.latents = latents.data();
    encoded.goals = encode_goals(goal_frames, request.problems);
    return plan(encoded, start, result);
  }

  template <class Pixel>
  Status encode(const Pixel* frames, std::int64_t n, float* out) {
    text = "";
    if (!frames) return refuse("frames: expected an array, got null");
    if (!out) return refuse("latents: expected an array, got null");
    if (n < 0) return refuse("n: expected at least 0, got %lld", static_cast<long long>(n));
    encoder.encode(frames, n, out);
    return Status::ok;
  }

  Status evaluate(const PlanRequest& request, const float* actions, std::int64_t samples, float* cost) {
    text = "";
    Status status = check_sizes(request);
    if (status == Status::ok) status = check_latents(request);
    if (status == Status::ok && samples < 1) {
      status = refuse("samples: expected at least 1, got %lld", static_cast<long long>(samples));
    }
    const std::int64_t elements = options.horizon * config.block_dim();
    if (status == Status::ok) status = check_array("actions", actions, request.problems * samples * elements);
    if (status == Status::ok && !cost) status = refuse("cost: expected an array, got null");
    if (status != Status::ok) return status;

    objective.prepare(request);
    const std::int64_t chunk = objective.tile();
    const std::int64_t tiles = (samples + chunk - 1) / chunk;
    std::atomic<bool> refused{false};
    pool->run(request.problems * tiles, [&](std::int64_t task, int thread) {
      const std::int64_t problem = task / tiles;
      const std::int64_t first = task % tiles * chunk;
      const std::int64_t n = std::min(chunk, samples - first);
      const std::int64_t at = problem * samples + first;
      if (!objective.evaluate(thread, problem, actions + at * elements, n, cost + at)) refused = true;
    });
    return refused ? refuse("cost: the cost function reported an error") : Status::ok;
  }
};

Planner::Planner(std::shared_ptr<const Model> model, const PlannerOptions& options, std::shared_ptr<ThreadPool> pool)
    : impl_(std::make_unique<Impl>(std::move(model), options, std::move(pool))) {}
Planner::~Planner() = default;

Status Planner::plan(const PlanRequest& request, PlanResult& result) noexcept {
  impl_->text = "";
  return impl_->plan(request, seconds(impl_->options.clock), result);
}

Status Planner::plan_frames(const std::uint8_t* frames, const std::uint8_t* goals, const PlanRequest& request,
                            PlanResult& result) noexcept {
  return impl_->plan_frames(frames, goals, request, result);
}

Status Planner::plan_frames(const float* frames, const float* goals, const PlanRequest& request,
                            PlanResult& result) noexcept {
  return impl_->plan_frames(frames, goals, request, result);
}

Status Planner::encode(const std::uint8_t* frames, std::int64_t n, float* latents) noexcept {
  return impl_->encode(frames, n, latents);
}

Status Planner::encode(const float* frames, std::int64_t n, float* latents) noexcept {
  return impl_->encode(frames, n, latents);
}

Status Planner::evaluate(const PlanRequest& request, const float* actions, std::int64_t samples, float* cost) noexcept {
  return impl_->evaluate(request, actions, samples, cost);
}

const char* Planner::message() const { return impl_->text; }
const Model& Planner::model() const { return *impl_->model; }
const PlannerOptions& Planner::options() const { return impl_->options; }

}  // namespace lewm
