// The C interface's promises: every bad argument is a status and a message that names it; nothing leaks when memory
// runs out; nothing allocates once it is created; errors are per thread; handles in different threads do not meet.
#include <cmath>
#include <functional>
#include <thread>

#include "capi_session.h"
#include "failing_allocations.h"

using namespace capi_test;

TEST(every_null_is_refused_by_name) {
  Session s;
  CHECK(s.complete);
  lewm_model* model = nullptr;
  lewm_model_info info = sized<lewm_model_info>();
  lewm_history history = sized<lewm_history>();
  lewm_planner_config config = small_config();
  lewm_plan_request request = s.request();
  lewm_plan_result result = s.result();
  lewm_controller_info state = sized<lewm_controller_info>();
  std::uint64_t ticket = 0;
  float* const f = s.actions.data();
  std::uint8_t* const pixels = s.frames.data();

  EXPECT_INVALID(lewm_model_open(nullptr, nullptr, &model), "path");
  EXPECT_INVALID(lewm_model_open("x", nullptr, nullptr), "model");
  EXPECT_INVALID(lewm_model_get_info(nullptr, &info), "model");
  EXPECT_INVALID(lewm_model_get_info(s.model, nullptr), "info");
  EXPECT_INVALID(lewm_model_get_action_scaling(nullptr, f, f), "model");
  EXPECT_INVALID(lewm_model_get_action_scaling(s.model, nullptr, f), "mean");
  EXPECT_INVALID(lewm_model_get_action_scaling(s.model, f, nullptr), "std");
  EXPECT_INVALID(lewm_workspace_create(nullptr, nullptr, &s.workspace), "model");
  EXPECT_INVALID(lewm_workspace_create(s.model, nullptr, nullptr), "workspace");
  EXPECT_INVALID(lewm_encode_u8(nullptr, pixels, 1, f), "workspace");
  EXPECT_INVALID(lewm_encode_u8(s.workspace, nullptr, 1, f), "frames");
  EXPECT_INVALID(lewm_encode_u8(s.workspace, pixels, 1, nullptr), "latents");
  EXPECT_INVALID(lewm_encode_f32(s.workspace, nullptr, 1, f), "frames");
  EXPECT_INVALID(lewm_rollout(nullptr, &history, f, 1, 1, f), "workspace");
  EXPECT_INVALID(lewm_rollout(s.workspace, nullptr, f, 1, 1, f), "history");
  EXPECT_INVALID(lewm_rollout(s.workspace, &history, f, 1, 1, f), "latents");
  history.latents = s.latents.data();
  EXPECT_INVALID(lewm_rollout(s.workspace, &history, nullptr, 1, 1, f), "actions");
  EXPECT_INVALID(lewm_rollout(s.workspace, &history, f, 1, 1, nullptr), "latents: expected");
  EXPECT_INVALID(lewm_cost(s.workspace, &history, nullptr, f, 1, 1, f), "goals");
  EXPECT_INVALID(lewm_cost(s.workspace, &history, s.latents.data(), f, 1, 1, nullptr), "cost");
  EXPECT_INVALID(lewm_resizer_create(nullptr, 1, 1, LEWM_RGB, LEWM_CROP, &s.resizer), "model");
  EXPECT_INVALID(lewm_resizer_create(s.model, 1, 1, LEWM_RGB, LEWM_CROP, nullptr), "resizer");
  EXPECT_INVALID(lewm_resize(nullptr, pixels, 0, pixels), "resizer");
  EXPECT_INVALID(lewm_resize(s.resizer, nullptr, 0, pixels), "source");
  EXPECT_INVALID(lewm_resize(s.resizer, pixels, 0, nullptr), "target");
  EXPECT_INVALID(lewm_planner_config_init(nullptr, sizeof config, LEWM_CEM), "config");
  EXPECT_INVALID(lewm_planner_create(nullptr, &config, &s.planner), "model");
  EXPECT_INVALID(lewm_planner_create(s.model, &config, nullptr), "planner");
  lewm_planner* none = nullptr;
  EXPECT_INVALID(lewm_planner_create(s.model, nullptr, &none), "config");
  EXPECT_INVALID(lewm_plan(nullptr, &request, &result), "planner");
  EXPECT_INVALID(lewm_plan(s.planner, nullptr, &result), "request");
  EXPECT_INVALID(lewm_plan(s.planner, &request, nullptr), "result");
  EXPECT_INVALID(lewm_plan_frames(s.planner, nullptr, pixels, &request, &result), "frames");
  EXPECT_INVALID(lewm_plan_frames(s.planner, pixels, nullptr, &request, &result), "goals");
  EXPECT_INVALID(lewm_planner_cost(nullptr, &request, f, 1, f), "planner");
  EXPECT_INVALID(lewm_planner_cost(s.planner, &request, nullptr, 1, f), "actions");
  EXPECT_INVALID(lewm_planner_cost(s.planner, &request, f, 1, nullptr), "cost");
  lewm_background* nothing = nullptr;
  EXPECT_INVALID(lewm_background_create(nullptr, &config, &nothing), "model");
  EXPECT_INVALID(lewm_background_create(s.model, nullptr, &nothing), "config");
  EXPECT_INVALID(lewm_background_create(s.model, &config, nullptr), "background");
  EXPECT_INVALID(lewm_plan_async(nullptr, &request, &ticket), "background");
  EXPECT_INVALID(lewm_plan_async(s.background, nullptr, &ticket), "request");
  EXPECT_INVALID(lewm_plan_async_frames(s.background, nullptr, pixels, &request, &ticket), "frames");
  EXPECT_INVALID(lewm_plan_async_frames(s.background, pixels, nullptr, &request, &ticket), "goals");
  EXPECT_INVALID(lewm_latest(nullptr, &result, &ticket), "background");
  EXPECT_INVALID(lewm_latest(s.background, nullptr, &ticket), "result");
  EXPECT_INVALID(lewm_latest(s.background, &result, nullptr), "ticket");
  lewm_controller* no_controller = nullptr;
  EXPECT_INVALID(lewm_controller_create(nullptr, nullptr, &no_controller), "planner");
  EXPECT_INVALID(lewm_controller_create(s.planner, nullptr, nullptr), "controller");
  EXPECT_INVALID(lewm_controller_reset(nullptr), "controller");
  EXPECT_INVALID(lewm_controller_set_goal(nullptr, pixels, 0), "controller");
  EXPECT_INVALID(lewm_controller_set_goal(s.controller, nullptr, 0), "goal");
  EXPECT_INVALID(lewm_controller_set_goal_latent(s.controller, nullptr), "goal");
  EXPECT_INVALID(lewm_controller_act(nullptr, pixels, 0, f), "controller");
  EXPECT_INVALID(lewm_controller_act(s.controller, pixels, 0, nullptr), "action");
  CHECK(lewm_controller_set_goal(s.controller, pixels, 0) == LEWM_OK);
  EXPECT_INVALID(lewm_controller_act(s.controller, nullptr, 0, f), "frame");
  EXPECT_INVALID(lewm_controller_get_info(nullptr, &state), "controller");
  EXPECT_INVALID(lewm_controller_get_info(s.controller, nullptr), "info");
  lewm_model_close(nullptr);
  lewm_workspace_destroy(nullptr);
  lewm_resizer_destroy(nullptr);
  lewm_planner_destroy(nullptr);
  lewm_background_destroy(nullptr);
  lewm_controller_destroy(nullptr);
}

