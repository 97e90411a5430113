// The C interface: planners that the caller waits for, and planners in the background.
#include "capi/support.h"

using namespace lewm;
using namespace lewm::capi;

namespace {

PlannerOptions options_of(const lewm_planner_config& config) {
  PlannerOptions options;
  options.method = static_cast<Method>(config.method);
  options.samples = config.samples;
  options.elites = config.elites;
  options.iterations = config.iterations;
  options.horizon = config.horizon;
  options.problems = config.problems;
  options.seed = config.seed;
  if ((config.low || config.high) && (config.bound_dim < 1 || config.bound_dim > (1 << 20))) {
    throw Error(Status::invalid_argument,
                "bound_dim: expected action_dim or block_dim, got " + std::to_string(config.bound_dim));
  }
  options.low = copy_bound(config.low, config.bound_dim);
  options.high = copy_bound(config.high, config.bound_dim);
  options.std_init = config.std_init;
  options.std_min = config.std_min;
  options.momentum = config.momentum;
  options.return_best = config.return_best != 0;
  options.noise_exponent = config.noise_exponent;
  options.kept_elites = config.kept_elites;
  options.temperature = config.temperature;
  options.cost_mode = static_cast<CostMode>(config.cost_mode);
  options.discount = config.discount;
  options.action_penalty = config.action_penalty;
  if (config.action_hold) options.action_hold = config.action_hold;
  return options;
}

PlanResult result_of(const lewm_plan_result& result) {
  PlanResult out;
  out.actions = result.actions;
  out.cost = result.cost;
  out.elite_cost = result.elite_cost;
  out.std = result.std;
  return out;
}

void write_back(const PlanResult& from, lewm_plan_result* to) {
  to->iterations = from.iterations;
  to->elapsed = from.elapsed;
}

// What a background planner copies, beside latents or frames.
void need_host_request(const std::shared_ptr<const Device>& device, const PlanRequest& request) {
  need_host("past_actions", device, request.past_actions);
  need_host("warm_start", device, request.warm_start);
  need_host("problem_ids", device, request.problem_ids);
}

}  // namespace

int PlannerParts::call_cost(void* self, const CostArguments& a, float* cost) {
  const auto* parts = static_cast<const PlannerParts*>(self);
  const lewm_cost_arguments arguments{
      sizeof(lewm_cost_arguments), a.problem, a.n, a.horizon, a.latent_dim, a.block_dim, a.latents, a.actions, a.goal};
  return parts->cost(parts->cost_context, &arguments, cost);
}

std::shared_ptr<Planner> PlannerParts::create(const lewm_model& model, const lewm_planner_config& config) {
  const auto parts = std::make_shared<PlannerParts>();
  PlannerOptions options = options_of(config);
  options.device = model.device;
  if (config.cost) {
    parts->cost = config.cost;
    parts->cost_context = config.cost_context;
    options.cost = &PlannerParts::call_cost;
    options.cost_context = parts.get();
  }
  parts->planner = std::make_unique<Planner>(model.model, options, make_pool(threads_of(config.threads)));
  return {parts, parts->planner.get()};
}

// ---------------------------------------------------------------------------------------------------------------------
// Planner
// ---------------------------------------------------------------------------------------------------------------------

lewm_status lewm_planner_config_init(lewm_planner_config* config, size_t struct_size, lewm_method method) {
  return guarded([&] {
    need("config", config);
    if (struct_size < sizeof(lewm_planner_config)) {
      throw Error(Status::invalid_argument, "struct_size: expected at least " +
                                                std::to_string(sizeof(lewm_planner_config)) + ", got " +
                                                std::to_string(struct_size));
    }
    if (method < LEWM_CEM || method > LEWM_PREDICTIVE_SAMPLING) {
      throw Error(Status::invalid_argument, "method: expected a lewm_method, got " + std::to_string(method));
    }
    const PlannerOptions options = default_options(static_cast<Method>(method));
    std::memset(config, 0, struct_size);
    config->struct_size = struct_size;
    config->method = method;
    config->samples = options.samples;
    config->elites = options.elites;
    config->iterations = options.iterations;
    config->horizon = options.horizon;
    config->problems = options.problems;
    config->seed = options.seed;
    config->std_init = options.std_init;
    config->std_min = options.std_min;
    config->momentum = options.momentum;
    config->noise_exponent = options.noise_exponent;
    config->kept_elites = options.kept_elites;
    config->temperature = options.temperature;
    config->discount = options.discount;
    config->action_hold = options.action_hold;
    return LEWM_OK;
  });
}

