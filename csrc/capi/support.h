// What the C interface is made of: the error of a thread, guarded calls, sized structs, handles.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include "core/error.h"
#include "lewm/lewm.h"
#include "model/frame.h"
#include "model/model.h"
#include "plan/background.h"
#include "plan/controller.h"
#include "plan/device.h"
#include "plan/planner.h"
#include "plan/workspace.h"

namespace lewm::capi {

// ---------------------------------------------------------------------------------------------------------------------
// Errors
// ---------------------------------------------------------------------------------------------------------------------

inline thread_local char last_error[512] = "";

// Of a message that is too long (it may hold a path) the middle is left out: what went wrong stands at its end.
inline lewm_status fail(Status status, const char* message) {
  constexpr std::size_t kHalf = sizeof last_error / 2 - 8;
  const std::size_t length = std::strlen(message);
  if (length < sizeof last_error) {
    std::memcpy(last_error, message, length + 1);
  } else {
    std::snprintf(last_error, sizeof last_error, "%.*s ... %s", static_cast<int>(kHalf), message,
                  message + length - kHalf);
  }
  return static_cast<lewm_status>(status);
}

// The status of a call of `core`, its message where it failed.
template <class Core>
lewm_status finish(Status status, const Core& core) {
  return status == Status::ok ? LEWM_OK : fail(status, core.message());
}

// Runs a body that returns lewm_status; every exception becomes a status and this thread's message.
template <class Body>
lewm_status guarded(Body&& body) noexcept {
  try {
    return body();
  } catch (const Error& error) {
    return fail(error.status(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(Status::out_of_memory, "out of memory");
  } catch (const std::length_error&) {
    return fail(Status::out_of_memory, "out of memory: a size that no machine has");
  } catch (const std::system_error& error) {
    return fail(Status::out_of_memory, error.what());
  } catch (const std::exception& error) {
    return fail(Status::internal, error.what());
  } catch (...) {
    return fail(Status::internal, "an exception of unknown type");
  }
}

// Throws unless `pointer` is there.
inline void need(const char* name, const void* pointer) {
  if (!pointer) throw Error(Status::invalid_argument, std::string(name) + ": expected a pointer, got null");
}

// ---------------------------------------------------------------------------------------------------------------------
// Structs that begin with their size
// ---------------------------------------------------------------------------------------------------------------------

// The size of a struct's first version; structs grow at their end only.
template <class T>
constexpr std::size_t kFirstSize = sizeof(T);
template <>
inline constexpr std::size_t kFirstSize<lewm_model_config> = offsetof(lewm_model_config, device);
template <>
inline constexpr std::size_t kFirstSize<lewm_model_info> = offsetof(lewm_model_info, device);

// Refuses a struct that is smaller than the first version of T, or that sets fields which this library does not know.
template <class T>
void check_size(const char* name, const T* sized) {
  constexpr std::size_t kMost = 4096;
  need(name, sized);
  const std::size_t size = sized->struct_size;
  if (size < kFirstSize<T> || size > kMost) {
    throw Error(Status::invalid_argument, std::string(name) + ".struct_size: expected " + std::to_string(sizeof(T)) +
                                              ", got " + std::to_string(size));
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(sized);
  for (std::size_t i = sizeof(T); i < size; ++i) {
    if (bytes[i] == 0) continue;
    throw Error(Status::unsupported,
                std::string(name) + ": sets fields that this version of the library does not know");
  }
}

// What the caller has set; fields of later versions than the caller's are zero.
template <class T>
T read(const char* name, const T* sized) {
  check_size(name, sized);
  T out{};
  std::memcpy(&out, sized, std::min(sized->struct_size, sizeof(T)));
  return out;
}

// Fills as much of a checked struct as the caller knows.
template <class T>
void write(T* to, T from) {
  from.struct_size = to->struct_size;
  std::memcpy(to, &from, std::min(to->struct_size, sizeof(T)));
}

// A config that may be left out.
template <class T>
T read_or_default(const char* name, const T* sized) {
  if (sized) return read(name, sized);
  T defaults{};
  defaults.struct_size = sizeof(T);
  return defaults;
}

// Throws for an array in a GPU's memory where the host has to read it.
inline void need_host(const char* name, const std::shared_ptr<const Device>& device, const void* pointer) {
  if (!pointer || on_host(device.get(), pointer)) return;
  throw Error(Status::invalid_argument, std::string(name) + ": expected host memory, got a GPU's");
}

// Throws for a stream where there is no GPU that it could be of.
inline void need_device(const std::shared_ptr<const Device>& device, const void* stream) {
  if (device || !stream) return;
  throw Error(Status::invalid_argument, "stream: expected null, the model is on the CPU");
}

inline std::int64_t or_default(std::int64_t value, std::int64_t otherwise) { return value ? value : otherwise; }

inline std::vector<float> copy_bound(const float* bound, std::int64_t n) {
  return bound ? std::vector<float>(bound, bound + n) : std::vector<float>();
}

// ---------------------------------------------------------------------------------------------------------------------
// Translations
// ---------------------------------------------------------------------------------------------------------------------

inline ThreadOptions threads_of(const lewm_threads& threads) {
  return {threads.count, threads.cpu_mask, threads.priority};
}

inline PlanRequest request_of(const lewm_plan_request& request) {
  if (!(request.deadline >= 0)) {
    throw Error(Status::invalid_argument,
                "request.deadline: expected at least 0 seconds, got " + std::to_string(request.deadline));
  }
  PlanRequest out;
  out.problems = or_default(request.problems, 1);
  out.context = or_default(request.context, 1);
  out.latents = request.latents;
  out.past_actions = request.past_actions;
  out.goals = request.goals;
  out.warm_start = request.warm_start;
  out.warm_blocks = request.warm_blocks;
  out.problem_ids = request.problem_ids;
  out.plan_index = request.plan_index;
  out.deadline = request.deadline > 0 ? request.deadline : kNoDeadline;
  return out;
}

// A planner and what its cost function is called through.
struct PlannerParts {
  lewm_cost_function cost = nullptr;
  void* cost_context = nullptr;
  std::unique_ptr<Planner> planner;

  static int call_cost(void* self, const CostArguments& arguments, float* cost);
  // Shares the parts' lifetime.
  static std::shared_ptr<Planner> create(const lewm_model& model, const lewm_planner_config& config);
};

}  // namespace lewm::capi

// ---------------------------------------------------------------------------------------------------------------------
// Handles
// ---------------------------------------------------------------------------------------------------------------------

struct lewm_model {
  std::shared_ptr<const lewm::Model> model;
  std::shared_ptr<const lewm::Device> device;  // its weights on a GPU, which then computes; null: the CPU
  lewm::Log log;
};

struct lewm_workspace {
  std::shared_ptr<const lewm::Device> device;
  lewm::Workspace workspace;
};

struct lewm_resizer {
  lewm::FrameResizer resizer;
  std::int64_t image_size;  // what it resizes to
  std::shared_ptr<const lewm::Device> device;
  std::unique_ptr<lewm::DeviceResizer> on_device;  // null: the CPU
};

struct lewm_planner {
  std::shared_ptr<lewm::Planner> planner;
};

struct lewm_background {
  std::shared_ptr<const lewm::Device> device;
  lewm::BackgroundPlanner background;
};

struct lewm_controller {
  // The frame as the model reads it: as given where it already is that, else through `image`.
  const std::uint8_t* model_frame(const std::uint8_t* pixels, std::ptrdiff_t row_stride);

  std::shared_ptr<const lewm::Device> device;
  std::int64_t image_size;
  std::unique_ptr<lewm::FrameResizer> resizer;  // null: frames have the model's size and format
  std::vector<std::uint8_t> image;              // [image_size, image_size, 3]
  lewm::Controller controller;
};