TEST(sizes_and_numbers_out_of_range_are_refused_by_name) {
  Session s;
  lewm_plan_result result = s.result();
  const auto plan = [&](const std::function<void(lewm_plan_request&)>& change) {
    lewm_plan_request request = s.request();
    change(request);
    return lewm_plan(s.planner, &request, &result);
  };
  std::vector<float> bad(200, 0.0f);
  bad[3] = kNaN;
  EXPECT_INVALID(plan([](auto& r) { r.struct_size = 8; }), "request.struct_size: expected");
  EXPECT_INVALID(plan([](auto& r) { r.struct_size = 1u << 20; }), "request.struct_size: expected");
  EXPECT_INVALID(plan([](auto& r) { r.problems = 2; }), "problems: expected 1..1, got 2");
  EXPECT_INVALID(plan([](auto& r) { r.context = -1; }), "context: expected 1..3, got -1");
  EXPECT_INVALID(plan([](auto& r) { r.context = 2; }), "past_actions: expected an array, got null");
  EXPECT_INVALID(plan([&](auto& r) { r.latents = bad.data(); }),
                 "latents: expected finite numbers, got nan at element 3");
  EXPECT_INVALID(plan([&](auto& r) { r.goals = bad.data(); }), "goals: expected finite numbers");
  EXPECT_INVALID(plan([](auto& r) { r.deadline = -1; }), "request.deadline: expected at least 0");
  EXPECT_INVALID(plan([](auto& r) { r.deadline = std::nan(""); }), "request.deadline: expected at least 0");
  result.cost = nullptr;
  EXPECT_INVALID(plan([](auto&) {}), "result.cost");

  const auto create = [&](const std::function<void(lewm_planner_config&)>& change) {
    lewm_planner_config config = small_config();
    change(config);
    lewm_planner* planner = nullptr;
    const lewm_status status = lewm_planner_create(s.model, &config, &planner);
    CHECK((status == LEWM_OK) == (planner != nullptr));
    lewm_planner_destroy(planner);
    return status;
  };
  const float bound[] = {0, 0, 0};
  CHECK(create([](auto&) {}) == LEWM_OK);
  EXPECT_INVALID(create([](auto& c) { c.samples = 0; }), "samples: expected at least 1, got 0");
  EXPECT_INVALID(create([](auto& c) { c.elites = 17; }), "elites: expected at most samples (16), got 17");
  EXPECT_INVALID(create([](auto& c) { c.method = static_cast<lewm_method>(7); }), "method");
  EXPECT_INVALID(create([](auto& c) { c.cost_mode = static_cast<lewm_cost_mode>(7); }), "cost_mode");
  EXPECT_INVALID(create([](auto& c) { c.std_init = kNaN; }), "std_init");
  EXPECT_INVALID(create([](auto& c) { c.threads.count = -1; }), "threads: expected 0..");
  EXPECT_INVALID(create([](auto& c) { c.threads.priority = 100; }), "priority: expected 0..99, got 100");
  EXPECT_STATUS(create([](auto& c) { c.threads.cpu_mask = 1ull << 63; }), LEWM_UNSUPPORTED, "cpu_mask");
  EXPECT_INVALID(create([&](auto& c) { c.low = bound; }), "bound_dim");
  EXPECT_INVALID(create([&](auto& c) { c.low = bound, c.bound_dim = 3; }), "low: expected no, 2 or 6 entries, got 3");
  CHECK(create([](auto& c) { c.threads.cpu_mask = 1, c.threads.count = 0; }) == LEWM_OK);

  const auto control = [&](const std::function<void(lewm_controller_config&)>& change) {
    lewm_controller_config config = sized<lewm_controller_config>();
    change(config);
    lewm_controller* controller = nullptr;
    const lewm_status status = lewm_controller_create(s.planner, &config, &controller);
    lewm_controller_destroy(controller);
    return status;
  };
  const float nan_bound[] = {0, kNaN};
  CHECK(control([](auto&) {}) == LEWM_OK);
  EXPECT_INVALID(control([](auto& c) { c.replan_every = 6; }), "replan_every: expected 0..5, got 6");
  EXPECT_INVALID(control([](auto& c) { c.context = 4; }), "context: expected 1..3, got 4");
  EXPECT_INVALID(control([](auto& c) { c.deadline = -1; }), "deadline");
  EXPECT_INVALID(control([&](auto& c) { c.high = nan_bound; }), "high");
  EXPECT_INVALID(control([](auto& c) { c.frame_width = 10; }), "height: expected 1..");
  EXPECT_INVALID(control([](auto& c) { c.frame_height = 10; }), "width: expected 1..");
  EXPECT_INVALID(control([](auto& c) { c.frame_fit = static_cast<lewm_fit>(3); }), "fit: expected a lewm_fit, got 3");
  EXPECT_INVALID(control([](auto& c) { c.frame_width = c.frame_height = 10, c.frame_fit = static_cast<lewm_fit>(3); }),
                 "fit");
  EXPECT_INVALID(control([](auto& c) {
                   c.frame_width = c.frame_height = 10, c.frame_format = static_cast<lewm_pixel_format>(-1);
                 }),
                 "format");

  lewm_resizer* resizer = nullptr;
  EXPECT_INVALID(lewm_resizer_create(s.model, 0, 4, LEWM_RGB, LEWM_CROP, &resizer), "width");
  EXPECT_INVALID(lewm_resize(s.resizer, s.frames.data(), 95, s.frames.data()), "row_stride: expected 0 or at least 96");
  lewm_workspace* workspace = nullptr;
  lewm_workspace_config limits = sized<lewm_workspace_config>();
  limits.horizon = -2;
  EXPECT_INVALID(lewm_workspace_create(s.model, &limits, &workspace), "horizon");
  EXPECT_INVALID(lewm_encode_u8(s.workspace, s.frames.data(), -1, s.latents.data()), "n: expected");
  lewm_model* model = nullptr;
  lewm_model_config config = sized<lewm_model_config>();
  config.precision = static_cast<lewm_precision>(9);
  EXPECT_INVALID(lewm_model_open(model_path().c_str(), &config, &model), "precision");
  config.precision = LEWM_PRECISION_AUTO;
  config.encoder_precision = static_cast<lewm_precision>(9);
  EXPECT_INVALID(lewm_model_open(model_path().c_str(), &config, &model), "encoder_precision");
}

