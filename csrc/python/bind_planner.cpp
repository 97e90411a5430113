// lewm._core.Planner and Controller.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <tuple>
#include <utility>

#include "plan/controller.h"
#include "plan/planner.h"
#include "python/bindings.h"
#include "python/model_handle.h"
#include "python/python_cost.h"

namespace lewm::python {
namespace {

// Arrays in the host's memory or, where the model is on a GPU, in that GPU's.
template <class T>
using Anywhere = nb::ndarray<T, nb::c_contig>;

// Throws Error(invalid_argument) for an array that the planner cannot reach.
template <class T>
void check_memory(const char* name, const Anywhere<T>& array, const Planner& planner) {
  if (array.device_type() == nb::device::cpu::value || planner.options().device) return;
  throw Error(Status::invalid_argument, std::string(name) + ": expected an array on the CPU, where the model is");
}

void* stream_of(std::uintptr_t stream) { return reinterpret_cast<void*>(stream); }

// A planner, its threads, and the Python function that it may call.
struct PlannerHandle {
  std::shared_ptr<Workers> workers;
  std::shared_ptr<PythonCost> cost;
  std::shared_ptr<Planner> planner;

  // Runs `work(seconds that it waited)` without the GIL and with the threads, on a GPU ordered on `stream`, and throws
  // what went wrong, with the message of `speaker`.
  template <class Work, class Speaker>
  void run(const Work& work, void* stream, const Speaker& speaker) {
    if (cost && cost->is_running_here()) {
      throw Error(Status::invalid_argument, "cost: the function uses the planner that calls it");
    }
    Status status = Status::internal;
    std::string message;
    std::exception_ptr error;
    workers->run([&](double waited) {
      planner->set_stream(stream);
      status = work(waited);
      if (status != Status::ok) message = speaker.message();
      if (cost) error = cost->take_error();
    });
    if (error) std::rethrow_exception(error);
    if (status != Status::ok) throw Error(status, message);
  }
  template <class Work>
  void run(const Work& work, void* stream) {
    run(work, stream, *planner);
  }
};

int traverse_planner(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (!nb::inst_ready(self)) return 0;
  if (const auto& cost = nb::inst_ptr<PlannerHandle>(self)->cost) Py_VISIT(cost->function().ptr());
  return 0;
}

int clear_planner(PyObject* self) {
  if (const auto& cost = nb::inst_ptr<PlannerHandle>(self)->cost) cost->forget();
  return 0;
}

PyType_Slot planner_slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse_planner)},
                               {Py_tp_clear, reinterpret_cast<void*>(clear_planner)},
                               {0, nullptr}};

Method method_from_name(const std::string& name) {
  for (const Method method : {Method::cem, Method::icem, Method::mppi, Method::predictive_sampling}) {
    if (name == method_name(method)) return method;
  }
  throw Error(Status::invalid_argument, "method: expected cem, icem, mppi or predictive_sampling, got '" + name + "'");
}

CostMode cost_mode_from_name(const std::string& name) {
  if (name == "final") return CostMode::final;
  if (name == "sum") return CostMode::sum;
  if (name == "discounted") return CostMode::discounted;
  throw Error(Status::invalid_argument, "cost: expected final, sum, discounted or a function, got '" + name + "'");
}

template <class T>
void read_option(const nb::dict& values, const char* name, T& option) {
  if (values.contains(name)) option = nb::cast<T>(values[name]);
}

