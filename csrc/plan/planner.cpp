#include "plan/planner.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "model/encoder.h"
#include "plan/checks.h"
#include "plan/clock.h"
#include "plan/device.h"
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

// What computes on the CPU.
struct Host {
  Host(const std::shared_ptr<const Model>& model, const PlannerOptions& options, ThreadPool& pool)
      : search(options, model->config().block_dim(), model->config().action_dim, pool),
        objective(model, options, pool.threads()),
        encoder(model, pool) {}
  Search search;
  ModelObjective objective;
  Encoder encoder;
};

// What computes on a GPU.
struct OnDevice {
  OnDevice(const PlannerOptions& options, const Config& config)
      : search(options.device, options, config),
        engine(
            options.device,
            {.problems = 1, .horizon = 1, .tile = 0, .frames = std::min(kFrames, options.problems * config.history)}) {}
  static constexpr std::int64_t kFrames = 64;  // encoded at once
  DeviceSearch search;
  DeviceEngine engine;
};

}  // namespace

struct Planner::Impl {
  Impl(std::shared_ptr<const Model> shared_model, const PlannerOptions& options_in, std::shared_ptr<ThreadPool> threads)
      : model(checked(std::move(shared_model))),
        pool(checked(std::move(threads))),
        options(options_in),
        config(model->config()),
        host(options.device ? nullptr : std::make_unique<Host>(model, options, *pool)),
        device(options.device ? std::make_unique<OnDevice>(options, config) : nullptr),
        frame_values(3 * config.image_size * config.image_size),
        goals(options.problems, frame_values, config.latent_dim),
        latents(static_cast<std::size_t>(options.problems * config.history * config.latent_dim)) {}

  std::shared_ptr<const Model> model;
  std::shared_ptr<ThreadPool> pool;
  const PlannerOptions options;
  const Config& config;
  std::unique_ptr<Host> host;  // either of the two
  std::unique_ptr<OnDevice> device;
  void* stream = nullptr;
  const std::int64_t frame_values;  // numbers in a frame
  GoalCache goals;
  std::vector<float> latents;  // [problems, history, D], of plan_frames
  Checks checks;
  const char* text = "";

  // Ends a failed call: its message is the checks'.
  Status refused(Status status) {
    text = checks.message();
    return status;
  }

  Status check_finite(const char* name, const float* values, std::int64_t n) {
    return lewm::check_finite(checks, options.device.get(), name, values, n);
  }

  Status check_sizes(const PlanRequest& request) {
    Status status = checks.in_range("problems", request.problems, 1, options.problems);
    if (status == Status::ok) status = checks.in_range("context", request.context, 1, config.history);
    if (status == Status::ok && request.context > 1) {
      status = check_finite("past_actions", request.past_actions,
                            request.problems * (request.context - 1) * config.block_dim());
    }
    if (status != Status::ok || !request.warm_start) return status;
    status = checks.in_range("warm_blocks", request.warm_blocks, 0, options.horizon);
    if (status != Status::ok) return status;
    return check_finite("warm_start", request.warm_start, request.problems * request.warm_blocks * config.block_dim());
  }

  Status check_latents(const PlanRequest& request) {
    const std::int64_t dim = config.latent_dim;
    const Status status = check_finite("latents", request.latents, request.problems * request.context * dim);
    return status == Status::ok ? check_finite("goals", request.goals, request.problems * dim) : status;
  }

  Status check_result(const PlanRequest& request, const PlanResult& result) {
    if (!(request.deadline >= 0)) {
      return checks.refuse(Status::invalid_argument, "deadline: expected at least 0 seconds, got %f", request.deadline);
    }
    const Status status = checks.present("result.actions", result.actions);
    return status == Status::ok ? checks.present("result.cost", result.cost) : status;
  }

  Status plan(const PlanRequest& request, double start, PlanResult& result) {
    Status status = check_sizes(request);
    if (status == Status::ok) status = check_latents(request);
    if (status == Status::ok) status = check_result(request, result);
    if (status != Status::ok) return refused(status);
    if (device) {
      status = device->search.plan(request, start, result, stream);
      if (status != Status::ok) text = device->search.message();
      return status;
    }
    host->objective.prepare(request);
    status = host->search.run(host->objective, request, start, result);
    if (status != Status::ok) text = host->search.message();
    return status;
  }

