#include "cuda/engine.h"

#include <algorithm>

#include "cuda/search.cuh"

namespace lewm::cuda {
namespace {

Limits at_least(Limits limits) {
  limits.problems = std::max<std::int64_t>(limits.problems, 1);
  limits.horizon = std::max<std::int64_t>(limits.horizon, 1);
  limits.frames = std::max<std::int64_t>(limits.frames, 1);
  return limits;
}

}  // namespace

DeviceResizer::DeviceResizer(const DeviceModel& model, const HostResizer& resizer) : device(model.weights.device) {
  const Stream stream;
  arguments_.width = resizer.width;
  arguments_.height = resizer.height;
  arguments_.channels = resizer.channels;
  arguments_.reversed = resizer.reversed;
  arguments_.size = model.weights.sizes.image_size;
  arguments_.left = resizer.left;
  arguments_.top = resizer.top;
  arguments_.inner_width = resizer.inner_width;
  arguments_.inner_height = resizer.inner_height;
  arguments_.horizontal = upload(resizer.horizontal, resizer.inner_width, stream);
  arguments_.vertical = upload(resizer.vertical, resizer.inner_height, stream);
  synchronise(stream);
}

ResizeFilter DeviceResizer::upload(const HostFilter& filter, std::int64_t size, const Stream& stream) {
  const auto& first = integers_.emplace_back(size);
  copy(first.get(), filter.first, size, stream);
  ResizeFilter out{filter.taps, first.get(), nullptr, nullptr};
  const auto& count = integers_.emplace_back(size);
  copy(count.get(), filter.count, size, stream);
  out.count = count.get();
  const auto& weight = floats_.emplace_back(size * filter.taps);
  copy(weight.get(), filter.weight, size * filter.taps, stream);
  out.weight = weight.get();
  return out;
}

Engine::Engine(const DeviceModel& model, const Limits& limits)
    : weights(model.weights),
      limits_(at_least(limits)),
      turn_(weights.device),
      actions_(weights.device),
      goals_(weights.device),
      results_(weights.device) {}

void Engine::encode(const Frames& frames, std::int64_t n, float* latents, cudaStream_t stream) {
  if (n == 0) return;
  stream = turn_.begin(stream, {frames.data(), latents});
  if (!encoder_) encoder_ = std::make_unique<Encoder>(weights, limits_.frames);
  const std::int64_t count = n * weights.sizes.latent_dim;
  encoder_->encode(frames, n, results_.output(latents, count, stream), stream);
  results_.deliver(latents, count, stream);
  turn_.end(stream);
}

void Engine::prepare(const Seen& seen, std::int64_t samples, std::int64_t horizon, cudaStream_t stream) {
  const std::int64_t candidates = seen.problems * samples;
  if (!rollout_ || seen.problems > limits_.problems || horizon > limits_.horizon ||
      Rollout::tile_for(weights, limits_, candidates) > rollout_->tile()) {
    synchronise(stream);
    Limits wanted = limits_;
    wanted.problems = std::max(limits_.problems, seen.problems);
    wanted.horizon = std::max(limits_.horizon, horizon);
    rollout_.reset();  // before the larger one is there
    rollout_ = std::make_unique<Rollout>(weights, wanted, candidates);
    limits_ = wanted;
  }
  rollout_->prepare(seen, stream);
}

void Engine::rollout(const Seen& seen, const float* actions, std::int64_t samples, std::int64_t horizon, float* latents,
                     cudaStream_t stream) {
  stream = turn_.begin(stream, {seen.latents, seen.past_actions, actions, latents});
  const std::int64_t d = weights.sizes.latent_dim, candidates = seen.problems * samples;
  prepare(seen, samples, horizon, stream);
  actions = actions_.input(actions, candidates * horizon * weights.sizes.block_dim, stream);
  const std::size_t row = static_cast<std::size_t>(d) * sizeof(float);
  rollout_->run(actions, samples, horizon, stream, [&](const Rollout::Tile& tile) {
    for (std::int64_t step = 0; step < horizon; ++step) {  // [H, count, D] -> [count, H, D]
      check(cudaMemcpy2DAsync(latents + (tile.first * horizon + step) * d, static_cast<std::size_t>(horizon) * row,
                              tile.latents + step * tile.count * d, row, row, static_cast<std::size_t>(tile.count),
                              cudaMemcpyDefault, stream),
            "cudaMemcpy2DAsync");
    }
  });
  turn_.end(stream);
}

void Engine::cost(const Seen& seen, const float* goals, const float* actions, std::int64_t samples,
                  std::int64_t horizon, float* cost, cudaStream_t stream) {
  stream = turn_.begin(stream, {seen.latents, seen.past_actions, goals, actions, cost});
  const std::int64_t d = weights.sizes.latent_dim, candidates = seen.problems * samples;
  prepare(seen, samples, horizon, stream);
  actions = actions_.input(actions, candidates * horizon * weights.sizes.block_dim, stream);
  goals = goals_.input(goals, seen.problems * d, stream);
  float* out = results_.output(cost, candidates, stream);
  rollout_->run(actions, samples, horizon, stream, [&](const Rollout::Tile& tile) {
    launch_squared_distance({static_cast<int>(tile.count), static_cast<int>(d), tile.first, samples, 1.0f, false,
                             tile.latents + (horizon - 1) * tile.count * d, goals, out},
                            stream);
  });
  results_.deliver(cost, candidates, stream);
  turn_.end(stream);
}

}  // namespace lewm::cuda
