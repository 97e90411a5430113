// The C interface and lewm.hpp with a model on a device: the library loads the module of the host run as it would load
// the real one.   capi_device MODEL, with LEWM_CUDA_MODULE
#include <cmath>
#include <string>

#include "check.h"
#include "device_session.h"
#include "lewm/lewm.hpp"

namespace {

using device_session::Array;
using device_session::module;
using Floats = std::vector<float>;
using Bytes = std::vector<std::uint8_t>;

std::string model_path;

template <class T>
std::vector<T> numbers(std::size_t n, unsigned seed) {
  std::vector<T> values(n);
  unsigned state = seed * 2654435761u + 1;
  for (T& value : values) {
    state = state * 1664525u + 1013904223u;
    value =
        sizeof(T) == 1 ? static_cast<T>(state >> 24) : static_cast<T>(static_cast<float>(state >> 8) / 8388608.0f - 1);
  }
  return values;
}

lewm::Model on_device() { return lewm::Model(model_path, LEWM_PRECISION_AUTO, LEWM_DEVICE_CUDA); }

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

double cosine(const Floats& x, const Floats& y) {
  double dot = 0, xx = 0, yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    dot += static_cast<double>(x[i]) * y[i];
    xx += static_cast<double>(x[i]) * x[i];
    yy += static_cast<double>(y[i]) * y[i];
  }
  return dot / std::sqrt(xx * yy);
}
constexpr double kCosine = 0.999;  // DESIGN.md section 6, bf16

lewm_planner_config small_plans() {
  lewm_planner_config config = lewm::planner_config(LEWM_CEM);
  config.samples = 16;
  config.elites = 4;
  config.iterations = 3;
  config.horizon = 3;
  config.threads.count = 1;
  return config;
}

// The size of a struct in the header before it had a device.
struct OldConfig {
  std::size_t struct_size;
  lewm_precision precision;
  lewm_log_function log;
  void* log_context;
};

}  // namespace

TEST(devices_are_counted_and_models_say_where_they_are) {
  CHECK_EQ(lewm::device_count(LEWM_DEVICE_CPU), 1);
  CHECK_EQ(lewm::device_count(LEWM_DEVICE_CUDA), 2);
  const lewm::Model gpu = on_device(), cpu(model_path);
  CHECK(gpu.info().device == LEWM_DEVICE_CUDA && gpu.info().precision == LEWM_PRECISION_BF16);
  CHECK(cpu.info().device == LEWM_DEVICE_CPU);
  CHECK_THROWS(lewm::Model(model_path, LEWM_PRECISION_AUTO, LEWM_DEVICE_CUDA, 7), lewm::Error,
               "device: expected a GPU of 0..1, got 7");
  CHECK_THROWS(lewm::Model(model_path, LEWM_PRECISION_INT8, LEWM_DEVICE_CUDA), lewm::Error,
               "precision: expected auto or bf16 on cuda");
  CHECK_THROWS(lewm::Model(model_path, LEWM_PRECISION_AUTO, static_cast<lewm_device>(9)), lewm::Error,
               "device: expected a lewm_device, got 9");
}

// Programs that were compiled before the structs had a device.
TEST(structs_of_older_callers_mean_the_cpu) {
  OldConfig old{sizeof(OldConfig), LEWM_PRECISION_FP32, nullptr, nullptr};
  lewm_model* model = nullptr;
  CHECK(lewm_model_open(model_path.c_str(), reinterpret_cast<lewm_model_config*>(&old), &model) == LEWM_OK);
  lewm_model_info info{};
  info.struct_size = offsetof(lewm_model_info, device);
  info.device = static_cast<lewm_device>(77);  // beyond what such a caller has
  CHECK(lewm_model_get_info(model, &info) == LEWM_OK);
  CHECK(info.device == static_cast<lewm_device>(77) && info.latent_dim > 0);
  info.struct_size = offsetof(lewm_model_info, device) - 1;
  CHECK(lewm_model_get_info(model, &info) == LEWM_INVALID_ARGUMENT);
  lewm_workspace* workspace = nullptr;
  CHECK(lewm_workspace_create(model, nullptr, &workspace) == LEWM_OK);
  int stream = 0;
  CHECK(lewm_workspace_set_stream(workspace, &stream) == LEWM_INVALID_ARGUMENT);
  CHECK_EQ(std::string(lewm_last_error()), std::string("stream: expected null, the model is on the CPU"));
  lewm_workspace_destroy(workspace);
  lewm_model_close(model);
}