  template <class Pixel>
  Status run_encoder(const Pixel* frames, std::int64_t n, float* out) {
    if (!device) {
      host->encoder.encode(frames, n, out);
      return Status::ok;
    }
    const Status status = device->engine.encode(frames, n, out, stream);
    if (status != Status::ok) text = device->engine.message();
    return status;
  }

  // To goals.latents(). uint8 goals are compared with the last ones: encoding costs far more than looking at them.
  Status encode_goals(const std::uint8_t* frames, std::int64_t n) {
    const bool readable = on_host(options.device.get(), frames);
    if (readable && goals.holds(frames, n)) return Status::ok;
    goals.forget();
    const Status status = run_encoder(frames, n, goals.latents());
    if (status == Status::ok && readable) goals.remember(frames, n);
    return status;
  }
  Status encode_goals(const float* frames, std::int64_t n) {
    goals.forget();
    return run_encoder(frames, n, goals.latents());
  }

  template <class Pixel>
  Status plan_frames(const Pixel* frames, const Pixel* goal_frames, const PlanRequest& request, PlanResult& result) {
    text = "";
    const double start = seconds(options.clock);
    Status status = checks.present("frames", frames);
    if (status == Status::ok) status = checks.present("goals", goal_frames);
    if (status == Status::ok) status = check_sizes(request);
    if (status != Status::ok) return refused(status);
    PlanRequest encoded = request;
    status = run_encoder(frames, request.problems * request.context, latents.data());
    if (status == Status::ok) status = encode_goals(goal_frames, request.problems);
    if (status != Status::ok) return status;
    encoded.latents = latents.data();
    encoded.goals = goals.latents();
    return plan(encoded, start, result);
  }

  template <class Pixel>
  Status encode(const Pixel* frames, std::int64_t n, float* out) {
    text = "";
    Status status = checks.present("frames", frames);
    if (status == Status::ok) status = checks.present("latents", out);
    if (status == Status::ok) status = checks.in_range("n", n, 0, INT64_MAX);
    if (status != Status::ok) return refused(status);
    return run_encoder(frames, n, out);
  }

  Status evaluate(const PlanRequest& request, const float* actions, std::int64_t samples, float* cost) {
    text = "";
    const std::int64_t elements = options.horizon * config.block_dim();
    Status status = check_sizes(request);
    if (status == Status::ok) status = check_latents(request);
    if (status == Status::ok) status = checks.in_range("samples", samples, 1, INT32_MAX);
    if (status == Status::ok) status = check_finite("actions", actions, request.problems * samples * elements);
    if (status == Status::ok) status = checks.present("cost", cost);
    if (status != Status::ok) return refused(status);
    if (device) {
      status = device->search.evaluate(request, actions, samples, cost, stream);
      if (status != Status::ok) text = device->search.message();
      return status;
    }

    ModelObjective& objective = host->objective;
    objective.prepare(request);
    const std::int64_t chunk = objective.tile();
    const std::int64_t tiles = (samples + chunk - 1) / chunk;
    std::atomic<bool> accepted{true};
    pool->run(request.problems * tiles, [&](std::int64_t task, int thread) {
      const std::int64_t problem = task / tiles;
      const std::int64_t first = task % tiles * chunk;
      const std::int64_t n = std::min(chunk, samples - first);
      const std::int64_t at = problem * samples + first;
      if (!objective.evaluate(thread, problem, actions + at * elements, n, cost + at)) accepted = false;
    });
    if (accepted) return Status::ok;
    return refused(checks.refuse(Status::invalid_argument, "cost: the cost function reported an error"));
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

void Planner::set_stream(void* stream) { impl_->stream = stream; }

const char* Planner::message() const { return impl_->text; }
const Model& Planner::model() const { return *impl_->model; }
const PlannerOptions& Planner::options() const { return impl_->options; }

}  // namespace lewm