// `values`: the fields of PlannerOptions by name; those that are absent keep the method's default.
PlannerOptions options_from(const std::string& method, const nb::dict& values) {
  PlannerOptions options = default_options(method_from_name(method));
  read_option(values, "samples", options.samples);
  read_option(values, "elites", options.elites);
  read_option(values, "iterations", options.iterations);
  read_option(values, "horizon", options.horizon);
  read_option(values, "seed", options.seed);
  read_option(values, "low", options.low);
  read_option(values, "high", options.high);
  read_option(values, "std_init", options.std_init);
  read_option(values, "std_min", options.std_min);
  read_option(values, "momentum", options.momentum);
  read_option(values, "return_best", options.return_best);
  read_option(values, "action_hold", options.action_hold);
  read_option(values, "noise_exponent", options.noise_exponent);
  read_option(values, "kept_elites", options.kept_elites);
  read_option(values, "temperature", options.temperature);
  read_option(values, "discount", options.discount);
  read_option(values, "action_penalty", options.action_penalty);
  read_option(values, "problems", options.problems);
  if (values.contains("cost_mode")) options.cost_mode = cost_mode_from_name(nb::cast<std::string>(values["cost_mode"]));
  return options;
}

nb::dict options_to_dict(const PlannerOptions& options) {
  nb::dict values;
  values["samples"] = options.samples;
  values["elites"] = options.elites;
  values["iterations"] = options.iterations;
  values["horizon"] = options.horizon;
  values["seed"] = options.seed;
  values["std_init"] = options.std_init;
  values["std_min"] = options.std_min;
  values["momentum"] = options.momentum;
  values["return_best"] = options.return_best;
  values["action_hold"] = options.action_hold;
  values["noise_exponent"] = options.noise_exponent;
  values["kept_elites"] = options.kept_elites;
  values["temperature"] = options.temperature;
  values["discount"] = options.discount;
  values["action_penalty"] = options.action_penalty;
  values["problems"] = options.problems;
  return values;
}

// The options in effect, defaults included, after the checks of a planner's construction.
nb::dict checked_options(const std::string& method, const nb::dict& values, std::int64_t block_dim,
                         std::int64_t action_dim) {
  const PlannerOptions options = options_from(method, values);
  check_options(options, block_dim, action_dim);
  return options_to_dict(options);
}

std::shared_ptr<PlannerHandle> create_planner(const ModelHandle& model, const std::string& method,
                                              const nb::dict& values, nb::object cost, int threads) {
  PlannerOptions options = options_from(method, values);
  options.device = model.device();
  auto handle = std::make_shared<PlannerHandle>();
  if (!cost.is_none()) {
    handle->cost = std::make_shared<PythonCost>(std::move(cost));
    options.cost = PythonCost::call;
    options.cost_context = handle->cost.get();
  }
  const ReleasedGil released;
  handle->workers = std::make_shared<Workers>(threads);
  const std::shared_ptr<ThreadPool> pool(handle->workers, &handle->workers->pool);
  handle->planner = std::make_shared<Planner>(model.model(), options, pool);
  return handle;
}

using Optional = std::optional<Anywhere<const float>>;

// What surrounds a plan's images or latents.
struct Request {
  Optional past, warm_start;
  std::optional<Anywhere<const std::uint32_t>> problem_ids;
  std::uint32_t plan_index;
  double deadline;

  PlanRequest fill(const Planner& planner, std::int64_t problems, std::int64_t context) const {
    const std::int64_t block_dim = planner.model().config().block_dim();
    PlanRequest request;
    request.problems = problems;
    request.context = context;
    request.plan_index = plan_index;
    request.deadline = deadline;
    if (past) {
      check_memory("past_actions", *past, planner);
      check_shape("past_actions", *past, {problems, context - 1, block_dim});
      request.past_actions = context > 1 ? past->data() : nullptr;
    }
    if (warm_start) {
      check_memory("warm_start", *warm_start, planner);
      check_rank("warm_start", *warm_start, 3);
      request.warm_blocks = size_of(*warm_start, 1);
      check_shape("warm_start", *warm_start, {problems, request.warm_blocks, block_dim});
      request.warm_start = warm_start->data();
    }
    if (problem_ids) {
      check_memory("problem_ids", *problem_ids, planner);
      check_shape("problem_ids", *problem_ids, {problems});
      request.problem_ids = problem_ids->data();
    }
    return request;
  }
};