TEST(structs_of_later_versions_are_read_unless_they_ask_for_more) {
  Session s;
  struct Later {
    lewm_plan_request request;
    std::uint64_t added = 0;
  } later{s.request()};
  later.request.struct_size = sizeof later;
  lewm_plan_result result = s.result();
  CHECK(lewm_plan(s.planner, &later.request, &result) == LEWM_OK);
  later.added = 1;
  EXPECT_STATUS(lewm_plan(s.planner, &later.request, &result), LEWM_UNSUPPORTED, "fields that this version");
}

TEST(files_that_are_missing_or_broken_are_told_apart) {
  lewm_model* model = nullptr;
  EXPECT_STATUS(lewm_model_open("/no/such/file", nullptr, &model), LEWM_FILE_NOT_FOUND, "/no/such/file");
  const std::string path = model_path() + ".broken";
  std::ofstream(path) << "not a model";
  EXPECT_STATUS(lewm_model_open(path.c_str(), nullptr, &model), LEWM_BAD_FILE, path);
  std::remove(path.c_str());
  CHECK(model == nullptr);
  // A message that does not fit still begins with the path and ends with the reason.
  const std::string endless = "/" + std::string(6000, 'a');
  EXPECT_STATUS(lewm_model_open(endless.c_str(), nullptr, &model), LEWM_BAD_FILE, "/aaaa");
  EXPECT_STATUS(lewm_model_open(endless.c_str(), nullptr, &model), LEWM_BAD_FILE, "aaaa: File name too long");
}

