// IEEE half precision -> float. bfloat16 is in cpu/bf16.h, where the kernels share it.
#pragma once

#include <cstdint>
#include <cstring>

namespace lewm {

// Exact for every input: subnormals, infinities and NaN included.
inline float float_from_f16(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t fraction = half & 0x3ffu;
  std::uint32_t bits;
  if (exponent == 0) {
    // Subnormal or zero: fraction * 2^-24, a normal float.
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    std::memcpy(&bits, &magnitude, sizeof bits);
    bits |= sign;
  } else if (exponent == 0x1fu) {
    bits = sign | 0x7f800000u | (fraction << 13);
  } else {
    bits = sign | ((exponent + 112u) << 23) | (fraction << 13);
  }
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace lewm
