// Vocabulary types shared by every layer of the core.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lewm {

// A model is fp32, bf16 or int8. The others are of layers alone (cpu/kernels.h). int16: those of int8 models that 8
// bits are too coarse for, or all of them where the CPU multiplies no faster in 8 bits; those of bf16 models where it
// multiplies them faster than bf16. int24: those of fp32 models where the CPU multiplies bytes so fast that numbers of
// three of them come out ahead of floats.
enum class Precision : int { fp32 = 0, bf16 = 1, int8 = 2, int16 = 3, int24 = 4 };
constexpr int kPrecisions = 3, kLayerPrecisions = 5;
constexpr bool is_integer(Precision precision) { return precision >= Precision::int8; }
// As exact as floats.
constexpr bool is_exact(Precision precision) { return precision == Precision::fp32 || precision == Precision::int24; }

constexpr std::size_t kAlignment = 64;  // bytes; a cache line and a zmm register

constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace lewm
