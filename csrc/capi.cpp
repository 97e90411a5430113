// The C interface over the core: checks arguments, translates structs, turns exceptions into statuses. lewm.h documents
// it.
#include <string_view>

#include "capi_support.h"

using namespace lewm;
using namespace lewm::capi;

#define LEWM_TEXT_OF(x) #x
#define LEWM_TEXT(x) LEWM_TEXT_OF(x)
static_assert(std::string_view(LEWM_VERSION_STRING) ==
              LEWM_TEXT(LEWM_VERSION_MAJOR) "." LEWM_TEXT(LEWM_VERSION_MINOR) "." LEWM_TEXT(LEWM_VERSION_PATCH));

static_assert(LEWM_OK == static_cast<int>(Status::ok));
static_assert(LEWM_INVALID_ARGUMENT == static_cast<int>(Status::invalid_argument));
static_assert(LEWM_FILE_NOT_FOUND == static_cast<int>(Status::file_not_found));
static_assert(LEWM_BAD_FILE == static_cast<int>(Status::bad_file));
static_assert(LEWM_UNSUPPORTED == static_cast<int>(Status::unsupported));
static_assert(LEWM_OUT_OF_MEMORY == static_cast<int>(Status::out_of_memory));
static_assert(LEWM_NO_FINITE_COST == static_cast<int>(Status::no_finite_cost));
static_assert(LEWM_INTERNAL == static_cast<int>(Status::internal));
static_assert(LEWM_GREY == static_cast<int>(PixelFormat::grey) && LEWM_BGR == static_cast<int>(PixelFormat::bgr));
static_assert(LEWM_LETTERBOX == static_cast<int>(Fit::letterbox) && LEWM_CROP == static_cast<int>(Fit::crop));
static_assert(LEWM_PREDICTIVE_SAMPLING == static_cast<int>(Method::predictive_sampling));
static_assert(LEWM_COST_DISCOUNTED == static_cast<int>(CostMode::discounted));
static_assert(LEWM_PRECISION_INT8 == static_cast<int>(Precision::int8) + 1);

namespace {

const char* const kStatusNames[] = {"ok",          "invalid_argument", "file_not_found", "bad_file",
                                    "unsupported", "out_of_memory",    "no_finite_cost", "internal"};
const char* const kPrecisionNames[] = {"fp32", "bf16", "int8"};

Precision choose_precision(lewm_precision precision, cpu::Isa isa) {
  if (precision == LEWM_PRECISION_AUTO) {
    const bool has_dot = (isa == cpu::Isa::avx512 || isa == cpu::Isa::amx) &&
                         cpu::kernels(isa).gemm[static_cast<int>(Precision::bf16)].run != nullptr;
    return has_dot ? Precision::bf16 : Precision::fp32;
  }
  if (precision < LEWM_PRECISION_FP32 || precision > LEWM_PRECISION_INT8) {
    throw Error(Status::invalid_argument,
                "precision: expected auto, fp32, bf16 or int8, got " + std::to_string(precision));
  }
  return static_cast<Precision>(precision - 1);
}

PixelFormat pixel_format(lewm_pixel_format format) {
  if (format < LEWM_RGB || format > LEWM_GREY) {
    throw Error(Status::invalid_argument, "format: expected a lewm_pixel_format, got " + std::to_string(format));
  }
  return static_cast<PixelFormat>(format);
}

Fit fit_of(lewm_fit fit) {
  if (fit < LEWM_STRETCH || fit > LEWM_LETTERBOX) {
    throw Error(Status::invalid_argument, "fit: expected a lewm_fit, got " + std::to_string(fit));
  }
  return static_cast<Fit>(fit);
}

// 0: dense. Rows must not overlap.
std::ptrdiff_t checked_stride(std::ptrdiff_t row_stride, std::int64_t row_bytes) {
  if (row_stride == 0) return static_cast<std::ptrdiff_t>(row_bytes);
  if (row_stride < row_bytes && -row_stride < row_bytes) {
    throw Error(Status::invalid_argument, "row_stride: expected 0 or at least " + std::to_string(row_bytes) +
                                              " bytes either way, got " + std::to_string(row_stride));
  }
  return row_stride;
}

History history_of(const lewm_history& history) {
  return {or_default(history.problems, 1), or_default(history.context, 1), history.latents, history.past_actions};
}

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

}  // namespace

int PlannerParts::call_cost(void* self, const CostArguments& a, float* cost) {
  const auto* parts = static_cast<const PlannerParts*>(self);
  const lewm_cost_arguments arguments{
      sizeof(lewm_cost_arguments), a.problem, a.n, a.horizon, a.latent_dim, a.block_dim, a.latents, a.actions, a.goal};
  return parts->cost(parts->cost_context, &arguments, cost);
}

