#include "python/model_handle.h"

#include <algorithm>
#include <utility>

namespace lewm::python {
namespace {

constexpr std::int64_t kProblems = 16;  // prepared at once: bounds the memory of a batch

constexpr std::int64_t kFramesAtOnce = 16;  // resized, then encoded

cuda::Seen seen_of(const ModelHandle::Candidates& candidates) {
  return {candidates.problems, candidates.context, candidates.latents, candidates.past};
}

}  // namespace

ModelHandle::ModelHandle(std::shared_ptr<const Model> model, int threads, int device)
    : model_(std::move(model)), workers_(threads) {
  if (device < 0) return;
  device_ = Device::upload(*model_, device);
  engine_ = std::make_unique<DeviceEngine>(device_, cuda::Limits{});
}

void ModelHandle::throw_unless_ok(Status status) const {
  if (status != Status::ok) throw Error(status, engine_->message());
}

template <class Pixel>
void ModelHandle::encode(const Pixel* frames, std::int64_t n, float* latents, void* stream) {
  const std::lock_guard lock(workers_.mutex);
  if (engine_) return throw_unless_ok(engine_->encode(frames, n, latents, stream));
  if (!encoder_) encoder_ = std::make_unique<Encoder>(model_, workers_.pool);
  encoder_->encode(frames, n, latents);
}
template void ModelHandle::encode(const std::uint8_t*, std::int64_t, float*, void*);
template void ModelHandle::encode(const float*, std::int64_t, float*, void*);

ModelHandle::Resizer& ModelHandle::resizer(std::int64_t height, std::int64_t width, Fit fit) {
  const bool fits =
      resizer_ && resizer_->fit == fit && resizer_->frames.height() == height && resizer_->frames.width() == width;
  if (!fits) {
    FrameResizer frames(width, height, PixelFormat::rgb, model_->config().image_size, fit);
    auto on_device = device_ ? std::make_unique<DeviceResizer>(device_, frames) : nullptr;
    resizer_ = std::make_unique<Resizer>(Resizer{fit, std::move(frames), std::move(on_device)});
  }
  return *resizer_;
}

void ModelHandle::encode_camera(const std::uint8_t* frames, std::int64_t n, std::int64_t height, std::int64_t width,
                                Fit fit, float* latents, void* stream) {
  const std::lock_guard lock(workers_.mutex);
  Resizer& resize = resizer(height, width, fit);
  if (engine_) return throw_unless_ok(engine_->encode(*resize.on_device, frames, n, latents, stream));
  if (!encoder_) encoder_ = std::make_unique<Encoder>(model_, workers_.pool);
  const std::int64_t size = model_->config().image_size, frame = 3 * size * size;
  resized_.resize(static_cast<std::size_t>(std::min(n, kFramesAtOnce) * frame));
  for (std::int64_t first = 0; first < n; first += kFramesAtOnce) {
    const std::int64_t count = std::min(kFramesAtOnce, n - first);
    for (std::int64_t i = 0; i < count; ++i) {
      resize.frames.run(frames + (first + i) * height * width * 3, static_cast<std::ptrdiff_t>(width * 3),
                        resized_.data() + i * frame);
    }
    encoder_->encode(resized_.data(), count, latents + first * model_->config().latent_dim);
  }
}

void ModelHandle::reserve(std::int64_t problems, std::int64_t horizon) {
  if (rollout_ && problems <= limits_.problems && horizon <= limits_.horizon) return;
  RolloutLimits wanted = limits_;
  wanted.problems = std::max(limits_.problems, problems);
  wanted.horizon = std::max(limits_.horizon, horizon);
  wanted.threads = threads();
  rollout_.reset();  // before the larger one is there
  rollout_ = std::make_unique<Rollout>(model_, wanted);
  limits_ = wanted;
  last_.resize(static_cast<std::size_t>(threads() * rollout_->tile() * model_->config().latent_dim));
}

template <class Tile>
void ModelHandle::for_each_tile(const Candidates& candidates, const Tile& tile) {
  const std::int64_t d = model_->config().latent_dim, a = model_->config().block_dim();
  const std::int64_t context = candidates.context;
  reserve(std::min(candidates.problems, kProblems), candidates.horizon);
  const std::int64_t size =
      candidates_of_task(std::min(kProblems, candidates.problems), candidates.samples, rollout_->tile(), threads());
  const std::int64_t tiles = (candidates.samples + size - 1) / size;
  for (std::int64_t begin = 0; begin < candidates.problems; begin += kProblems) {
    const std::int64_t problems = std::min(kProblems, candidates.problems - begin);
    rollout_->prepare(candidates.latents + begin * context * d,
                      candidates.past ? candidates.past + begin * (context - 1) * a : nullptr, problems, context);
    workers_.pool.run(problems * tiles, [&](std::int64_t task, int thread) {
      const std::int64_t first = task % tiles * size;
      tile(thread, begin, task / tiles, first, std::min(size, candidates.samples - first));
    });
  }
}

void ModelHandle::rollout(const Candidates& candidates, float* latents, void* stream) {
  const std::lock_guard lock(workers_.mutex);
  if (engine_) {
    return throw_unless_ok(engine_->rollout(seen_of(candidates), candidates.actions, candidates.samples,
                                            candidates.horizon, latents, stream));
  }
  const std::int64_t d = model_->config().latent_dim, a = model_->config().block_dim(), h = candidates.horizon;
  for_each_tile(
      candidates, [&](int thread, std::int64_t begin, std::int64_t problem, std::int64_t first, std::int64_t n) {
        const std::int64_t row = (begin + problem) * candidates.samples + first;
        rollout_->run_tile(thread, problem, candidates.actions + row * h * a, n, h, true, latents + row * h * d);
      });
}

void ModelHandle::cost(const Candidates& candidates, const float* goal, float* cost, void* stream) {
  const std::lock_guard lock(workers_.mutex);
  if (engine_) {
    return throw_unless_ok(engine_->cost(seen_of(candidates), goal, candidates.actions, candidates.samples,
                                         candidates.horizon, cost, stream));
  }
  const std::int64_t d = model_->config().latent_dim, a = model_->config().block_dim(), h = candidates.horizon;
  for_each_tile(candidates,
                [&](int thread, std::int64_t begin, std::int64_t problem, std::int64_t first, std::int64_t n) {
                  const std::int64_t row = (begin + problem) * candidates.samples + first;
                  float* last = last_.data() + thread * rollout_->tile() * d;
                  rollout_->run_tile(thread, problem, candidates.actions + row * h * a, n, h, false, last);
                  model_->kernels().squared_distance(last, d, goal + (begin + problem) * d, n, d, cost + row);
                });
}

}  // namespace lewm::python