// Latents, rollouts and costs from device memory into device memory on a stream, against the same from the host.
TEST(a_workspace_works_on_arrays_of_the_device) {
  const lewm::Model model = on_device(), cpu(model_path, LEWM_PRECISION_FP32);
  const lewm_model_info& m = model.info();
  lewm::Workspace workspace(model), reference(cpu);
  const auto frames = numbers<std::uint8_t>(2 * model.frame_size(), 1);
  const auto actions = numbers<float>(size(3 * 2 * m.block_dim), 2), goal = numbers<float>(size(m.latent_dim), 3);
  const Floats latents = workspace.encode(frames);
  CHECK(cosine(latents, reference.encode(frames)) >= kCosine);
  const Floats start(latents.begin(), latents.begin() + m.latent_dim);
  const Floats predicted = workspace.rollout(start, {}, actions, 3, 2);
  CHECK(cosine(predicted, reference.rollout(start, {}, actions, 3, 2)) >= kCosine);
  const Floats costs = workspace.cost(start, {}, goal, actions, 3, 2);

  void* stream = module().stream();
  workspace.set_stream(stream);
  const Array<std::uint8_t> d_frames(frames, stream);
  const Array<float> d_actions(actions, stream), d_goal(goal, stream);
  const Array<float> d_latents(latents.size()), d_predicted(predicted.size()), d_costs(costs.size());
  const lewm::Span<const float> d_start(d_latents.data(), start.size());
  int graphs = 0, waits = 0;
  workspace.encode(d_frames, d_latents);  // makes its memory
  module().counts(&graphs, &waits);
  workspace.encode(d_frames, d_latents);
  workspace.rollout(d_start, {}, d_actions, 3, 2, d_predicted);
  workspace.cost(d_start, {}, d_goal, d_actions, 3, 2, d_costs);
  module().counts(&graphs, &waits);
  CHECK(waits <= 1);  // for the rollout's memory; not for results
  CHECK(d_latents.fetch(stream) == latents);
  CHECK(d_predicted.fetch(stream) == predicted);
  CHECK(d_costs.fetch(stream) == costs);
  Floats mixed(costs.size());  // results on the host are there when the call returns
  workspace.cost(d_start, {}, d_goal, d_actions, 3, 2, mixed);
  CHECK(mixed == costs);
}

TEST(camera_frames_are_resized_and_encoded_there) {
  const lewm::Model model = on_device(), cpu(model_path, LEWM_PRECISION_FP32);
  for (const lewm_fit fit : {LEWM_STRETCH, LEWM_CROP, LEWM_LETTERBOX}) {
    lewm::Resizer resizer(model, 37, 21, LEWM_BGRA, fit), reference(cpu, 37, 21, LEWM_BGRA, fit);
    const auto frames = numbers<std::uint8_t>(3 * resizer.source_size(), 4);
    Bytes resized;
    for (std::size_t i = 0; i < 3; ++i) {
      const auto image = reference(frames.data() + i * resizer.source_size());
      resized.insert(resized.end(), image.begin(), image.end());
    }
    lewm::Workspace workspace(model), on_cpu(cpu);
    const Floats latents = workspace.encode(resizer, frames);
    CHECK(latents == workspace.encode(resized));  // the device resizes to the same bytes
    CHECK(on_cpu.encode(reference, frames) == on_cpu.encode(resized));
    void* stream = module().stream();
    workspace.set_stream(stream);
    const Array<std::uint8_t> d_frames(frames, stream);
    const Array<float> d_latents(latents.size());
    workspace.encode(resizer, d_frames, d_latents);
    CHECK(d_latents.fetch(stream) == latents);
    CHECK_THROWS(workspace.encode(reference, frames), lewm::Error, "resizer: expected one of the workspace's model");
  }
}

