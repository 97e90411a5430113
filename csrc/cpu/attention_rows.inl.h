// Rows of queries, keys and values, stored as float or bf16. Include after rows.inl.h.
#pragma once

#include "cpu/bf16.h"

namespace lewm::cpu::LEWM_SIMD {

struct FloatRow {
  using Element = float;
  const float* p;
  explicit FloatRow(const void* data) : p(static_cast<const float*>(data)) {}
  LEWM_METHOD F at(std::int64_t i, std::int64_t n) const { return load_some(p + i, n); }
  LEWM_METHOD std::uint32_t element(std::int64_t i) const { return float_bits(p[i]); }  // bits as a float
  // kLanes words from word w on, of kGroup elements each.
  template <int kGroup>
  LEWM_METHOD F words(std::int64_t w) const {
    static_assert(kGroup == 1);
    return load(p + w);
  }
};

struct Bf16Row {
  using Element = std::uint16_t;
  const std::uint16_t* p;
  explicit Bf16Row(const void* data) : p(static_cast<const std::uint16_t*>(data)) {}
  LEWM_METHOD F at(std::int64_t i, std::int64_t n) const { return n == kLanes ? load(p + i) : load_n(p + i, n); }
  LEWM_METHOD std::uint32_t element(std::int64_t i) const { return static_cast<std::uint32_t>(p[i]) << 16; }
  template <int kGroup>
  LEWM_METHOD F words(std::int64_t w) const {
    if constexpr (kGroup == 1) return load(p + w);
    return load(reinterpret_cast<const float*>(p + kGroup * w));
  }
};

// Two neighbours of a row, or two tokens' elements, as one word of bf16 GEMM input.
LEWM_INLINE std::uint32_t pair_word(std::uint32_t first, std::uint32_t second) { return first >> 16 | second; }

}  // namespace lewm::cpu::LEWM_SIMD