// No part of what frames look like is ignored: a format without a size is of the model's size.
TEST(a_controller_reads_frames_as_they_are_described) {
  Session s;
  constexpr std::size_t kFrame = 3 * kImage * kImage;
  std::vector<std::uint8_t> rgb(2 * kFrame), bgr(2 * kFrame);
  for (std::size_t i = 0; i < rgb.size(); ++i) rgb[i] = static_cast<std::uint8_t>(i * 29 % 251);
  for (std::size_t i = 0; i < rgb.size(); i += 3) {
    bgr[i] = rgb[i + 2];
    bgr[i + 1] = rgb[i + 1];
    bgr[i + 2] = rgb[i];
  }
  const auto actions = [&s](const std::vector<std::uint8_t>& frames, lewm_pixel_format format) {
    lewm_controller_config config = sized<lewm_controller_config>();
    config.frame_format = format;
    lewm_controller* controller = nullptr;
    CHECK(lewm_controller_create(s.planner, &config, &controller) == LEWM_OK);
    CHECK(lewm_controller_set_goal(controller, frames.data() + kFrame, 0) == LEWM_OK);
    std::vector<float> action(2);
    CHECK(lewm_controller_act(controller, frames.data(), 0, action.data()) == LEWM_OK);
    lewm_controller_destroy(controller);
    return action;
  };
  const std::vector<float> expected = actions(rgb, LEWM_RGB);
  CHECK(actions(bgr, LEWM_BGR) == expected);
  CHECK(actions(bgr, LEWM_RGB) != expected);
}

