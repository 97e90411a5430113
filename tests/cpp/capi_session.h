// What the tests of the C interface share: a small model file, everything that can be created over it, and calls that
// must fail.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "lewm/lewm.h"
#include "make_model.h"

namespace capi_test {

constexpr std::int64_t kImage = 20, kLatent = 24, kBlock = 6, kHorizon = 5;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A model file that lives as long as the process.
inline const std::string& model_path() {
  static const struct File {
    File() : path(std::filesystem::temp_directory_path() / ("lewm_capi_" + std::to_string(getpid()) + ".safetensors")) {
      model_file::write_small(path);
    }
    ~File() { std::remove(path.c_str()); }
    std::string path;
  } file;
  return file.path;
}

template <class T>
T sized() {
  T out{};
  out.struct_size = sizeof(T);
  return out;
}

inline lewm_planner_config small_config() {
  lewm_planner_config config;
  lewm_planner_config_init(&config, sizeof config, LEWM_CEM);
  config.samples = 16;
  config.elites = 4;
  config.iterations = 2;
  config.threads.count = 1;
  return config;
}

inline void expect(lewm_status got, lewm_status status, const std::string& part, int line) {
  if (got != status || std::string(lewm_last_error()).find(part) == std::string::npos) {
    check::fail(__FILE__, line,
                std::string("expected ") + lewm_status_name(status) + " with \"" + part + "\", got " +
                    lewm_status_name(got) + ": " + lewm_last_error());
  }
}

// Everything that can be created, and the arrays of calls on it.
struct Session {
  explicit Session(const lewm_planner_config& config = small_config()) {
    if (lewm_model_open(model_path().c_str(), nullptr, &model)) return;
    if (lewm_workspace_create(model, nullptr, &workspace)) return;
    if (lewm_resizer_create(model, 32, 24, LEWM_RGB, LEWM_CROP, &resizer)) return;
    if (lewm_planner_create(model, &config, &planner)) return;
    if (lewm_planner_create(model, &config, &controlled)) return;
    if (lewm_background_create(model, &config, &background)) return;
    if (lewm_controller_create(controlled, nullptr, &controller)) return;
    complete = true;
  }
  ~Session() {
    lewm_model_close(model);
    lewm_planner_destroy(controlled);
    lewm_controller_destroy(controller);
    lewm_background_destroy(background);
    lewm_planner_destroy(planner);
    lewm_resizer_destroy(resizer);
    lewm_workspace_destroy(workspace);
  }
  lewm_plan_request request() const {
    lewm_plan_request made = sized<lewm_plan_request>();
    made.latents = latents.data();
    made.goals = latents.data() + kLatent;
    return made;
  }
  lewm_plan_result result() {
    lewm_plan_result made = sized<lewm_plan_result>();
    made.actions = actions.data();
    made.cost = &cost;
    return made;
  }

  lewm_model* model = nullptr;
  lewm_workspace* workspace = nullptr;
  lewm_resizer* resizer = nullptr;
  lewm_planner *planner = nullptr, *controlled = nullptr;
  lewm_background* background = nullptr;
  lewm_controller* controller = nullptr;
  bool complete = false;
  std::vector<std::uint8_t> frames = std::vector<std::uint8_t>(2 * 3 * kImage * kImage, 100);
  std::vector<float> latents = std::vector<float>(2 * kLatent, 0.1f);
  std::vector<float> actions = std::vector<float>(kHorizon * kBlock, 0.0f);
  float cost = 0;
};

}  // namespace capi_test

#define EXPECT_INVALID(call, part) capi_test::expect(call, LEWM_INVALID_ARGUMENT, part, __LINE__)
#define EXPECT_STATUS(call, status, part) capi_test::expect(call, status, part, __LINE__)