// Arrays that a plan fills: actions (B, H, A), cost (B,), elite_cost (B,), std (B, H, A), elites (B, K) or None.
struct Result {
  Anywhere<float> actions, cost, elite_cost, std;
  std::optional<Anywhere<std::int32_t>> elites;

  PlanResult fill(const Planner& planner, std::int64_t problems) const {
    const PlannerOptions& options = planner.options();
    const std::int64_t block_dim = planner.model().config().block_dim();
    check_memory("out", actions, planner);
    check_memory("out", cost, planner);
    check_memory("out", elite_cost, planner);
    check_memory("out", std, planner);
    check_shape("out: actions", actions, {problems, options.horizon, block_dim});
    check_shape("out: cost", cost, {problems});
    check_shape("out: elite_cost", elite_cost, {problems});
    check_shape("out: std", std, {problems, options.horizon, block_dim});
    PlanResult result;
    result.actions = actions.data();
    result.cost = cost.data();
    result.elite_cost = elite_cost.data();
    result.std = std.data();
    if (elites) {
      check_memory("out", *elites, planner);
      const bool one = options.method == Method::predictive_sampling;
      check_shape("out: elites", *elites, {problems, one ? 1 : options.elites});
      result.elites = elites->data();
    }
    return result;
  }
};

using Plan = std::pair<std::int64_t, double>;  // iterations, seconds

// Runs `work`, a plan of `request` into `result`; what it waited for others is no longer left of the deadline.
template <class Work>
Plan run_plan(PlannerHandle& handle, PlanRequest& request, const PlanResult& result, const Work& work,
              std::uintptr_t stream) {
  handle.run(
      [&](double waited) {
        request.deadline = std::max(0.0, request.deadline - waited);
        return work();
      },
      stream_of(stream));
  return {result.iterations, result.elapsed};
}

Plan plan_latents(PlannerHandle& handle, Anywhere<const float> latents, Anywhere<const float> goals,
                  const Request& request, const Result& out, std::uintptr_t stream) {
  const Config& config = handle.planner->model().config();
  check_memory("latents", latents, *handle.planner);
  check_memory("goal", goals, *handle.planner);
  check_rank("latents", latents, 3);
  const std::int64_t problems = size_of(latents, 0), context = size_of(latents, 1);
  check_shape("latents", latents, {problems, context, config.latent_dim});
  check_shape("goal", goals, {problems, config.latent_dim});
  PlanRequest core_request = request.fill(*handle.planner, problems, context);
  core_request.latents = latents.data();
  core_request.goals = goals.data();
  PlanResult result = out.fill(*handle.planner, problems);
  return run_plan(
      handle, core_request, result, [&] { return handle.planner->plan(core_request, result); }, stream);
}

template <class Pixel>
Plan plan_frames(PlannerHandle& handle, Anywhere<const Pixel> frames, Anywhere<const Pixel> goals,
                 const Request& request, const Result& out, std::uintptr_t stream) {
  check_memory("frame", frames, *handle.planner);
  check_memory("goal", goals, *handle.planner);
  const std::int64_t size = handle.planner->model().config().image_size;
  check_rank("frame", frames, 5);
  const std::int64_t problems = size_of(frames, 0), context = size_of(frames, 1);
  if constexpr (sizeof(Pixel) == 1) {
    check_shape("frame", frames, {problems, context, size, size, 3});
    check_shape("goal", goals, {problems, size, size, 3});
  } else {
    check_shape("frame", frames, {problems, context, 3, size, size});
    check_shape("goal", goals, {problems, 3, size, size});
  }
  PlanRequest core_request = request.fill(*handle.planner, problems, context);
  PlanResult result = out.fill(*handle.planner, problems);
  return run_plan(
      handle, core_request, result,
      [&] { return handle.planner->plan_frames(frames.data(), goals.data(), core_request, result); }, stream);
}

