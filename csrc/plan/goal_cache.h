// Goal latents, kept while the goal frames stay the same: a goal is encoded once, not once per plan.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace lewm {

class GoalCache {
 public:
  GoalCache(std::int64_t most, std::int64_t frame_bytes, std::int64_t latent_dim)
      : frame_bytes_(frame_bytes),
        frames_(static_cast<std::size_t>(most * frame_bytes)),
        latents_(static_cast<std::size_t>(most * latent_dim)) {}

  // Whether latents() are those of these n frames.
  bool holds(const std::uint8_t* frames, std::int64_t n) const {
    return n == n_ && std::memcmp(frames, frames_.data(), static_cast<std::size_t>(n * frame_bytes_)) == 0;
  }

  // Remembers the frames whose latents the caller has written to latents().
  void remember(const std::uint8_t* frames, std::int64_t n) {
    std::memcpy(frames_.data(), frames, static_cast<std::size_t>(n * frame_bytes_));
    n_ = n;
  }
  void forget() { n_ = 0; }

  float* latents() { return latents_.data(); }  // [most, D]

 private:
  std::int64_t frame_bytes_;
  std::int64_t n_ = 0;
  std::vector<std::uint8_t> frames_;  // [most, frame_bytes]
  std::vector<float> latents_;        // [most, D]
};

}  // namespace lewm
