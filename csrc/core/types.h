// Vocabulary types shared by every layer of the core.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lewm {

enum class Precision : int { fp32 = 0, bf16 = 1, int8 = 2 };
constexpr int kPrecisions = 3;

constexpr std::size_t kAlignment = 64;  // bytes; a cache line and a zmm register

constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace lewm