std::shared_ptr<Planner> PlannerParts::create(const std::shared_ptr<const Model>& model,
                                              const lewm_planner_config& config) {
  const auto parts = std::make_shared<PlannerParts>();
  PlannerOptions options = options_of(config);
  if (config.cost) {
    parts->cost = config.cost;
    parts->cost_context = config.cost_context;
    options.cost = &PlannerParts::call_cost;
    options.cost_context = parts.get();
  }
  parts->planner = std::make_unique<Planner>(model, options, make_pool(threads_of(config.threads)));
  return {parts, parts->planner.get()};
}

const std::uint8_t* lewm_controller::model_frame(const std::uint8_t* pixels, std::ptrdiff_t row_stride) {
  if (!pixels) return nullptr;
  if (resizer) {
    resizer->run(pixels, checked_stride(row_stride, resizer->width() * bytes_per_pixel(resizer->format())),
                 image.data());
    return image.data();
  }
  const std::int64_t row_bytes = 3 * image_size;
  const std::ptrdiff_t stride = checked_stride(row_stride, row_bytes);
  if (stride == row_bytes) return pixels;
  for (std::int64_t y = 0; y < image_size; ++y)
    std::copy_n(pixels + y * stride, row_bytes, image.data() + y * row_bytes);
  return image.data();
}

// ---------------------------------------------------------------------------------------------------------------------
// Errors and version
// ---------------------------------------------------------------------------------------------------------------------

const char* lewm_last_error(void) { return last_error; }

const char* lewm_status_name(lewm_status status) {
  return status >= LEWM_OK && status <= LEWM_INTERNAL ? kStatusNames[status] : "unknown";
}

const char* lewm_version(void) { return LEWM_VERSION_STRING; }

lewm_status lewm_version_check(int major, int minor, int patch) {
  const bool same_series = major == LEWM_VERSION_MAJOR && (major > 0 || minor == LEWM_VERSION_MINOR);
  const bool not_newer = minor < LEWM_VERSION_MINOR || (minor == LEWM_VERSION_MINOR && patch <= LEWM_VERSION_PATCH);
  if (same_series && not_newer) return LEWM_OK;
  std::snprintf(last_error, sizeof last_error, "version: the header is %d.%d.%d, the library " LEWM_VERSION_STRING,
                major, minor, patch);
  return LEWM_UNSUPPORTED;
}

// ---------------------------------------------------------------------------------------------------------------------
// Model
// ---------------------------------------------------------------------------------------------------------------------

lewm_status lewm_model_open(const char* path, const lewm_model_config* config, lewm_model** model) {
  return guarded([&] {
    need("path", path);
    need("model", model);
    *model = nullptr;
    const lewm_model_config chosen = read_or_default("config", config);
    const cpu::Isa isa = cpu::active_isa();
    const Precision precision = choose_precision(chosen.precision, isa);
    auto opened =
        std::make_unique<lewm_model>(lewm_model{Model::open(path, precision, isa), {chosen.log, chosen.log_context}});
    char line[512];
    std::snprintf(line, sizeof line, "lewm " LEWM_VERSION_STRING ": %s: %s on %s, %.1f MB of weights", path,
                  kPrecisionNames[static_cast<int>(precision)], cpu::isa_name(isa),
                  static_cast<double>(opened->model->weight_bytes()) / 1e6);
    opened->log(line);
    *model = opened.release();
    return LEWM_OK;
  });
}

void lewm_model_close(lewm_model* model) { delete model; }

lewm_status lewm_model_get_info(const lewm_model* model, lewm_model_info* info) {
  return guarded([&] {
    need("model", model);
    check_size("info", info);
    const Config& config = model->model->config();
    const std::size_t struct_size = info->struct_size;
    *info = {struct_size,
             config.image_size,
             config.latent_dim,
             config.action_dim,
             config.frame_skip,
             config.block_dim(),
             config.history,
             static_cast<lewm_precision>(static_cast<int>(model->model->precision()) + 1),
             cpu::isa_name(model->model->isa()),
             model->model->weight_bytes()};
    return LEWM_OK;
  });
}