void evaluate(PlannerHandle& handle, Anywhere<const float> latents, Anywhere<const float> goals,
              Anywhere<const float> actions, const Request& request, Anywhere<float> cost, std::uintptr_t stream) {
  const Config& config = handle.planner->model().config();
  check_memory("latents", latents, *handle.planner);
  check_memory("goal", goals, *handle.planner);
  check_memory("actions", actions, *handle.planner);
  check_memory("out", cost, *handle.planner);
  check_rank("latents", latents, 3);
  check_rank("actions", actions, 4);
  const std::int64_t problems = size_of(latents, 0), context = size_of(latents, 1), samples = size_of(actions, 1);
  check_shape("latents", latents, {problems, context, config.latent_dim});
  check_shape("goal", goals, {problems, config.latent_dim});
  check_shape("actions", actions, {problems, samples, handle.planner->options().horizon, config.block_dim()});
  check_shape("out", cost, {problems, samples});
  PlanRequest core_request = request.fill(*handle.planner, problems, context);
  core_request.latents = latents.data();
  core_request.goals = goals.data();
  handle.run([&](double) { return handle.planner->evaluate(core_request, actions.data(), samples, cost.data()); },
             stream_of(stream));
}

struct ControllerHandle {
  std::shared_ptr<PlannerHandle> planner;
  std::unique_ptr<Controller> controller;

  template <class Work>
  void run(const Work& work) {
    planner->run(work, nullptr, *controller);  // a plan's stream may have gone since
  }
};

int traverse_controller(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (!nb::inst_ready(self)) return 0;
  Py_VISIT(nb::find(nb::inst_ptr<ControllerHandle>(self)->planner).ptr());
  return 0;
}

PyType_Slot controller_slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse_controller)}, {0, nullptr}};

std::shared_ptr<ControllerHandle> create_controller(std::shared_ptr<PlannerHandle> planner, std::int64_t replan_every,
                                                    std::int64_t context, bool warm_start, double deadline,
                                                    std::vector<float> low, std::vector<float> high) {
  ControllerOptions options;
  options.replan_every = replan_every;
  options.context = context;
  options.warm_start = warm_start;
  options.deadline = deadline;
  options.low = std::move(low);
  options.high = std::move(high);
  auto handle = std::make_shared<ControllerHandle>();
  handle->planner = std::move(planner);
  handle->controller = std::make_unique<Controller>(handle->planner->planner, options);
  return handle;
}

void set_goal(ControllerHandle& handle, Input<std::uint8_t> goal) {
  const std::int64_t size = handle.planner->planner->model().config().image_size;
  check_shape("goal", goal, {size, size, 3});
  handle.run([&](double) { return handle.controller->set_goal(goal.data()); });
}

void set_goal_latent(ControllerHandle& handle, Input<float> goal) {
  check_shape("goal", goal, {handle.planner->planner->model().config().latent_dim});
  handle.run([&](double) { return handle.controller->set_goal_latent(goal.data()); });
}

// spent: seconds of the deadline that are over.
void act(ControllerHandle& handle, std::optional<Input<std::uint8_t>> frame, Output<float> action, double spent) {
  const Config& config = handle.planner->planner->model().config();
  if (frame) check_shape("frame", *frame, {config.image_size, config.image_size, 3});
  check_shape("out", action, {config.action_dim});
  handle.run([&](double waited) {
    return handle.controller->act(frame ? frame->data() : nullptr, action.data(), spent + waited);
  });
}

// (cost, iterations, seconds), or None before the first plan; fills actions (H, A).
std::optional<std::tuple<float, std::int64_t, double>> current(ControllerHandle& handle, Output<float> actions) {
  const Planner& planner = *handle.planner->planner;
  const std::int64_t horizon = planner.options().horizon, block_dim = planner.model().config().block_dim();
  check_shape("out", actions, {horizon, block_dim});
  Controller::Current plan;
  handle.run([&](double) {
    plan = handle.controller->current();
    if (plan.actions) std::copy_n(plan.actions, horizon * block_dim, actions.data());
    return Status::ok;
  });
  if (!plan.actions) return std::nullopt;
  return std::tuple(plan.cost, plan.iterations, plan.elapsed);
}

}  // namespace

