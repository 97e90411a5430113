// What planning with a deadline expects of the next step's duration.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lewm {

// A duration in seconds predicted from the last ones: the second longest of the last 64, so that a single hiccup of the
// machine changes nothing, a lasting change is followed, and what another process takes now and then is expected.
class Prediction {
 public:
  double seconds() const { return seconds_; }

  void observe(double measured) {
    recent_[count_++ % kRecent] = measured;
    double longest = 0, second = 0;
    const std::uint64_t held = std::min<std::uint64_t>(count_, kRecent);
    for (std::uint64_t i = 0; i < held; ++i) {
      second = std::max(second, std::min(longest, recent_[i]));
      longest = std::max(longest, recent_[i]);
    }
    seconds_ = held > 1 ? second : longest;
  }

  void expect_at_most(double most) {
    for (double& value : recent_) value = std::min(value, most);
    seconds_ = std::min(seconds_, most);
  }

 private:
  static constexpr std::uint64_t kRecent = 64;
  double recent_[kRecent] = {};
  std::uint64_t count_ = 0;
  double seconds_ = 0;
};

}  // namespace lewm
