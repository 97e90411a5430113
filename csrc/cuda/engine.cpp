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

float* Growing::reserve(std::int64_t count, cudaStream_t stream) {
  if (count > capacity_) {
    synchronise(stream);
    buffer_ = Buffer<float>();
    buffer_ = Buffer<float>(count);
    capacity_ = count;
  }
  return buffer_.get();
}

const float* Growing::input(const float* values, std::int64_t count, cudaStream_t stream) {
  if (on_device(values)) return values;
  float* here = reserve(count, stream);
  copy(here, values, count, stream);
  return here;
}

float* Growing::output(float* values, std::int64_t count, cudaStream_t stream) {
  return on_device(values) ? values : reserve(count, stream);
}

void Growing::deliver(float* values, std::int64_t count, cudaStream_t stream) const {
  if (on_device(values)) return;
  copy<float>(values, buffer_.get(), count, stream);
  synchronise(stream);
}

Engine::Engine(const DeviceModel& model, const Limits& limits) : weights(model.weights), limits_(at_least(limits)) {}

void Engine::encode(const std::uint8_t* bytes, const float* floats, std::int64_t n, float* latents,
                    cudaStream_t stream) {
  if (n == 0) return;
  stream = turn_.begin(stream);
  if (!encoder_) encoder_ = std::make_unique<Encoder>(weights, limits_.frames);
  const std::int64_t count = n * weights.sizes.latent_dim;
  float* out = results_.output(latents, count, stream);
  encoder_->encode(bytes, floats, n, out, stream);
  turn_.end(stream);
  results_.deliver(latents, count, stream);
}

void Engine::prepare(const Seen& seen, std::int64_t horizon, cudaStream_t stream) {
  if (!rollout_ || seen.problems > limits_.problems || horizon > limits_.horizon) {
    synchronise(stream);
    limits_.problems = std::max(limits_.problems, seen.problems);
    limits_.horizon = std::max(limits_.horizon, horizon);
    rollout_.reset();
    rollout_ = std::make_unique<Rollout>(weights, limits_);
  }
  rollout_->prepare(seen, stream);
}

void Engine::rollout(const Seen& seen, const float* actions, std::int64_t samples, std::int64_t horizon, float* latents,
                     cudaStream_t stream) {
  stream = turn_.begin(stream);
  const std::int64_t d = weights.sizes.latent_dim, candidates = seen.problems * samples;
  prepare(seen, horizon, stream);
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
  if (!on_device(latents)) synchronise(stream);
}

void Engine::cost(const Seen& seen, const float* goals, const float* actions, std::int64_t samples,
                  std::int64_t horizon, float* cost, cudaStream_t stream) {
  stream = turn_.begin(stream);
  const std::int64_t d = weights.sizes.latent_dim, candidates = seen.problems * samples;
  prepare(seen, horizon, stream);
  actions = actions_.input(actions, candidates * horizon * weights.sizes.block_dim, stream);
  goals = goals_.input(goals, seen.problems * d, stream);
  float* out = results_.output(cost, candidates, stream);
  rollout_->run(actions, samples, horizon, stream, [&](const Rollout::Tile& tile) {
    launch_squared_distance({static_cast<int>(tile.count), static_cast<int>(d), tile.first, samples, 1.0f, false,
                             tile.latents + (horizon - 1) * tile.count * d, goals, out},
                            stream);
  });
  turn_.end(stream);
  results_.deliver(cost, candidates, stream);
}

}  // namespace lewm::cuda
