// lewm: world-model inference and planning for C++17. Header-only RAII over lewm.h, which documents shapes, defaults
// and threads; here handles free themselves, failures are lewm::Error, and arrays are spans whose sizes are checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lewm/lewm.h"

namespace lewm {
// An inline namespace of its own: these classes never meet those that the library is made of.
inline namespace cxx {

// A view of contiguous numbers: from anything with data() and size(), or a pointer and a size.
template <class T>
class Span {
 public:
  constexpr Span() = default;
  constexpr Span(T* data, std::size_t size) : data_(data), size_(size) {}
  template <std::size_t N>
  constexpr Span(T (&array)[N]) : data_(array), size_(N) {}
  template <class Container,
            class = std::enable_if_t<std::is_convertible_v<decltype(std::declval<Container&>().data()), T*>>>
  constexpr Span(Container&& container) : data_(container.data()), size_(container.size()) {}

  constexpr T* data() const { return data_; }
  constexpr std::size_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr T* begin() const { return data_; }
  constexpr T* end() const { return data_ + size_; }
  constexpr T& operator[](std::size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

class Error : public std::runtime_error {
 public:
  Error(lewm_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  lewm_status status() const noexcept { return status_; }

 private:
  lewm_status status_;
};

namespace detail {

inline void check(lewm_status status) {
  if (status != LEWM_OK) throw Error(status, lewm_last_error());
}

template <class T>
void need_size(const char* name, Span<T> span, std::int64_t expected) {
  if (static_cast<std::int64_t>(span.size()) == expected) return;
  throw Error(LEWM_INVALID_ARGUMENT, std::string(name) + ": expected " + std::to_string(expected) + " elements, got " +
                                         std::to_string(span.size()));
}

// How many times `unit` elements there are.
template <class T>
std::int64_t need_multiple(const char* name, Span<T> span, std::int64_t unit) {
  const auto size = static_cast<std::int64_t>(span.size());
  if (size % unit == 0) return size / unit;
  throw Error(LEWM_INVALID_ARGUMENT, std::string(name) + ": expected a multiple of " + std::to_string(unit) +
                                         " elements, got " + std::to_string(size));
}

// Zeroed, with its size.
template <class T>
T sized() {
  T out{};
  out.struct_size = sizeof(T);
  return out;
}

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* handle) const {
    Free(handle);
  }
};
template <class T, auto Free>
using Handle = std::unique_ptr<T, Deleter<Free>>;

}  // namespace detail

// Throws when this header and the library that was loaded do not fit together.
inline void check_version() {
  detail::check(lewm_version_check(LEWM_VERSION_MAJOR, LEWM_VERSION_MINOR, LEWM_VERSION_PATCH));
}

// Action in the environment's units = standardised action * std + mean.
struct Scaling {
  std::vector<float> mean, std;  // [action_dim]
};

// How many devices of a kind there are. Throws where the kind cannot be used, with what to do.
inline int device_count(lewm_device device) {
  std::int32_t count = 0;
  detail::check(lewm_device_count(device, &count));
  return count;
}

// A deployment file, opened. Copies share it.
class Model {
 public:
  explicit Model(const std::string& path, lewm_precision precision = LEWM_PRECISION_AUTO,
                 lewm_device device = LEWM_DEVICE_CPU, std::int32_t device_index = 0) {
    lewm_model_config config = detail::sized<lewm_model_config>();
    config.precision = precision;
    config.device = device;
    config.device_index = device_index;
    open(path, config);
  }
  Model(const std::string& path, const lewm_model_config& config) { open(path, config); }

  const lewm_model_info& info() const { return info_; }
  // Bytes of a frame as the model reads it: [image_size, image_size, 3] uint8.
  std::size_t frame_size() const { return static_cast<std::size_t>(3 * info_.image_size * info_.image_size); }
  Scaling action_scaling() const {
    const auto n = static_cast<std::size_t>(info_.action_dim);
    Scaling scaling{std::vector<float>(n), std::vector<float>(n)};
    detail::check(lewm_model_get_action_scaling(handle_.get(), scaling.mean.data(), scaling.std.data()));
    return scaling;
  }
  const lewm_model* get() const { return handle_.get(); }

 private:
  void open(const std::string& path, const lewm_model_config& config) {
    lewm_model* model = nullptr;
    detail::check(lewm_model_open(path.c_str(), &config, &model));
    handle_.reset(model, lewm_model_close);
    detail::check(lewm_model_get_info(model, &info_));
  }
  std::shared_ptr<lewm_model> handle_;
  lewm_model_info info_ = detail::sized<lewm_model_info>();
};

class Resizer;

// Encoding, rollouts and costs, for callers that plan themselves. One problem, context 1 to history. Results are
// returned, or go to the span given for them; on a GPU that span, and the arguments', may view the GPU's memory.
class Workspace {
 public:
  explicit Workspace(const Model& model, lewm_workspace_config config = detail::sized<lewm_workspace_config>())
      : info_(model.info()), frame_size_(model.frame_size()) {
    lewm_workspace* workspace = nullptr;
    detail::check(lewm_workspace_create(model.get(), &config, &workspace));
    handle_.reset(workspace);
  }

  // On a GPU: a cudaStream_t that calls are ordered on from now on; null: the workspace's own.
  void set_stream(void* stream) { detail::check(lewm_workspace_set_stream(handle_.get(), stream)); }

  // frames: [n, image_size, image_size, 3] uint8 RGB -> [n, D]
  std::vector<float> encode(Span<const std::uint8_t> frames) { return encoded(lewm_encode_u8, frames); }
  void encode(Span<const std::uint8_t> frames, Span<float> latents) { encode_with(lewm_encode_u8, frames, latents); }
  // frames: [n, 3, image_size, image_size], normalised -> [n, D]
  std::vector<float> encode(Span<const float> frames) { return encoded(lewm_encode_f32, frames); }
  void encode(Span<const float> frames, Span<float> latents) { encode_with(lewm_encode_f32, frames, latents); }

  // The same from camera frames of the resizer's size and format: [n, height, width, channels] -> [n, D]
  std::vector<float> encode(Resizer& resizer, Span<const std::uint8_t> frames);
  void encode(Resizer& resizer, Span<const std::uint8_t> frames, Span<float> latents);

  // latents: [C, D], past_actions: [C - 1, A], actions: [S, H, A] -> [S, H, D]
  std::vector<float> rollout(Span<const float> latents, Span<const float> past_actions, Span<const float> actions,
                             std::int64_t samples, std::int64_t horizon) {
    check(latents, past_actions, actions, samples, horizon);
    std::vector<float> out(static_cast<std::size_t>(samples * horizon * info_.latent_dim));
    rollout(latents, past_actions, actions, samples, horizon, out);
    return out;
  }
  void rollout(Span<const float> latents, Span<const float> past_actions, Span<const float> actions,
               std::int64_t samples, std::int64_t horizon, Span<float> predicted) {
    const lewm_history history = check(latents, past_actions, actions, samples, horizon);
    detail::need_size("predicted", predicted, samples * horizon * info_.latent_dim);
    detail::check(lewm_rollout(handle_.get(), &history, actions.data(), samples, horizon, predicted.data()));
  }

  // The same, and goal: [D] -> [S]
  std::vector<float> cost(Span<const float> latents, Span<const float> past_actions, Span<const float> goal,
                          Span<const float> actions, std::int64_t samples, std::int64_t horizon) {
    check(latents, past_actions, actions, samples, horizon);
    std::vector<float> out(static_cast<std::size_t>(samples));
    cost(latents, past_actions, goal, actions, samples, horizon, out);
    return out;
  }
  void cost(Span<const float> latents, Span<const float> past_actions, Span<const float> goal,
            Span<const float> actions, std::int64_t samples, std::int64_t horizon, Span<float> costs) {
    const lewm_history history = check(latents, past_actions, actions, samples, horizon);
    detail::need_size("goal", goal, info_.latent_dim);
    detail::need_size("costs", costs, samples);
    detail::check(lewm_cost(handle_.get(), &history, goal.data(), actions.data(), samples, horizon, costs.data()));
  }

 private:
  template <class Pixel>
  using Encode = lewm_status (*)(lewm_workspace*, const Pixel*, std::int64_t, float*);
  template <class Pixel>
  void encode_with(Encode<Pixel> function, Span<const Pixel> frames, Span<float> latents) {
    const std::int64_t n = detail::need_multiple("frames", frames, static_cast<std::int64_t>(frame_size_));
    detail::need_size("latents", latents, n * info_.latent_dim);
    detail::check(function(handle_.get(), frames.data(), n, latents.data()));
  }
  template <class Pixel>
  std::vector<float> encoded(Encode<Pixel> function, Span<const Pixel> frames) {
    const std::int64_t n = detail::need_multiple("frames", frames, static_cast<std::int64_t>(frame_size_));
    std::vector<float> latents(static_cast<std::size_t>(n * info_.latent_dim));
    encode_with(function, frames, Span<float>(latents));
    return latents;
  }
  lewm_history check(Span<const float> latents, Span<const float> past_actions, Span<const float> actions,
                     std::int64_t samples, std::int64_t horizon) const {
    lewm_history history = detail::sized<lewm_history>();
    history.context = static_cast<std::int64_t>(latents.size()) / info_.latent_dim;
    if (history.context < 1) throw Error(LEWM_INVALID_ARGUMENT, "latents: expected at least one latent");
    constexpr std::int64_t kMost = std::int64_t{1} << 31;
    if (samples < 1 || horizon < 1 || samples > kMost || horizon > kMost / samples) {
      throw Error(LEWM_INVALID_ARGUMENT, "samples, horizon: expected at least 1, and at most 2^31 blocks together");
    }
    detail::need_size("latents", latents, history.context * info_.latent_dim);
    detail::need_size("past_actions", past_actions, (history.context - 1) * info_.block_dim);
    detail::need_size("actions", actions, samples * horizon * info_.block_dim);
    history.latents = latents.data();
    history.past_actions = past_actions.data();
    return history;
  }
  lewm_model_info info_;
  std::size_t frame_size_;
  detail::Handle<lewm_workspace, lewm_workspace_destroy> handle_;
};

// Camera frames of one size and format -> the model's square RGB image.
class Resizer {
 public:
  Resizer(const Model& model, std::int64_t width, std::int64_t height, lewm_pixel_format format = LEWM_RGB,
          lewm_fit fit = LEWM_STRETCH)
      : image_(model.frame_size()) {
    lewm_resizer* resizer = nullptr;
    detail::check(lewm_resizer_create(model.get(), width, height, format, fit, &resizer));
    handle_.reset(resizer);
    source_size_ = static_cast<std::size_t>(width * height * channels(format));
  }

  // Valid until the next call. row_stride: bytes; 0: dense.
  Span<const std::uint8_t> operator()(const std::uint8_t* source, std::ptrdiff_t row_stride = 0) {
    detail::check(lewm_resize(handle_.get(), source, row_stride, image_.data()));
    return image_;
  }

  std::size_t source_size() const { return source_size_; }  // bytes of a source frame
  lewm_resizer* get() const { return handle_.get(); }

 private:
  static std::int64_t channels(lewm_pixel_format format) {
    return format == LEWM_GREY ? 1 : format == LEWM_RGB || format == LEWM_BGR ? 3 : 4;
  }
  std::vector<std::uint8_t> image_;
  std::size_t source_size_;
  detail::Handle<lewm_resizer, lewm_resizer_destroy> handle_;
};

inline std::vector<float> Workspace::encode(Resizer& resizer, Span<const std::uint8_t> frames) {
  std::vector<float> latents(static_cast<std::size_t>(
      detail::need_multiple("frames", frames, static_cast<std::int64_t>(resizer.source_size())) * info_.latent_dim));
  encode(resizer, frames, latents);
  return latents;
}

inline void Workspace::encode(Resizer& resizer, Span<const std::uint8_t> frames, Span<float> latents) {
  const std::int64_t n = detail::need_multiple("frames", frames, static_cast<std::int64_t>(resizer.source_size()));
  detail::need_size("latents", latents, n * info_.latent_dim);
  detail::check(lewm_encode_frames(handle_.get(), resizer.get(), frames.data(), n, latents.data()));
}

// The published settings of a method, to be changed field by field.
inline lewm_planner_config planner_config(lewm_method method = LEWM_CEM) {
  lewm_planner_config config;
  detail::check(lewm_planner_config_init(&config, sizeof config, method));
  return config;
}

// A plan for one problem.
struct Plan {
  std::vector<float> actions;  // [H, A], standardised
  float cost = 0;
  std::int64_t iterations = 0;
  double elapsed = 0;  // seconds
};

namespace detail {

// A plan's arrays, and the C struct that points to them.
class PlanBuffer {
 public:
  // config: of a planner that exists, so that its sizes have been checked.
  void resize(const lewm_model_info& info, const lewm_planner_config& config) {
    plan_.actions.resize(static_cast<std::size_t>(config.horizon * info.block_dim));
  }
  lewm_plan_result result() {
    lewm_plan_result result = sized<lewm_plan_result>();
    result.actions = plan_.actions.data();
    result.cost = &plan_.cost;
    return result;
  }
  const Plan& finish(const lewm_plan_result& result) {
    plan_.iterations = result.iterations;
    plan_.elapsed = result.elapsed;
    return plan_;
  }
  const Plan& plan() const { return plan_; }

 private:
  Plan plan_;
};

inline lewm_planner_config one_problem(lewm_planner_config config) {
  config.problems = 1;
  return config;
}

}  // namespace detail

// What may vary from plan to plan, beside what is seen and wanted.
struct PlanOptions {
  Span<const float> warm_start;    // [blocks, A], at most H blocks
  Span<const float> past_actions;  // [C - 1, A], with more than one context frame
  std::uint32_t plan_index = 0;
  double deadline = 0;  // seconds; 0: none
};

// Plans one problem at a time. (For batches use lewm_plan over get().) The constructor sizes everything: no plan
// allocates.
class Planner {
 public:
  explicit Planner(const Model& model, const lewm_planner_config& config = planner_config())
      : info_(model.info()), frame_size_(model.frame_size()) {
    const lewm_planner_config one = detail::one_problem(config);
    lewm_planner* planner = nullptr;
    detail::check(lewm_planner_create(model.get(), &one, &planner));
    handle_.reset(planner);
    buffer_.resize(info_, one);
  }

  // frames: [C, image_size, image_size, 3] uint8 RGB, oldest first; goal: [image_size, image_size, 3]. The plan is
  // valid until the next call.
  const Plan& plan(Span<const std::uint8_t> frames, Span<const std::uint8_t> goal, const PlanOptions& options = {}) {
    const std::int64_t context = static_cast<std::int64_t>(frames.size() / frame_size_);
    detail::need_size("frames", frames, (context ? context : 1) * static_cast<std::int64_t>(frame_size_));
    detail::need_size("goal", goal, static_cast<std::int64_t>(frame_size_));
    const lewm_plan_request request = request_of(context, options);
    lewm_plan_result result = buffer_.result();
    detail::check(lewm_plan_frames(handle_.get(), frames.data(), goal.data(), &request, &result));
    return buffer_.finish(result);
  }

  // On a GPU: a cudaStream_t that plans are ordered on from now on; null: the planner's own.
  void set_stream(void* stream) { detail::check(lewm_planner_set_stream(handle_.get(), stream)); }

  // latents: [C, D]; goal: [D]. The plan is valid until the next call.
  const Plan& plan_latents(Span<const float> latents, Span<const float> goal, const PlanOptions& options = {}) {
    lewm_plan_result result = buffer_.result();
    plan_latents(latents, goal, options, result);
    return buffer_.finish(result);
  }
  // The same into arrays of the caller's (the struct's pointers), which on a GPU may lie in its memory, as latents and
  // goal may.
  void plan_latents(Span<const float> latents, Span<const float> goal, const PlanOptions& options,
                    lewm_plan_result& result) {
    const std::int64_t context = static_cast<std::int64_t>(latents.size()) / info_.latent_dim;
    detail::need_size("latents", latents, (context ? context : 1) * info_.latent_dim);
    detail::need_size("goal", goal, info_.latent_dim);
    lewm_plan_request request = request_of(context, options);
    request.latents = latents.data();
    request.goals = goal.data();
    detail::check(lewm_plan(handle_.get(), &request, &result));
  }

  const lewm_model_info& info() const { return info_; }
  lewm_planner* get() const { return handle_.get(); }

 private:
  lewm_plan_request request_of(std::int64_t context, const PlanOptions& options) const {
    lewm_plan_request request = detail::sized<lewm_plan_request>();
    request.context = context;
    request.warm_blocks = detail::need_multiple("warm_start", options.warm_start, info_.block_dim);
    detail::need_size("past_actions", options.past_actions, (context > 1 ? context - 1 : 0) * info_.block_dim);
    request.warm_start = options.warm_start.data();
    request.past_actions = options.past_actions.data();
    request.plan_index = options.plan_index;
    request.deadline = options.deadline;
    return request;
  }
  lewm_model_info info_;
  std::size_t frame_size_;
  detail::PlanBuffer buffer_;
  detail::Handle<lewm_planner, lewm_planner_destroy> handle_;
};

// Plans on a thread of its own; the loop hands requests over and reads the newest finished plan, never waiting.
class BackgroundPlanner {
 public:
  explicit BackgroundPlanner(const Model& model, const lewm_planner_config& config = planner_config())
      : info_(model.info()), frame_size_(model.frame_size()) {
    const lewm_planner_config one = detail::one_problem(config);
    lewm_background* background = nullptr;
    detail::check(lewm_background_create(model.get(), &one, &background));
    handle_.reset(background);
    buffer_.resize(info_, one);
  }

  // frame, goal: [image_size, image_size, 3] uint8 RGB. warm_start: [blocks, A]. Returns the request's ticket.
  std::uint64_t submit(Span<const std::uint8_t> frame, Span<const std::uint8_t> goal, Span<const float> warm_start = {},
                       std::uint32_t plan_index = 0, double deadline = 0) {
    detail::need_size("frame", frame, static_cast<std::int64_t>(frame_size_));
    detail::need_size("goal", goal, static_cast<std::int64_t>(frame_size_));
    lewm_plan_request request = detail::sized<lewm_plan_request>();
    request.warm_blocks = detail::need_multiple("warm_start", warm_start, info_.block_dim);
    request.warm_start = warm_start.data();
    request.plan_index = plan_index;
    request.deadline = deadline;
    std::uint64_t ticket = 0;
    detail::check(lewm_plan_async_frames(handle_.get(), frame.data(), goal.data(), &request, &ticket));
    return ticket;
  }

  // The ticket of the newest finished plan, 0 while there is none; plan() is that plan. Throws when that plan failed.
  std::uint64_t latest() {
    lewm_plan_result result = buffer_.result();
    std::uint64_t ticket = 0;
    detail::check(lewm_latest(handle_.get(), &result, &ticket));
    if (ticket) buffer_.finish(result);
    return ticket;
  }
  const Plan& plan() const { return buffer_.plan(); }
  lewm_background* get() const { return handle_.get(); }

 private:
  lewm_model_info info_;
  std::size_t frame_size_;
  detail::PlanBuffer buffer_;
  detail::Handle<lewm_background, lewm_background_destroy> handle_;
};

inline lewm_controller_config controller_config() { return detail::sized<lewm_controller_config>(); }

// Frames in, environment actions out. The planner is the controller's alone while it lives.
class Controller {
 public:
  explicit Controller(const Planner& planner, const lewm_controller_config& config = controller_config())
      : action_(static_cast<std::size_t>(planner.info().action_dim)), latent_dim_(planner.info().latent_dim) {
    lewm_controller* controller = nullptr;
    detail::check(lewm_controller_create(planner.get(), &config, &controller));
    handle_.reset(controller);
  }

  void reset() { detail::check(lewm_controller_reset(handle_.get())); }

  // pixels: frames as the config says, rows row_stride bytes apart (0: dense).
  void set_goal(const std::uint8_t* pixels, std::ptrdiff_t row_stride = 0) {
    detail::check(lewm_controller_set_goal(handle_.get(), pixels, row_stride));
  }
  void set_goal_latent(Span<const float> latent) {
    detail::need_size("latent", latent, latent_dim_);
    detail::check(lewm_controller_set_goal_latent(handle_.get(), latent.data()));
  }

  // [action_dim], valid until the next call. pixels may be null when info().needs_frame is 0.
  Span<const float> act(const std::uint8_t* pixels, std::ptrdiff_t row_stride = 0) {
    detail::check(lewm_controller_act(handle_.get(), pixels, row_stride, action_.data()));
    return action_;
  }

  lewm_controller_info info() const {
    lewm_controller_info info = detail::sized<lewm_controller_info>();
    detail::check(lewm_controller_get_info(handle_.get(), &info));
    return info;
  }
  lewm_controller* get() const { return handle_.get(); }

 private:
  std::vector<float> action_;
  std::int64_t latent_dim_;
  detail::Handle<lewm_controller, lewm_controller_destroy> handle_;
};

}  // namespace cxx
}  // namespace lewm
