// bfloat16 <-> float for code without vector instructions. Internal linkage: per-ISA files may include this.
#pragma once

#include <cstdint>
#include <cstring>

namespace lewm::cpu {

[[maybe_unused]] static inline std::uint32_t float_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

[[maybe_unused]] static inline float bits_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Round to nearest even; NaN stays NaN.
[[maybe_unused]] static inline std::uint16_t bf16_from_float(float value) {
  const std::uint32_t bits = float_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

[[maybe_unused]] static inline float float_from_bf16(std::uint16_t value) {
  return bits_float(static_cast<std::uint32_t>(value) << 16);
}

}  // namespace lewm::cpu
