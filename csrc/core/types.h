// Vocabulary types shared by every layer of the core.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lewm {

// A model is fp32, bf16 or int8. int16 is of layers alone: those of int8 models that 8 bits are too coarse for, or all
// of them where the CPU multiplies no faster in 8 bits (cpu/kernels.h).
enum class Precision : int { fp32 = 0, bf16 = 1, int8 = 2, int16 = 3 };
constexpr int kPrecisions = 3, kLayerPrecisions = 4;
constexpr bool is_integer(Precision precision) { return precision >= Precision::int8; }

constexpr std::size_t kAlignment = 64;  // bytes; a cache line and a zmm register

constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace lewm
