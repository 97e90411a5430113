// Encoder, rollout and cost of the CUDA engine on the host run, against the CPU's bf16 kernels with the same weights.
#include "cuda/runtime.h"
#include "engine_support.h"
#include "plan/workspace.h"

using namespace engine_test;
using lewm::Status;
namespace cuda = lewm::cuda;

namespace {

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

std::vector<float> normalised_frames(const lewm::Config& config, std::size_t n) {
  return model_test::random_floats(n * size(3 * config.image_size * config.image_size), 9);
}

void check_encoder(const lewm::Config& config, std::int64_t n, std::int64_t at_once) {
  const Fixture f(config);
  lewm::Workspace cpu(f.model, {}, std::make_shared<lewm::ThreadPool>(1));
  cuda::Limits limits;
  limits.frames = at_once;
  lewm::DeviceEngine engine(f.device, limits);
  std::vector<float> expected(size(n) * f.d()), got(expected.size());
  const auto bytes = model_test::random_frames(config, size(n), 3);
  CHECK(cpu.encode(bytes.data(), n, expected.data()) == Status::ok);
  CHECK(engine.encode(bytes.data(), n, got.data()) == Status::ok);
  check_rows(got, expected, f.d(), "encode, bytes");
  const auto floats = normalised_frames(config, size(n));
  CHECK(cpu.encode(floats.data(), n, expected.data()) == Status::ok);
  CHECK(engine.encode(floats.data(), n, got.data()) == Status::ok);
  check_rows(got, expected, f.d(), "encode, floats");
}

void check_rollout(const lewm::Config& config, std::int64_t problems, std::int64_t context, std::int64_t samples,
                   std::int64_t horizon, std::int64_t tile) {
  const Fixture f(config);
  lewm::Workspace cpu(f.model, {problems, horizon}, std::make_shared<lewm::ThreadPool>(1));
  cuda::Limits limits;
  limits.problems = 1;  // grows
  limits.tile = tile;
  lewm::DeviceEngine engine(f.device, limits);
  const auto actions = model_test::random_floats(size(problems * samples * horizon) * f.a(), 4);
  const lewm::History history{problems, context, f.latents.data(), f.past.data()};
  const cuda::Seen seen{problems, context, f.latents.data(), f.past.data()};
  std::vector<float> expected(size(problems * samples * horizon) * f.d()), got(expected.size());
  CHECK(cpu.rollout(history, actions.data(), samples, horizon, expected.data()) == Status::ok);
  CHECK(engine.rollout(seen, actions.data(), samples, horizon, got.data()) == Status::ok);
  check_rows(got, expected, f.d(), "rollout");
  std::vector<float> expected_cost(size(problems * samples)), cost(expected_cost.size());
  CHECK(cpu.cost(history, f.goals.data(), actions.data(), samples, horizon, expected_cost.data()) == Status::ok);
  CHECK(engine.cost(seen, f.goals.data(), actions.data(), samples, horizon, cost.data()) == Status::ok);
  for (std::size_t i = 0; i < cost.size(); ++i) CHECK_NEAR(cost[i], expected_cost[i], 0.01 * expected_cost[i]);
}

}  // namespace

TEST(encoder_matches_the_cpu) {
  schedule() = {};
  check_encoder(device_config(), 3, 2);
  check_encoder(headless_config(), 1, 4);
  lewm::Config ragged = device_config();  // heads of 9 and rows of 27: neither is a multiple of 16 bytes
  ragged.encoder_dim = 27;
  check_encoder(ragged, 2, 2);
}

TEST(rollout_and_cost_match_the_cpu) {
  for (const auto order : {Order::forward, Order::shuffled}) {
    schedule() = {order, order, 3};
    check_rollout(device_config(), 2, 1, 5, 5, 3);  // tiles across problems, the window slides
  }
  check_rollout(device_config(), 2, 3, 3, 2, 0);      // a full history of context
  check_rollout(projecting_config(), 2, 2, 2, 4, 0);  // every projection that a predictor may have
  check_rollout(headless_config(), 1, 1, 1, 1, 0);
}

// Two calls on two streams of the caller, all arrays on the device, so that nothing waits: the engine's memory is used
// by one at a time.
TEST(calls_on_different_streams_take_turns) {
  const Fixture f(device_config());
  lewm::DeviceEngine engine(f.device, {});
  const cuda::Stream setup;
  const auto on_device = [&](const auto& values, std::size_t count) {
    cuda::Buffer<float> buffer(static_cast<std::int64_t>(count));
    cuda::copy<float>(buffer.get(), values.data(), static_cast<std::int64_t>(count), setup);
    cuda::synchronise(setup);
    return buffer;
  };
  const auto first = on_device(model_test::random_floats(f.a() * 2, 4), f.a() * 2);
  const auto second = on_device(model_test::random_floats(f.a() * 2, 5), f.a() * 2);
  const auto latents = on_device(f.latents, f.d());
  const cuda::Seen seen{1, 1, latents.get(), nullptr};
  std::vector<float> expected(2 * f.d()), got(2 * f.d());
  for (const auto order : {Order::forward, Order::backward, Order::shuffled}) {
    schedule() = {};
    CHECK(engine.rollout(seen, first.get(), 1, 2, expected.data()) == Status::ok);
    schedule() = {order, order, 8};
    const cuda::Stream one, other;
    const cuda::Buffer<float> out(2 * static_cast<std::int64_t>(f.d())), ignored(2 * static_cast<std::int64_t>(f.d()));
    CHECK(engine.rollout(seen, first.get(), 1, 2, out.get(), one) == Status::ok);
    CHECK(engine.rollout(seen, second.get(), 1, 2, ignored.get(), other) == Status::ok);
    cuda::copy<float>(got.data(), out.get(), static_cast<std::int64_t>(got.size()), one);
    cuda::synchronise(other);
    cuda::synchronise(one);
    CHECK(model_test::same_bytes(got, expected));
  }
  schedule() = {};
}

TEST(sizes_and_memory_that_the_device_lacks_are_named) {
  lewm::Config config = device_config();
  config.encoder_heads = 1;
  config.encoder_dim = 136;
  CHECK_THROWS(Fixture(config), lewm::Error, "encoder_dim / encoder_heads: expected at most 128 on cuda, got 136");
  cuda::host::device().capability = 7;
  CHECK_THROWS(Fixture(device_config()), lewm::Error,
               "device: expected a GPU of compute capability 8.0 (Ampere) or newer, got 7.0");
  cuda::host::device() = {};
  const Fixture f(device_config());
  cuda::host::device().most_bytes = 1000;
  lewm::DeviceEngine engine(f.device, {});
  std::vector<float> latents(f.d());
  const auto frames = model_test::random_frames(f.config, 1, 3);
  CHECK(engine.encode(frames.data(), 1, latents.data()) == Status::out_of_memory);
  CHECK(std::string(engine.message()).find("device memory") != std::string::npos);
  cuda::host::device() = {};
  CHECK(engine.encode(frames.data(), 1, latents.data()) == Status::ok);  // the error is not left behind
}

TEST(devices_are_counted) {
  cuda::Message message{};
  std::int32_t count = -1;
  CHECK(lewm_cuda_table()->devices(&count, &message) == 0 && count == 1);
  cuda::host::device().count = 0;
  CHECK(lewm_cuda_table()->devices(&count, &message) == 0 && count == 0);
  cuda::host::device() = {};
}

CHECK_MAIN
