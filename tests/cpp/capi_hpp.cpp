// capi_hpp MODEL: the C++17 header against the shared library.
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <thread>

#include "check.h"
#include "forked_child.h"
#include "lewm/lewm.hpp"

namespace {

std::string path;

std::vector<std::uint8_t> frame(const lewm::Model& model, unsigned seed) {
  std::vector<std::uint8_t> pixels(model.frame_size());
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>((i * 31 + seed * 101) % 253);
  return pixels;
}

lewm_planner_config small_config() {
  lewm_planner_config config = lewm::planner_config(LEWM_ICEM);
  config.samples = 32;
  config.elites = 4;
  config.iterations = 3;
  config.threads.count = 1;
  return config;
}

}  // namespace

TEST(versions_fit) { lewm::check_version(); }

TEST(a_plan_costs_what_the_workspace_says) {
  const lewm::Model model(path, LEWM_PRECISION_FP32);
  lewm::Workspace workspace(model);
  const std::vector<std::uint8_t> start = frame(model, 1), goal = frame(model, 2);
  const std::vector<float> z = workspace.encode(start), g = workspace.encode(goal);
  lewm::Planner planner(model, small_config());
  const lewm::Plan from_frames = planner.plan(start, goal);
  const lewm::Plan& from_latents = planner.plan_latents(z, g);
  CHECK(from_frames.actions == from_latents.actions);
  CHECK_EQ(from_frames.iterations, 3);
  const std::vector<float> cost = workspace.cost(z, {}, g, from_frames.actions, 1, 5);
  CHECK_EQ(cost[0], from_frames.cost);
  const std::vector<float> latents = workspace.rollout(z, {}, from_frames.actions, 1, 5);
  double distance = 0;
  for (std::size_t d = 0; d < g.size(); ++d) distance += std::pow(latents[4 * g.size() + d] - g[d], 2);
  CHECK_NEAR(cost[0], distance, 1e-4 * distance);
}

TEST(pixels_and_normalised_frames_have_one_latent) {
  const lewm::Model model(path, LEWM_PRECISION_FP32);
  lewm::Workspace workspace(model);
  const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
  const std::vector<std::uint8_t> pixels = frame(model, 3);
  std::vector<float> normalised(pixels.size());
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    const std::size_t channel = i % 3;
    normalised[channel * (pixels.size() / 3) + i / 3] =
        (static_cast<float>(pixels[i]) / 255 - mean[channel]) / std[channel];
  }
  const std::vector<float> a = workspace.encode(pixels), b = workspace.encode(normalised);
  for (std::size_t d = 0; d < a.size(); ++d) CHECK_NEAR(a[d], b[d], 1e-4);
  const lewm::Scaling scaling = model.action_scaling();
  CHECK_EQ(scaling.mean.size(), 2u);
  CHECK(scaling.std[0] > 0 && scaling.std[1] > 0);
}

TEST(failures_are_exceptions_with_status_and_message) {
  CHECK_THROWS(lewm::Model("/no/such/file"), lewm::Error, "/no/such/file");
  try {
    lewm::Model missing("/no/such/file");
  } catch (const lewm::Error& error) {
    CHECK_EQ(error.status(), LEWM_FILE_NOT_FOUND);
  }
  const lewm::Model model(path);
  lewm_planner_config config = small_config();
  config.samples = 0;
  CHECK_THROWS(lewm::Planner(model, config), lewm::Error, "samples: expected at least 1, got 0");
  config = lewm::planner_config();
  config.horizon = -1;
  CHECK_THROWS(lewm::Planner(model, config), lewm::Error, "horizon: expected at least 1, got -1");
  CHECK_THROWS(lewm::BackgroundPlanner(model, config), lewm::Error, "horizon: expected at least 1, got -1");
  lewm::Planner planner(model, small_config());
  const std::vector<float> short_latent(3);
  CHECK_THROWS(planner.plan_latents(short_latent, short_latent), lewm::Error, "latents: expected 24 elements, got 3");
  CHECK_THROWS(planner.plan(std::vector<std::uint8_t>(7), frame(model, 1)), lewm::Error, "frames: expected 1200");
  const std::vector<float> part(5);
  lewm::PlanOptions options;
  options.warm_start = part;
  CHECK_THROWS(planner.plan(frame(model, 1), frame(model, 1), options), lewm::Error,
               "warm_start: expected a multiple of 6 elements, got 5");
}

