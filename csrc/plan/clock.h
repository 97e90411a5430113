// The time source of deadlines.
#pragma once

#include <chrono>

#include "plan/options.h"

namespace lewm {

inline double seconds(const Clock& clock) {
  if (clock.now) return clock.now(clock.context);
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace lewm