lewm_status lewm_model_get_action_scaling(const lewm_model* model, float* mean, float* std) {
  return guarded([&] {
    need("model", model);
    need("mean", mean);
    need("std", std);
    const ActionScaling& scaling = model->model->action_scaling();
    for (std::int64_t d = 0; d < model->model->config().action_dim; ++d) {
      mean[d] = scaling.mean.empty() ? 0.0f : scaling.mean[static_cast<std::size_t>(d)];
      std[d] = scaling.std.empty() ? 1.0f : scaling.std[static_cast<std::size_t>(d)];
    }
    return LEWM_OK;
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// Workspace
// ---------------------------------------------------------------------------------------------------------------------

lewm_status lewm_workspace_create(const lewm_model* model, const lewm_workspace_config* config,
                                  lewm_workspace** workspace) {
  return guarded([&] {
    need("model", model);
    need("workspace", workspace);
    *workspace = nullptr;
    const lewm_workspace_config chosen = read_or_default("config", config);
    const WorkspaceLimits limits{or_default(chosen.problems, 1), or_default(chosen.horizon, 5)};
    *workspace = new lewm_workspace{{model->model, limits, make_pool(threads_of(chosen.threads))}};
    return LEWM_OK;
  });
}

void lewm_workspace_destroy(lewm_workspace* workspace) { delete workspace; }

lewm_status lewm_encode_u8(lewm_workspace* workspace, const uint8_t* frames, int64_t n, float* latents) {
  return guarded([&] {
    need("workspace", workspace);
    return finish(workspace->workspace.encode(frames, n, latents), workspace->workspace.message());
  });
}

lewm_status lewm_encode_f32(lewm_workspace* workspace, const float* frames, int64_t n, float* latents) {
  return guarded([&] {
    need("workspace", workspace);
    return finish(workspace->workspace.encode(frames, n, latents), workspace->workspace.message());
  });
}

lewm_status lewm_rollout(lewm_workspace* workspace, const lewm_history* history, const float* actions, int64_t samples,
                         int64_t horizon, float* latents) {
  return guarded([&] {
    need("workspace", workspace);
    const History seen = history_of(read("history", history));
    return finish(workspace->workspace.rollout(seen, actions, samples, horizon, latents),
                  workspace->workspace.message());
  });
}

lewm_status lewm_cost(lewm_workspace* workspace, const lewm_history* history, const float* goals, const float* actions,
                      int64_t samples, int64_t horizon, float* cost) {
  return guarded([&] {
    need("workspace", workspace);
    const History seen = history_of(read("history", history));
    return finish(workspace->workspace.cost(seen, goals, actions, samples, horizon, cost),
                  workspace->workspace.message());
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// Frames
// ---------------------------------------------------------------------------------------------------------------------

lewm_status lewm_resizer_create(const lewm_model* model, int64_t width, int64_t height, lewm_pixel_format format,
                                lewm_fit fit, lewm_resizer** resizer) {
  return guarded([&] {
    need("model", model);
    need("resizer", resizer);
    *resizer = nullptr;
    *resizer = new lewm_resizer{
        FrameResizer(width, height, pixel_format(format), model->model->config().image_size, fit_of(fit))};
    return LEWM_OK;
  });
}

void lewm_resizer_destroy(lewm_resizer* resizer) { delete resizer; }

lewm_status lewm_resize(lewm_resizer* resizer, const uint8_t* source, ptrdiff_t row_stride, uint8_t* target) {
  return guarded([&] {
    need("resizer", resizer);
    need("source", source);
    need("target", target);
    FrameResizer& frames = resizer->resizer;
    frames.run(source, checked_stride(row_stride, frames.width() * bytes_per_pixel(frames.format())), target);
    return LEWM_OK;
  });
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
    return LEWM_OK;
  });
}

lewm_status lewm_planner_create(const lewm_model* model, const lewm_planner_config* config, lewm_planner** planner) {
  return guarded([&] {
    need("model", model);
    need("planner", planner);
    *planner = nullptr;
    *planner = new lewm_planner{PlannerParts::create(model->model, read("config", config))};
    return LEWM_OK;
  });
}

void lewm_planner_destroy(lewm_planner* planner) { delete planner; }

lewm_status lewm_plan(lewm_planner* planner, const lewm_plan_request* request, lewm_plan_result* result) {
  return guarded([&] {
    need("planner", planner);
    const PlanRequest wanted = request_of(read("request", request));
    PlanResult out = result_of(read("result", result));
    const Status status = planner->planner->plan(wanted, out);
    if (status == Status::ok) write_back(out, result);
    return finish(status, planner->planner->message());
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
    return finish(status, planner->planner->message());
  });
}

lewm_status lewm_planner_cost(lewm_planner* planner, const lewm_plan_request* request, const float* actions,
                              int64_t samples, float* cost) {
  return guarded([&] {
    need("planner", planner);
    PlanRequest wanted = request_of(read("request", request));
    wanted.warm_start = nullptr;
    return finish(planner->planner->evaluate(wanted, actions, samples, cost), planner->planner->message());
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
    *background =
        new lewm_background{{PlannerParts::create(model->model, chosen), threads_of(chosen.threads), model->log}};
    return LEWM_OK;
  });
}

void lewm_background_destroy(lewm_background* background) { delete background; }

lewm_status lewm_plan_async(lewm_background* background, const lewm_plan_request* request, uint64_t* ticket) {
  return guarded([&] {
    need("background", background);
    const PlanRequest wanted = request_of(read("request", request));
    return finish(background->background.submit(wanted, ticket), background->background.message());
  });
}

lewm_status lewm_plan_async_frames(lewm_background* background, const uint8_t* frames, const uint8_t* goals,
                                   const lewm_plan_request* request, uint64_t* ticket) {
  return guarded([&] {
    need("background", background);
    const PlanRequest wanted = request_of(read("request", request));
    return finish(background->background.submit_frames(frames, goals, wanted, ticket),
                  background->background.message());
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

// ---------------------------------------------------------------------------------------------------------------------
// Controller
// ---------------------------------------------------------------------------------------------------------------------

lewm_status lewm_controller_create(lewm_planner* planner, const lewm_controller_config* config,
                                   lewm_controller** controller) {
  return guarded([&] {
    need("planner", planner);
    need("controller", controller);
    *controller = nullptr;
    const lewm_controller_config chosen = read_or_default("config", config);
    const Config& sizes = planner->planner->model().config();
    if (!(chosen.deadline >= 0)) {
      throw Error(Status::invalid_argument,
                  "deadline: expected at least 0 seconds, got " + std::to_string(chosen.deadline));
    }
    ControllerOptions options;
    options.replan_every = chosen.replan_every;
    options.context = or_default(chosen.context, 1);
    options.warm_start = chosen.no_warm_start == 0;
    options.deadline = chosen.deadline > 0 ? chosen.deadline : kNoDeadline;
    options.low = copy_bound(chosen.low, sizes.action_dim);
    options.high = copy_bound(chosen.high, sizes.action_dim);
    std::unique_ptr<FrameResizer> resizer;
    if (chosen.frame_width) {
      resizer =
          std::make_unique<FrameResizer>(chosen.frame_width, chosen.frame_height, pixel_format(chosen.frame_format),
                                         sizes.image_size, fit_of(chosen.frame_fit));
    }
    const std::size_t bytes = static_cast<std::size_t>(3 * sizes.image_size * sizes.image_size);
    *controller = new lewm_controller{sizes.image_size, std::move(resizer), std::vector<std::uint8_t>(bytes),
                                      Controller(planner->planner, options)};
    return LEWM_OK;
  });
}

void lewm_controller_destroy(lewm_controller* controller) { delete controller; }

lewm_status lewm_controller_reset(lewm_controller* controller) {
  return guarded([&] {
    need("controller", controller);
    controller->controller.reset();
    return LEWM_OK;
  });
}

lewm_status lewm_controller_set_goal(lewm_controller* controller, const uint8_t* pixels, ptrdiff_t row_stride) {
  return guarded([&] {
    need("controller", controller);
    const std::uint8_t* goal = controller->model_frame(pixels, row_stride);
    return finish(controller->controller.set_goal(goal), controller->controller.message());
  });
}

lewm_status lewm_controller_set_goal_latent(lewm_controller* controller, const float* latent) {
  return guarded([&] {
    need("controller", controller);
    return finish(controller->controller.set_goal_latent(latent), controller->controller.message());
  });
}

lewm_status lewm_controller_act(lewm_controller* controller, const uint8_t* pixels, ptrdiff_t row_stride,
                                float* action) {
  return guarded([&] {
    need("controller", controller);
    const bool looks = controller->controller.needs_frame();
    const std::uint8_t* frame = looks ? controller->model_frame(pixels, row_stride) : nullptr;
    return finish(controller->controller.act(frame, action), controller->controller.message());
  });
}

lewm_status lewm_controller_get_info(const lewm_controller* controller, lewm_controller_info* info) {
  return guarded([&] {
    need("controller", controller);
    check_size("info", info);
    const std::size_t struct_size = info->struct_size;
    const Controller& source = controller->controller;
    const Controller::Current current = source.current();
    *info = {struct_size,     source.plans(), source.needs_plan(), source.needs_frame(),
             current.actions, current.cost,   current.iterations,  current.elapsed};
    return LEWM_OK;
  });
}
