// What launches choose their kernels by.
#pragma once

#include <cstdint>

namespace lewm::cuda {

// As many blocks as keep a large GPU busy: with fewer large tiles, small ones are faster.
constexpr std::int64_t kEnoughTiles = 120;

// Whether every row of an array, `stride` elements of `element` bytes apart, begins at a multiple of `bytes`.
inline bool rows_aligned(const void* array, std::int64_t stride, std::int64_t element, std::int64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(array) % static_cast<std::uintptr_t>(bytes) == 0 &&
         stride * element % bytes == 0;
}

}  // namespace lewm::cuda