TEST(a_cost_function_may_decide_and_may_refuse) {
  lewm_planner_config config = small_config();
  double target = 0.7;
  config.cost_context = &target;
  config.cost = [](void* context, const lewm_cost_arguments* a, float* cost) {
    for (std::int64_t i = 0; i < a->n; ++i) {
      double sum = 0;
      for (std::int64_t e = 0; e < a->horizon * a->block_dim; ++e) {
        sum += std::pow(a->actions[i * a->horizon * a->block_dim + e] - *static_cast<double*>(context), 2);
      }
      cost[i] = static_cast<float>(sum);
    }
    return a->struct_size == sizeof(lewm_cost_arguments) && a->latent_dim == kLatent ? 0 : 1;
  };
  config.iterations = 40;
  config.samples = 200;
  config.elites = 20;
  Session s(config);
  const lewm_plan_request request = s.request();
  lewm_plan_result result = s.result();
  CHECK(lewm_plan(s.planner, &request, &result) == LEWM_OK);
  for (const float action : s.actions) CHECK_NEAR(action, target, 0.1);
  config.cost = [](void*, const lewm_cost_arguments* a, float* cost) {
    std::fill_n(cost, a->n, kNaN);
    return 0;
  };
  Session none(config);
  EXPECT_STATUS(lewm_plan(none.planner, &request, &result), LEWM_NO_FINITE_COST, "0 of 200 candidates");
  config.cost = [](void*, const lewm_cost_arguments*, float*) { return 1; };
  Session refusing(config);
  EXPECT_INVALID(lewm_plan(refusing.planner, &request, &result), "cost");
  std::uint64_t asked = 0, got = 0;
  CHECK(lewm_plan_async(refusing.background, &request, &asked) == LEWM_OK);
  lewm_status status = LEWM_OK;
  while (got != asked) status = lewm_latest(refusing.background, &result, &got);
  EXPECT_INVALID(status, "cost: the cost function reported an error");
}

TEST(nothing_allocates_once_it_exists) {
  Session s;
  const lewm_plan_request request = s.request();
  lewm_plan_result result = s.result();
  lewm_history history = sized<lewm_history>();
  history.latents = s.latents.data();
  std::vector<float> out(kHorizon * kLatent);
  std::uint64_t ticket = 0;
  lewm_plan(s.planner, &request, &result);
  const long before = allocations.load();
  for (int i = 0; i < 3; ++i) {
    CHECK(lewm_plan(s.planner, &request, &result) == LEWM_OK);
    CHECK(lewm_plan_frames(s.planner, s.frames.data(), s.frames.data(), &request, &result) == LEWM_OK);
    CHECK(lewm_planner_cost(s.planner, &request, s.actions.data(), 1, &s.cost) == LEWM_OK);
    CHECK(lewm_encode_u8(s.workspace, s.frames.data(), 1, out.data()) == LEWM_OK);
    CHECK(lewm_rollout(s.workspace, &history, s.actions.data(), 1, kHorizon, out.data()) == LEWM_OK);
    CHECK(lewm_cost(s.workspace, &history, s.latents.data(), s.actions.data(), 1, kHorizon, &s.cost) == LEWM_OK);
    CHECK(lewm_controller_set_goal(s.controller, s.frames.data(), 0) == LEWM_OK);
    for (int step = 0; step < 20; ++step) {
      CHECK(lewm_controller_act(s.controller, s.frames.data(), 0, out.data()) == LEWM_OK);
    }
    CHECK(lewm_plan_async(s.background, &request, &ticket) == LEWM_OK);
    for (std::uint64_t got = 0; got != ticket;) lewm_latest(s.background, &result, &got);
  }
  CHECK_EQ(allocations.load(), before);
}

TEST(errors_belong_to_their_thread) {
  lewm_model* model = nullptr;
  lewm_model_open("/no/such/file/here", nullptr, &model);
  std::thread other([] {
    CHECK(std::string(lewm_last_error()).empty());
    lewm_model_close(nullptr);
    lewm_controller_reset(nullptr);
    CHECK(std::string(lewm_last_error()).find("controller") == 0);
  });
  other.join();
  CHECK(std::string(lewm_last_error()).find("/no/such/file/here") != std::string::npos);
}

