// The model's functions one by one, for callers that plan themselves: encode, rollout, cost.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/thread_pool.h"
#include "model/encoder.h"
#include "model/rollout.h"
#include "plan/checks.h"
#include "plan/device.h"

namespace lewm {

struct WorkspaceLimits {
  std::int64_t problems = 1;                       // B, most problems of a call
  std::int64_t horizon = 5;                        // H, most blocks of a candidate
  std::shared_ptr<const Device> device = nullptr;  // the model's weights on a GPU, which then computes; null: the CPU
};

// B problems: what has been seen and done. The caller owns the arrays.
struct History {
  std::int64_t problems;
  std::int64_t context;       // C, 1..history
  const float* latents;       // [B, C, D]
  const float* past_actions;  // [B, C - 1, A], standardised; null when C is 1
};

// Construction allocates and throws Error; everything else does neither. One thread at a time.
class Workspace {
 public:
  Workspace(std::shared_ptr<const Model> model, const WorkspaceLimits& limits, std::shared_ptr<ThreadPool> pool);

  // [n, image_size, image_size, 3] uint8 RGB, or [n, 3, image_size, image_size] normalised float -> [n, D]
  Status encode(const std::uint8_t* frames, std::int64_t n, float* latents) noexcept;
  Status encode(const float* frames, std::int64_t n, float* latents) noexcept;
  // The same from camera frames, [n, height, width, channels]: resized, then encoded, both on the device where there is
  // one; `on_device` are then the resizer's filters there, else null.
  Status encode(FrameResizer& resizer, const DeviceResizer* on_device, const std::uint8_t* frames, std::int64_t n,
                float* latents) noexcept;

  // With a device: what calls from now on are ordered on, a cudaStream_t; null: a stream of the workspace's own. Arrays
  // may lie in the device's memory; where all do and there is a stream, calls return when the work is enqueued.
  void set_stream(void* stream) { stream_ = stream; }

  // actions: [B, S, H, A] standardised -> latents: [B, S, H, D]
  Status rollout(const History& seen, const float* actions, std::int64_t samples, std::int64_t horizon,
                 float* latents) noexcept;
  // actions: [B, S, H, A], goals: [B, D] -> cost: [B, S], squared distance of the last latent
  Status cost(const History& seen, const float* goals, const float* actions, std::int64_t samples, std::int64_t horizon,
              float* cost) noexcept;

  const char* message() const { return checks_.message(); }
  const Model& model() const { return *model_; }

 private:
  // Status::ok for arrays that can be encoded; with n = 0 they may be null.
  Status check_frames(const void* frames, std::int64_t n, const float* latents);
  template <class Pixel>
  Status encode_frames(const Pixel* frames, std::int64_t n, float* latents);
  Status check(const History& seen, const float* actions, std::int64_t samples, std::int64_t horizon);
  Status from_device(Status status);

  // What computes on the CPU.
  struct Host {
    Host(const std::shared_ptr<const Model>& model, const WorkspaceLimits& limits, ThreadPool& pool);
    Encoder encoder;
    Rollout rollout;
    std::vector<float> last;           // [threads, tile, D], the last latents of a tile
    std::vector<std::uint8_t> frames;  // [kFrames, size, size, 3], of camera frames
    static constexpr std::int64_t kFrames = 8;
  };

  std::shared_ptr<const Model> model_;
  const WorkspaceLimits limits_;
  std::shared_ptr<ThreadPool> pool_;
  std::unique_ptr<Host> host_;  // either of the two
  std::unique_ptr<DeviceEngine> device_;
  void* stream_ = nullptr;
  Checks checks_;
};

}  // namespace lewm