TEST(background_plans_equal_foreground_plans) {
  const lewm::Model model(path);
  lewm::Planner planner(model, small_config());
  lewm::BackgroundPlanner background(model, small_config());
  CHECK_EQ(background.latest(), std::uint64_t{0});
  const std::vector<std::uint8_t> start = frame(model, 1), goal = frame(model, 2);
  std::vector<float> warm;
  for (std::uint32_t i = 0; i < 5; ++i) {
    const std::uint64_t ticket = background.submit(start, goal, warm, i);
    while (background.latest() != ticket) {
    }
    lewm::PlanOptions options;
    options.warm_start = warm;
    options.plan_index = i;
    const lewm::Plan& expected = planner.plan(start, goal, options);
    CHECK(background.plan().actions == expected.actions);
    CHECK_EQ(background.plan().cost, expected.cost);
    warm = expected.actions;
  }
}

#if defined(CHECK_FORKS)
TEST(a_forked_child_destroys_a_background_planner_and_joins_its_own_threads) {
  const lewm::Model model(path);
  lewm_planner_config config = small_config();
  config.threads.count = 3;
  auto background = std::make_unique<lewm::BackgroundPlanner>(model, config);
  const std::uint64_t ticket = background->submit(frame(model, 1), frame(model, 2), {}, 0);
  while (background->latest() != ticket) {
  }
  CHECK(forked_child_returns_true([&] {
    std::vector<std::thread> own;  // their handles are, with glibc, those that threads of the parent had
    for (int i = 0; i < 3; ++i) {
      own.emplace_back([] { std::this_thread::sleep_for(std::chrono::milliseconds(50)); });
    }
    background.reset();
    for (std::thread& thread : own) thread.join();
    return true;
  }));
}
#endif

TEST(controller_reads_camera_frames_of_any_format) {
  const lewm::Model model(path);
  lewm::Planner planner(model, small_config()), other_planner(model, small_config());
  constexpr std::int64_t kWidth = 48, kHeight = 36;
  constexpr std::ptrdiff_t kStride = 4 * kWidth + 20;  // bytes, padded rows
  std::vector<std::uint8_t> camera(kStride * kHeight), goal(kStride * kHeight);
  for (std::size_t i = 0; i < camera.size(); ++i) {
    camera[i] = static_cast<std::uint8_t>(i * 7 % 255);
    goal[i] = static_cast<std::uint8_t>(i * 13 % 241);
  }
  lewm_controller_config config = lewm::controller_config();
  config.frame_width = kWidth;
  config.frame_height = kHeight;
  config.frame_format = LEWM_BGRA;
  config.frame_fit = LEWM_LETTERBOX;
  const std::array<float, 2> low{9.0f, -3.5f}, high{11.0f, -2.5f};
  config.low = low.data();
  config.high = high.data();
  lewm::Controller direct(planner, config);
  direct.set_goal(goal.data(), kStride);

  lewm::Resizer resizer(model, kWidth, kHeight, LEWM_BGRA, LEWM_LETTERBOX);
  lewm_controller_config plain = lewm::controller_config();
  plain.low = low.data();
  plain.high = high.data();
  lewm::Controller resized(other_planner, plain);
  resized.set_goal(resizer(goal.data(), kStride).data());
  for (int step = 0; step < 20; ++step) {
    const lewm::Span<const float> a = direct.act(camera.data(), kStride);
    const lewm::Span<const float> b = resized.act(resizer(camera.data(), kStride).data());
    CHECK(std::memcmp(a.data(), b.data(), 2 * sizeof(float)) == 0);
    for (std::size_t d = 0; d < 2; ++d) CHECK(a[d] >= low[d] && a[d] <= high[d]);
  }
  CHECK_EQ(direct.info().plans, 2);
}

TEST(objects_outlive_what_they_were_made_from) {
  auto model = std::make_unique<lewm::Model>(path);
  auto planner = std::make_unique<lewm::Planner>(*model, small_config());
  lewm::Controller controller(*planner);
  const std::vector<std::uint8_t> start = frame(*model, 1);
  model.reset();
  planner.reset();
  controller.set_goal(start.data());
  CHECK(std::isfinite(controller.act(start.data())[0]));
}

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  path = argv[1];
  return check::main(argc - 1, argv + 1);
}