TEST(planners_over_one_model_in_many_threads_agree) {
  Session s;
  const lewm_planner_config config = small_config();
  std::vector<std::vector<float>> plans(4, std::vector<float>(kHorizon * kBlock));
  std::vector<std::thread> threads;
  for (std::vector<float>& plan : plans) {
    threads.emplace_back([&s, &config, &plan] {
      lewm_planner* planner = nullptr;
      CHECK(lewm_planner_create(s.model, &config, &planner) == LEWM_OK);
      float cost = 0;
      const lewm_plan_request request = s.request();
      lewm_plan_result result = sized<lewm_plan_result>();
      result.actions = plan.data();
      result.cost = &cost;
      for (int i = 0; i < 5; ++i) CHECK(lewm_plan(planner, &request, &result) == LEWM_OK);
      lewm_planner_destroy(planner);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<float>& plan : plans) CHECK(plan == plans[0]);
}

TEST(a_busy_background_takes_the_newest_request) {
  Session s;
  lewm_plan_result result = s.result();
  std::vector<float> expected(kHorizon * kBlock);
  lewm_plan_request request = s.request();
  std::uint64_t asked = 0, got = 0, last = 0;
  for (std::uint32_t i = 0; i < 200; ++i) {
    request.plan_index = i;
    CHECK(lewm_plan_async(s.background, &request, &asked) == LEWM_OK);
    CHECK_EQ(asked, std::uint64_t{i + 1});
    CHECK(lewm_latest(s.background, &result, &got) == LEWM_OK);
    CHECK(got >= last && got <= asked);
    last = got;
  }
  while (got != asked) lewm_latest(s.background, &result, &got);
  const std::vector<float> newest = s.actions;
  CHECK(lewm_plan(s.planner, &request, &result) == LEWM_OK);
  CHECK(newest == s.actions);
}

#if !defined(CHECK_THREAD_SANITIZER)  // minutes there; it is AddressSanitizer that this is for
// Fails the n-th allocation of everything that creates, for n = 0, 1, ... until all succeed.
TEST(running_out_of_memory_is_a_status_and_leaks_nothing) {
  { Session warm_up; }
  const auto failing = [](const char* what, const std::function<lewm_status()>& create) {
    for (long n = 0;; ++n) {
      const long live = live_allocations.load();
      fail_after(n);
      const lewm_status status = create();
      const bool failed = stop_failing();
      if (live_allocations.load() != live) check::fail(__FILE__, __LINE__, std::string(what) + " leaks");
      if (!failed) {
        CHECK_EQ(status, LEWM_OK);
        CHECK(n > 0);
        return;
      }
      if (status != LEWM_OUT_OF_MEMORY) check::fail(__FILE__, __LINE__, std::string(what) + ": " + lewm_last_error());
    }
  };
  const std::string path = model_path();
  failing("lewm_model_open", [&] {
    lewm_model* model = nullptr;
    const lewm_status status = lewm_model_open(path.c_str(), nullptr, &model);
    lewm_model_close(model);
    return status;
  });
  Session s;
  lewm_planner_config config = small_config();
  config.method = LEWM_ICEM;
  config.threads.count = 4;
  config.threads.cpu_mask = ~std::uint64_t{0};  // threads that are placed by a thread of their own
  const float bound[] = {1, 1};
  config.high = bound;
  config.bound_dim = 2;
  failing("lewm_workspace_create", [&] {
    lewm_workspace* workspace = nullptr;
    lewm_workspace_config threaded = sized<lewm_workspace_config>();
    threaded.threads.count = 4;
    const lewm_status status = lewm_workspace_create(s.model, &threaded, &workspace);
    lewm_workspace_destroy(workspace);
    return status;
  });
  failing("lewm_resizer_create", [&] {
    lewm_resizer* resizer = nullptr;
    const lewm_status status = lewm_resizer_create(s.model, 64, 48, LEWM_BGR, LEWM_LETTERBOX, &resizer);
    lewm_resizer_destroy(resizer);
    return status;
  });
  failing("lewm_planner_create", [&] {
    lewm_planner* planner = nullptr;
    const lewm_status status = lewm_planner_create(s.model, &config, &planner);
    lewm_planner_destroy(planner);
    return status;
  });
  failing("lewm_background_create", [&] {
    lewm_background* background = nullptr;
    const lewm_status status = lewm_background_create(s.model, &config, &background);
    lewm_background_destroy(background);
    return status;
  });
  failing("lewm_controller_create", [&] {
    lewm_controller* controller = nullptr;
    lewm_controller_config controls = sized<lewm_controller_config>();
    controls.frame_width = controls.frame_height = 30;
    controls.low = bound;
    const lewm_status status = lewm_controller_create(s.planner, &controls, &controller);
    lewm_controller_destroy(controller);
    return status;
  });
}

#endif

CHECK_MAIN
