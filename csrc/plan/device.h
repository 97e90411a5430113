// A model on a GPU, through the CUDA module: its weights, and what encodes, rolls out and plans with them.
#pragma once

#include <memory>
#include <vector>

#include "core/error.h"
#include "cuda/table.h"
#include "model/frame.h"
#include "model/model.h"
#include "plan/checks.h"
#include "plan/noise.h"
#include "plan/options.h"

namespace lewm {

// The weights, in bf16, shared by everything that is made from them.
class Device {
 public:
  // Throws Error(unsupported): there is no CUDA module, driver, GPU `index`, or kernel for the model's sizes; the
  // message says which and what to do. Error(out_of_memory).
  Device(const Model& model, int index, const cuda::Table& table);
  // With the module that belongs to this library.
  static std::shared_ptr<const Device> upload(const Model& model, int index = 0);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const cuda::Table& table() const { return table_; }
  const cuda::DeviceModel* model() const { return model_; }
  int index() const { return index_; }

 private:
  const cuda::Table& table_;
  const int index_;
  cuda::DeviceModel* model_ = nullptr;
};

// checks.finite() for an array that may lie in the device's memory, whose numbers are not looked at. device null: the
// host's.
Status check_finite(Checks& checks, const Device* device, const char* name, const float* values, std::int64_t n);
// Whether the host may follow a pointer. device null: yes.
bool on_host(const Device* device, const void* pointer);

// A FrameResizer's filters on the device.
class DeviceResizer {
 public:
  DeviceResizer(std::shared_ptr<const Device> device, const FrameResizer& frames);
  ~DeviceResizer();
  DeviceResizer(const DeviceResizer&) = delete;
  DeviceResizer& operator=(const DeviceResizer&) = delete;

  const cuda::DeviceResizer* get() const { return resizer_; }

 private:
  std::shared_ptr<const Device> device_;
  cuda::DeviceResizer* resizer_ = nullptr;
};

// The model's functions one by one. Arrays may lie in host or device memory; `stream` is a cudaStream_t or null, and
// with one calls whose arrays all lie in device memory return when the work is enqueued on it. One thread at a time.
class DeviceEngine {
 public:
  DeviceEngine(std::shared_ptr<const Device> device, const cuda::Limits& limits);
  ~DeviceEngine();
  DeviceEngine(const DeviceEngine&) = delete;
  DeviceEngine& operator=(const DeviceEngine&) = delete;

  // Shapes as in plan/workspace.h. Not ok: message() says why.
  Status encode(const std::uint8_t* frames, std::int64_t n, float* latents, void* stream = nullptr);
  Status encode(const float* frames, std::int64_t n, float* latents, void* stream = nullptr);
  // frames: [n, height, width, channels] as the resizer's.
  Status encode(const DeviceResizer& resizer, const std::uint8_t* frames, std::int64_t n, float* latents,
                void* stream = nullptr);
  Status rollout(const cuda::Seen& seen, const float* actions, std::int64_t samples, std::int64_t horizon,
                 float* latents, void* stream = nullptr);
  Status cost(const cuda::Seen& seen, const float* goals, const float* actions, std::int64_t samples,
              std::int64_t horizon, float* cost, void* stream = nullptr);
  const char* message() const { return message_.text; }

 private:
  std::shared_ptr<const Device> device_;
  cuda::Engine* engine_ = nullptr;
  cuda::Message message_{};
};

// A sampling search whose iterations run on the device. One thread at a time.
class DeviceSearch {
 public:
  // Throws Error(unsupported) for options that the device does not have: a cost function, more than 8192 samples.
  DeviceSearch(std::shared_ptr<const Device> device, const PlannerOptions& options, const Config& config,
               std::int64_t tile = 0);
  ~DeviceSearch();
  DeviceSearch(const DeviceSearch&) = delete;
  DeviceSearch& operator=(const DeviceSearch&) = delete;

  // As Search::run; the arrays of request and result may lie in device memory.
  Status plan(const PlanRequest& request, double start, PlanResult& result, void* stream = nullptr);
  // Costs of given candidates, [B, samples, H, A] -> [B, samples].
  Status evaluate(const PlanRequest& request, const float* actions, std::int64_t samples, float* cost,
                  void* stream = nullptr);
  const char* message() const { return message_.text; }

 private:
  std::shared_ptr<const Device> device_;
  const Clock clock_;
  cuda::Search* search_ = nullptr;
  cuda::Message message_{};
};

}  // namespace lewm