// A plan whose latents come from device memory and whose results stay there, with and without a deadline.
TEST(plans_stay_on_the_device) {
  const lewm::Model model = on_device();
  const lewm_model_info& m = model.info();
  const lewm_planner_config config = small_plans();
  lewm::Planner planner(model, config);
  const auto latents = numbers<float>(size(m.latent_dim), 5), goal = numbers<float>(size(m.latent_dim), 6);
  void* stream = module().stream();
  for (const double deadline : {0.0, 1e6}) {
    planner.set_stream(nullptr);
    lewm::PlanOptions options;
    options.deadline = deadline;
    const lewm::Plan plan = planner.plan_latents(latents, goal, options);
    CHECK_EQ(plan.iterations, 3);
    planner.set_stream(stream);
    const Array<float> d_latents(latents, stream), d_goal(goal, stream);
    const Array<float> d_actions(plan.actions.size()), d_cost(1), d_std(plan.actions.size()), d_elite(1);
    lewm_plan_result result{};
    result.struct_size = sizeof result;
    result.actions = d_actions.data();
    result.cost = d_cost.data();
    result.std = d_std.data();
    result.elite_cost = d_elite.data();
    planner.plan_latents(d_latents, d_goal, options, result);
    CHECK_EQ(result.iterations, 3);
    CHECK(d_actions.fetch(stream) == plan.actions);
    CHECK(d_cost.fetch(stream) == Floats{plan.cost});
    for (const float std : d_std.fetch(stream)) CHECK(std > 0 && std < 2);
    CHECK(std::isfinite(d_elite.fetch(stream)[0]));
  }
}

TEST(frames_on_the_device_are_planned_from_and_controllers_run) {
  const lewm::Model model = on_device();
  lewm::Planner planner(model, small_plans());
  const auto frame = numbers<std::uint8_t>(model.frame_size(), 7), goal = numbers<std::uint8_t>(model.frame_size(), 8);
  const lewm::Plan plan = planner.plan(frame, goal);
  void* stream = module().stream();
  planner.set_stream(stream);
  const Array<std::uint8_t> d_frame(frame, stream), d_goal(goal, stream);
  CHECK(planner.plan(d_frame, d_goal).actions == plan.actions);
  CHECK(planner.plan(frame, d_goal).actions == plan.actions);
  planner.set_stream(nullptr);
  lewm::Controller controller(planner);
  controller.set_goal(goal.data());
  const auto action = controller.act(frame.data());
  const lewm_controller_info info = controller.info();
  CHECK(Floats(info.actions, info.actions + plan.actions.size()) == plan.actions);
  for (const float value : action) CHECK(std::isfinite(value));
  CHECK_THROWS(controller.set_goal(d_goal.data()), lewm::Error, "pixels: expected host memory, got a GPU's");
  lewm::BackgroundPlanner background(model, small_plans());
  CHECK_THROWS(background.submit(d_frame, goal), lewm::Error, "frames: expected host memory, got a GPU's");
}

TEST(memory_of_another_device_is_refused_by_name) {
  const lewm::Model model = on_device();
  lewm::Planner planner(model, small_plans());
  const auto latents = numbers<float>(size(model.info().latent_dim), 5);
  module().use(1);
  {
    const Array<float> elsewhere(latents.size());
    module().use(0);
    CHECK_THROWS(planner.plan_latents(elsewhere, latents), lewm::Error,
                 "latents: expected host memory or that of GPU 0, where the model is, got memory of GPU 1");
    module().use(1);
  }
  // A model on the second GPU, used by a thread whose current one is the first.
  module().use(0);
  {
    const lewm::Model second(model_path, LEWM_PRECISION_AUTO, LEWM_DEVICE_CUDA, 1);
    CHECK_EQ(second.info().device_index, 1);
    lewm::Planner on_second(second, small_plans());
    CHECK(on_second.plan_latents(latents, latents).actions == planner.plan_latents(latents, latents).actions);
  }
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  model_path = argv[1];
  module().devices(2);
  return check::main(1, argv);
}
