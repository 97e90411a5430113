// Numbers and files at the edge: every array is refused by name when it holds a NaN or an infinity, denormal and huge
// numbers are numbers, and an opened model does not depend on its file any more.
#include <atomic>
#include <cfloat>
#include <cmath>
#include <functional>
#include <thread>

#include "capi_session.h"

using namespace capi_test;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::size_t kFrame = 3 * kImage * kImage;

bool all_finite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

}  // namespace

TEST(nan_and_infinity_are_refused_by_name) {
  Session s;
  std::vector<float> out(kHorizon * kLatent);
  for (const float bad : {kNaN, kInfinity, -kInfinity}) {
    std::vector<float> latents = s.latents, actions = s.actions;
    latents[7] = actions[5] = bad;
    lewm_plan_result result = s.result();
    const auto plan = [&](const std::function<void(lewm_plan_request&)>& change) {
      lewm_plan_request request = s.request();
      change(request);
      return lewm_plan(s.planner, &request, &result);
    };
    EXPECT_INVALID(plan([&](auto& r) { r.latents = latents.data(); }), "latents: expected finite numbers");
    EXPECT_INVALID(plan([&](auto& r) { r.goals = latents.data(); }), "goals: expected finite numbers");
    EXPECT_INVALID(plan([&](auto& r) { r.warm_start = actions.data(), r.warm_blocks = 1; }), "warm_start: expected");
    EXPECT_INVALID(plan([&](auto& r) { r.context = 2, r.past_actions = actions.data(); }), "past_actions: expected");

    lewm_history history = sized<lewm_history>();
    history.latents = s.latents.data();
    EXPECT_INVALID(lewm_rollout(s.workspace, &history, actions.data(), 1, 1, out.data()), "actions: expected finite");
    EXPECT_INVALID(lewm_cost(s.workspace, &history, latents.data(), s.actions.data(), 1, 1, out.data()), "goals");
    history.latents = latents.data();
    EXPECT_INVALID(lewm_rollout(s.workspace, &history, s.actions.data(), 1, 1, out.data()), "latents: expected finite");
    const lewm_plan_request request = s.request();
    EXPECT_INVALID(lewm_planner_cost(s.planner, &request, actions.data(), 1, out.data()), "actions: expected finite");
    EXPECT_INVALID(lewm_controller_set_goal_latent(s.controller, latents.data()), "goal: expected finite numbers");
  }
}

// The one float input that is not looked at number by number: a bad frame spoils its own latent, visibly.
TEST(a_frame_with_nan_spoils_its_own_latent) {
  Session s;
  std::vector<float> frames(2 * kFrame, 0.25f), latents(2 * kLatent), clean(2 * kLatent);
  CHECK(lewm_encode_f32(s.workspace, frames.data(), 2, clean.data()) == LEWM_OK);
  frames[kFrame + 11] = kNaN;
  CHECK(lewm_encode_f32(s.workspace, frames.data(), 2, latents.data()) == LEWM_OK);
  for (std::size_t d = 0; d < kLatent; ++d) {
    CHECK(latents[d] == clean[d]);
    CHECK(std::isnan(latents[kLatent + d]));
  }
}

TEST(denormal_numbers_are_zeros_for_all_that_matters) {
  Session s;
  const auto plan_from = [&s](float latent, float action) {
    const std::vector<float> latents(2 * kLatent, latent), warm(kHorizon * kBlock, action);
    lewm_plan_request request = s.request();
    request.latents = latents.data();
    request.goals = latents.data() + kLatent;
    request.warm_start = warm.data();
    request.warm_blocks = kHorizon;
    lewm_plan_result result = s.result();
    CHECK(lewm_plan(s.planner, &request, &result) == LEWM_OK);
    return s.actions;
  };
  const std::vector<float> zero = plan_from(0.0f, 0.0f);
  for (const float denormal : {FLT_TRUE_MIN, -FLT_TRUE_MIN, FLT_MIN / 2}) {
    const std::vector<float> plan = plan_from(denormal, denormal);
    for (std::size_t i = 0; i < plan.size(); ++i) CHECK_NEAR(plan[i], zero[i], 1e-6);
  }
}

// Where numbers are so large that costs overflow, the call says so; it never returns a plan that is not finite.
TEST(huge_numbers_give_a_finite_plan_or_an_error) {
  Session s;
  for (const float huge : {1e10f, 1e20f, FLT_MAX, -FLT_MAX}) {
    for (const bool in_latents : {true, false}) {
      const std::vector<float> latents(kLatent, in_latents ? huge : 0.1f), goal(kLatent, in_latents ? 0.1f : huge);
      lewm_plan_request request = s.request();
      request.latents = latents.data();
      request.goals = goal.data();
      lewm_plan_result result = s.result();
      const lewm_status status = lewm_plan(s.planner, &request, &result);
      CHECK(status == LEWM_OK || status == LEWM_NO_FINITE_COST);
      if (status == LEWM_OK) CHECK(all_finite(s.actions) && std::isfinite(s.cost));
    }
  }
}

TEST(an_opened_model_does_not_need_its_file) {
  const std::string path = model_path() + ".opened";
  std::filesystem::copy_file(model_path(), path);
  lewm_model* model = nullptr;
  CHECK(lewm_model_open(path.c_str(), nullptr, &model) == LEWM_OK);
  std::filesystem::resize_file(path, 100);
  lewm_model* none = nullptr;
  EXPECT_STATUS(lewm_model_open(path.c_str(), nullptr, &none), LEWM_BAD_FILE, path);
  std::remove(path.c_str());

  Session s;
  const lewm_planner_config config = small_config();
  lewm_planner* planner = nullptr;
  CHECK(lewm_planner_create(model, &config, &planner) == LEWM_OK);
  const lewm_plan_request request = s.request();
  lewm_plan_result result = s.result();
  CHECK(lewm_plan(s.planner, &request, &result) == LEWM_OK);
  const std::vector<float> expected = s.actions;
  CHECK(lewm_plan(planner, &request, &result) == LEWM_OK);
  CHECK(s.actions == expected);
  lewm_planner_destroy(planner);
  lewm_model_close(model);
}

// Somebody cuts the file to every length, at any moment, while it is opened again and again: a model or a status, no
// signal and never a model with other weights.
TEST(a_file_that_is_truncated_while_it_is_read_is_refused) {
  const std::string path = model_path() + ".cut";
  const auto size = std::filesystem::file_size(model_path());
  std::atomic<bool> stop{false};
  std::filesystem::copy_file(model_path(), path);
  std::thread other([&] {
    for (std::uintmax_t cut = 0; !stop; cut = (cut + 997) % size) {
      std::filesystem::resize_file(path, cut);
      std::filesystem::copy_file(model_path(), path, std::filesystem::copy_options::overwrite_existing);
    }
  });
  int refused = 0;
  for (int i = 0; i < 300; ++i) {
    lewm_model* model = nullptr;
    const lewm_status status = lewm_model_open(path.c_str(), nullptr, &model);
    CHECK((status == LEWM_OK) == (model != nullptr));
    if (status != LEWM_OK) {
      ++refused;
      CHECK_EQ(status, LEWM_BAD_FILE);
      CHECK(std::string(lewm_last_error()).find(path) != std::string::npos);
    }
    lewm_model_close(model);
  }
  stop = true;
  other.join();
  CHECK(refused > 0);
  std::remove(path.c_str());
}

CHECK_MAIN
