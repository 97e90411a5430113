// A model with the threads and workspaces that lewm.Model computes with.
#pragma once

#include <memory>
#include <vector>

#include "model/encoder.h"
#include "model/frame.h"
#include "model/rollout.h"
#include "plan/device.h"
#include "python/bindings.h"

namespace lewm::python {

class ModelHandle {
 public:
  // device: a GPU, or -1 for the CPU.
  ModelHandle(std::shared_ptr<const Model> model, int threads, int device);

  const std::shared_ptr<const Model>& model() const { return model_; }
  int threads() const { return workers_.pool.threads(); }
  const std::shared_ptr<const Device>& device() const { return device_; }  // null: the CPU

  // frames: [n, size, size, 3] uint8 or [n, 3, size, size] float -> latents [n, D]
  // With a device, these and the following arrays may lie in its memory; work is then ordered on `stream`.
  template <class Pixel>
  void encode(const Pixel* frames, std::int64_t n, float* latents, void* stream = nullptr);

  // The same from RGB frames of another size, [n, height, width, 3], resized first.
  void encode_camera(const std::uint8_t* frames, std::int64_t n, std::int64_t height, std::int64_t width, Fit fit,
                     float* latents, void* stream = nullptr);

  struct Candidates {
    const float* latents;  // [B, C, D]
    const float* past;     // [B, C - 1, A] or null
    const float* actions;  // [B, S, H, A]
    std::int64_t problems, context, samples, horizon;
  };
  // latents: [B, S, H, D]
  void rollout(const Candidates& candidates, float* latents, void* stream = nullptr);
  // goal: [B, D], cost: [B, S]
  void cost(const Candidates& candidates, const float* goal, float* cost, void* stream = nullptr);

 private:
  // Calls tile(thread, problem, first candidate, candidates) for every tile of every problem, prepared before.
  template <class Tile>
  void for_each_tile(const Candidates& candidates, const Tile& tile);
  void reserve(std::int64_t problems, std::int64_t horizon);
  // For the size and fit that are asked for, kept until others are.
  struct Resizer {
    Fit fit;
    FrameResizer frames;
    std::unique_ptr<DeviceResizer> on_device;  // null: the CPU
  };
  Resizer& resizer(std::int64_t height, std::int64_t width, Fit fit);
  void throw_unless_ok(Status status) const;

  std::shared_ptr<const Model> model_;
  Workers workers_;
  std::shared_ptr<const Device> device_;
  std::unique_ptr<DeviceEngine> engine_;
  std::unique_ptr<Encoder> encoder_;
  std::unique_ptr<Resizer> resizer_;
  std::vector<std::uint8_t> resized_;  // [at most kFramesAtOnce, size, size, 3]
  std::unique_ptr<Rollout> rollout_;
  RolloutLimits limits_;
  std::vector<float> last_;  // [threads, tile, D], the last latents of the tiles under way
};

}  // namespace lewm::python