lewm_status lewm_planner_create(const lewm_model* model, const lewm_planner_config* config, lewm_planner** planner) {
  return guarded([&] {
    need("model", model);
    need("planner", planner);
    *planner = nullptr;
    *planner = new lewm_planner{PlannerParts::create(*model, read("config", config))};
    return LEWM_OK;
  });
}

void lewm_planner_destroy(lewm_planner* planner) { delete planner; }

lewm_status lewm_planner_set_stream(lewm_planner* planner, void* stream) {
  return guarded([&] {
    need("planner", planner);
    need_device(planner->planner->options().device, stream);
    planner->planner->set_stream(stream);
    return LEWM_OK;
  });
}

lewm_status lewm_plan(lewm_planner* planner, const lewm_plan_request* request, lewm_plan_result* result) {
  return guarded([&] {
    need("planner", planner);
    const PlanRequest wanted = request_of(read("request", request));
    PlanResult out = result_of(read("result", result));
    const Status status = planner->planner->plan(wanted, out);
    if (status == Status::ok) write_back(out, result);
    return finish(status, *planner->planner);
  });
}

lewm_status lewm_plan_frames(lewm_planner* planner, const uint8_t* frames, const uint8_t* goals,
                             const lewm_plan_request* request, lewm_plan_result* result) {
  return guarded([&] {
    need("planner", planner);
    const PlanRequest wanted = request_of(read("request", request));
    PlanResult out = result_of(read("result", result));
    const Status status = planner->planner->plan_frames(frames, goals, wanted, out);
    if (status == Status::ok) write_back(out, result);
    return finish(status, *planner->planner);
  });
}

lewm_status lewm_planner_cost(lewm_planner* planner, const lewm_plan_request* request, const float* actions,
                              int64_t samples, float* cost) {
  return guarded([&] {
    need("planner", planner);
    lewm_plan_request looked_at = read("request", request);
    looked_at.warm_start = nullptr;
    looked_at.warm_blocks = 0;
    looked_at.problem_ids = nullptr;
    looked_at.deadline = 0;
    const PlanRequest wanted = request_of(looked_at);
    return finish(planner->planner->evaluate(wanted, actions, samples, cost), *planner->planner);
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// Background planner
// ---------------------------------------------------------------------------------------------------------------------

lewm_status lewm_background_create(const lewm_model* model, const lewm_planner_config* config,
                                   lewm_background** background) {
  return guarded([&] {
    need("model", model);
    need("background", background);
    *background = nullptr;
    const lewm_planner_config chosen = read("config", config);
    *background = new lewm_background{model->device,
                                      {PlannerParts::create(*model, chosen), threads_of(chosen.threads), model->log}};
    return LEWM_OK;
  });
}

void lewm_background_destroy(lewm_background* background) { delete background; }

lewm_status lewm_plan_async(lewm_background* background, const lewm_plan_request* request, uint64_t* ticket) {
  return guarded([&] {
    need("background", background);
    const PlanRequest wanted = request_of(read("request", request));
    need_host("latents", background->device, wanted.latents);
    need_host("goals", background->device, wanted.goals);
    need_host_request(background->device, wanted);
    return finish(background->background.submit(wanted, ticket), background->background);
  });
}

lewm_status lewm_plan_async_frames(lewm_background* background, const uint8_t* frames, const uint8_t* goals,
                                   const lewm_plan_request* request, uint64_t* ticket) {
  return guarded([&] {
    need("background", background);
    const PlanRequest wanted = request_of(read("request", request));
    need_host("frames", background->device, frames);
    need_host("goals", background->device, goals);
    need_host_request(background->device, wanted);
    return finish(background->background.submit_frames(frames, goals, wanted, ticket), background->background);
  });
}

lewm_status lewm_latest(lewm_background* background, lewm_plan_result* result, uint64_t* ticket) {
  return guarded([&] {
    need("background", background);
    need("ticket", ticket);
    const lewm_plan_result out = read("result", result);
    need("result.actions", out.actions);
    need("result.cost", out.cost);
    const BackgroundPlanner::Finished& plan = background->background.latest();
    *ticket = plan.ticket;
    if (plan.ticket == 0) return LEWM_OK;
    if (plan.status != Status::ok) return fail(plan.status, plan.message);
    const Planner& planner = background->background.planner();
    const std::int64_t elements = planner.options().horizon * planner.model().config().block_dim();
    std::copy_n(plan.actions.data(), plan.problems * elements, out.actions);
    std::copy_n(plan.cost.data(), plan.problems, out.cost);
    result->iterations = plan.iterations;
    result->elapsed = plan.elapsed;
    return LEWM_OK;
  });
}