void bind_planner(nb::module_& module) {
  module.def("planner_options", &checked_options, nb::arg("method"), nb::arg("options"), nb::arg("block_dim"),
             nb::arg("action_dim"));
  nb::class_<Request>(module, "Request")
      .def(
          "__init__",
          [](Request* self, Optional past, Optional warm_start,
             std::optional<Anywhere<const std::uint32_t>> problem_ids, std::uint32_t plan_index, double deadline) {
            new (self) Request{std::move(past), std::move(warm_start), std::move(problem_ids), plan_index, deadline};
          },
          nb::arg("past").noconvert().none(), nb::arg("warm_start").noconvert().none(),
          nb::arg("problem_ids").noconvert().none(), nb::arg("plan_index"), nb::arg("deadline"));
  nb::class_<Result>(module, "Result")
      .def(
          "__init__",
          [](Result* self, Anywhere<float> actions, Anywhere<float> cost, Anywhere<float> elite_cost,
             Anywhere<float> std, std::optional<Anywhere<std::int32_t>> elites) {
            new (self)
                Result{std::move(actions), std::move(cost), std::move(elite_cost), std::move(std), std::move(elites)};
          },
          nb::arg("actions").noconvert(), nb::arg("cost").noconvert(), nb::arg("elite_cost").noconvert(),
          nb::arg("std").noconvert(), nb::arg("elites").noconvert().none());
  nb::class_<PlannerHandle>(module, "Planner", nb::type_slots(planner_slots))
      .def_static("create", &create_planner, nb::arg("model"), nb::arg("method"), nb::arg("options"),
                  nb::arg("cost").none(), nb::arg("threads"))
      .def("plan_latents", &plan_latents, nb::arg("latents").noconvert(), nb::arg("goal").noconvert(),
           nb::arg("request"), nb::arg("out"), nb::arg("stream") = 0)
      .def("plan_frames", &plan_frames<std::uint8_t>, nb::arg("frame").noconvert(), nb::arg("goal").noconvert(),
           nb::arg("request"), nb::arg("out"), nb::arg("stream") = 0)
      .def("plan_frames", &plan_frames<float>, nb::arg("frame").noconvert(), nb::arg("goal").noconvert(),
           nb::arg("request"), nb::arg("out"), nb::arg("stream") = 0)
      .def("evaluate", &evaluate, nb::arg("latents").noconvert(), nb::arg("goal").noconvert(),
           nb::arg("actions").noconvert(), nb::arg("request"), nb::arg("out").noconvert(), nb::arg("stream") = 0)
      .def_prop_ro("options", [](const PlannerHandle& handle) { return options_to_dict(handle.planner->options()); })
      .def_prop_ro("threads", [](const PlannerHandle& handle) { return handle.workers->pool.threads(); });
  nb::class_<ControllerHandle>(module, "Controller", nb::type_slots(controller_slots))
      .def_static("create", &create_controller, nb::arg("planner"), nb::arg("replan_every"), nb::arg("context"),
                  nb::arg("warm_start"), nb::arg("deadline"), nb::arg("low"), nb::arg("high"))
      .def("reset",
           [](ControllerHandle& handle) {
             handle.run([&](double) {
               handle.controller->reset();
               return Status::ok;
             });
           })
      .def("set_goal", &set_goal, nb::arg("goal").noconvert())
      .def("set_goal_latent", &set_goal_latent, nb::arg("goal").noconvert())
      .def("act", &act, nb::arg("frame").noconvert().none(), nb::arg("out").noconvert(), nb::arg("spent") = 0.0)
      .def("current", &current, nb::arg("out").noconvert())
      .def_prop_ro("needs_frame", [](const ControllerHandle& handle) { return handle.controller->needs_frame(); })
      .def_prop_ro("needs_plan", [](const ControllerHandle& handle) { return handle.controller->needs_plan(); })
      .def_prop_ro("plans", [](const ControllerHandle& handle) { return handle.controller->plans(); });
}

}  // namespace lewm::python
