// What the kernels of sample.cu and refit.cu share.
#pragma once

#include "cuda/device.cuh"

namespace lewm::cuda {

inline unsigned blocks_for(std::int64_t items, int per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

__device__ __forceinline__ float clip(float value, const float* low, const float* high, int element) {
  if (low) value = fmaxf(value, low[element]);
  if (high) value = fminf(value, high[element]);
  return value;
}

// Sorts after every finite cost, whatever its index.
constexpr std::uint64_t kNever = ~std::uint64_t{0};

// Costs as integers in the same order (-0 equals 0), then the index: ties go to the lower one.
__device__ __forceinline__ std::uint64_t sort_key(float cost, int index) {
  std::uint32_t bits = __float_as_uint(cost);
  if ((bits & 0x7f800000u) == 0x7f800000u) return kNever;  // NaN or infinite
  if (bits == 0x80000000u) bits = 0;
  bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  if (LEWM_FAULT(kTieToHigherIndex)) index = ~index;
  return std::uint64_t{bits} << 32 | static_cast<std::uint32_t>(index);
}

}  // namespace lewm::cuda
