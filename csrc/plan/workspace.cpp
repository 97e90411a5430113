#include "plan/workspace.h"

#include <algorithm>
#include <string>

namespace lewm {
namespace {

std::shared_ptr<const Model> checked(std::shared_ptr<const Model> model, const WorkspaceLimits& limits) {
  constexpr std::int64_t kMost = 1 << 24;
  const auto check = [](const char* field, std::int64_t value) {
    if (value >= 1 && value <= kMost) return;
    throw Error(Status::invalid_argument,
                std::string(field) + ": expected 1.." + std::to_string(kMost) + ", got " + std::to_string(value));
  };
  check("problems", limits.problems);
  check("horizon", limits.horizon);
  if (!model) throw Error(Status::invalid_argument, "model: expected a model, got null");
  return model;
}

cuda::Seen as_seen(const History& seen) { return {seen.problems, seen.context, seen.latents, seen.past_actions}; }

}  // namespace

Workspace::Workspace(std::shared_ptr<const Model> model, const WorkspaceLimits& limits,
                     std::shared_ptr<ThreadPool> pool)
    : model_(checked(std::move(model), limits)), limits_(limits), pool_(std::move(pool)) {
  if (limits.device) {
    device_ = std::make_unique<DeviceEngine>(limits.device, cuda::Limits{limits.problems, limits.horizon});
  } else {
    host_ = std::make_unique<Host>(model_, limits, *pool_);
  }
}

Workspace::Host::Host(const std::shared_ptr<const Model>& model, const WorkspaceLimits& limits, ThreadPool& pool)
    : encoder(model, pool),
      rollout(model, RolloutLimits{limits.problems, limits.horizon, pool.threads()}),
      last(static_cast<std::size_t>(pool.threads() * rollout.tile() * model->config().latent_dim)),
      frames(static_cast<std::size_t>(kFrames * 3 * model->config().image_size * model->config().image_size)) {}

Status Workspace::from_device(Status status) {
  return status == Status::ok ? status : checks_.refuse(status, "%s", device_->message());
}

Status Workspace::check_frames(const void* frames, std::int64_t n, const float* latents) {
  checks_.clear();
  Status status = checks_.in_range("n", n, 0, INT64_MAX);
  if (status != Status::ok || n == 0) return status;
  status = checks_.present("frames", frames);
  return status == Status::ok ? checks_.present("latents", latents) : status;
}

template <class Pixel>
Status Workspace::encode_frames(const Pixel* frames, std::int64_t n, float* latents) {
  const Status status = check_frames(frames, n, latents);
  if (status != Status::ok || n == 0) return status;
  if (device_) return from_device(device_->encode(frames, n, latents, stream_));
  host_->encoder.encode(frames, n, latents);
  return status;
}

Status Workspace::encode(const std::uint8_t* frames, std::int64_t n, float* latents) noexcept {
  return encode_frames(frames, n, latents);
}

Status Workspace::encode(const float* frames, std::int64_t n, float* latents) noexcept {
  return encode_frames(frames, n, latents);
}

Status Workspace::encode(FrameResizer& resizer, const DeviceResizer* on_device, const std::uint8_t* frames,
                         std::int64_t n, float* latents) noexcept {
  const Status status = check_frames(frames, n, latents);
  if (status != Status::ok || n == 0) return status;
  if (device_) return from_device(device_->encode(*on_device, frames, n, latents, stream_));
  const std::int64_t size = model_->config().image_size, row = resizer.width() * bytes_per_pixel(resizer.format());
  for (std::int64_t first = 0; first < n; first += Host::kFrames) {
    const std::int64_t count = std::min(Host::kFrames, n - first);
    for (std::int64_t i = 0; i < count; ++i) {
      resizer.run(frames + (first + i) * resizer.height() * row, static_cast<std::ptrdiff_t>(row),
                  host_->frames.data() + i * 3 * size * size);
    }
    host_->encoder.encode(host_->frames.data(), count, latents + first * model_->config().latent_dim);
  }
  return Status::ok;
}

Status Workspace::check(const History& seen, const float* actions, std::int64_t samples, std::int64_t horizon) {
  checks_.clear();
  const Config& config = model_->config();
  const Device* device = limits_.device.get();
  Status status = checks_.in_range("problems", seen.problems, 1, limits_.problems);
  if (status == Status::ok) status = checks_.in_range("context", seen.context, 1, config.history);
  if (status == Status::ok) status = checks_.in_range("samples", samples, 1, INT32_MAX);
  if (status == Status::ok) status = checks_.in_range("horizon", horizon, 1, limits_.horizon);
  if (status == Status::ok) {
    status = check_finite(checks_, device, "latents", seen.latents, seen.problems * seen.context * config.latent_dim);
  }
  if (status == Status::ok && seen.context > 1) {
    status = check_finite(checks_, device, "past_actions", seen.past_actions,
                          seen.problems * (seen.context - 1) * config.block_dim());
  }
  if (status == Status::ok) {
    status = check_finite(checks_, device, "actions", actions, seen.problems * samples * horizon * config.block_dim());
  }
  return status;
}

Status Workspace::rollout(const History& seen, const float* actions, std::int64_t samples, std::int64_t horizon,
                          float* latents) noexcept {
  Status status = check(seen, actions, samples, horizon);
  if (status == Status::ok) status = checks_.present("latents", latents);
  if (status != Status::ok) return status;
  if (device_) return from_device(device_->rollout(as_seen(seen), actions, samples, horizon, latents, stream_));
  Rollout& rollout = host_->rollout;
  const std::int64_t size = candidates_of_task(seen.problems, samples, rollout.tile(), pool_->threads());
  const std::int64_t tasks = (samples + size - 1) / size;
  const std::int64_t block_dim = model_->config().block_dim(), latent_dim = model_->config().latent_dim;
  rollout.prepare(seen.latents, seen.past_actions, seen.problems, seen.context);
  pool_->run(seen.problems * tasks, [&](std::int64_t task, int thread) {
    const std::int64_t problem = task / tasks, first = task % tasks * size;
    const std::int64_t row = (problem * samples + first) * horizon;
    rollout.run_tile(thread, problem, actions + row * block_dim, std::min(size, samples - first), horizon, true,
                     latents + row * latent_dim);
  });
  return Status::ok;
}

Status Workspace::cost(const History& seen, const float* goals, const float* actions, std::int64_t samples,
                       std::int64_t horizon, float* cost) noexcept {
  const std::int64_t block_dim = model_->config().block_dim(), latent_dim = model_->config().latent_dim;
  Status status = check(seen, actions, samples, horizon);
  if (status == Status::ok)
    status = check_finite(checks_, limits_.device.get(), "goals", goals, seen.problems * latent_dim);
  if (status == Status::ok) status = checks_.present("cost", cost);
  if (status != Status::ok) return status;
  if (device_) return from_device(device_->cost(as_seen(seen), goals, actions, samples, horizon, cost, stream_));
  Rollout& rollout = host_->rollout;
  const std::int64_t size = candidates_of_task(seen.problems, samples, rollout.tile(), pool_->threads());
  const std::int64_t tasks = (samples + size - 1) / size;
  rollout.prepare(seen.latents, seen.past_actions, seen.problems, seen.context);
  pool_->run(seen.problems * tasks, [&](std::int64_t task, int thread) {
    const std::int64_t problem = task / tasks, first = task % tasks * size;
    const std::int64_t n = std::min(size, samples - first);
    float* last = host_->last.data() + thread * rollout.tile() * latent_dim;
    rollout.run_tile(thread, problem, actions + (problem * samples + first) * horizon * block_dim, n, horizon, false,
                     last);
    model_->kernels().squared_distance(last, latent_dim, goals + problem * latent_dim, n, latent_dim,
                                       cost + problem * samples + first);
  });
  return Status::ok;
}

}  // namespace lewm
