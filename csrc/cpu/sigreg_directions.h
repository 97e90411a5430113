// What every instruction set shares of drawing directions. Internal linkage: per-ISA files include this.
//
// Row 4j + i of direction m is normal i of counter (j, m, 0, 0) under the seed (plan/philox.h), divided by the length
// of the column; rounding is fixed by the order of operations, so that the bits are the same everywhere.
#pragma once

#include <cmath>
#include <cstdint>

#include "plan/philox.h"

namespace lewm::cpu {
namespace {

// philox::block for kLanes counters at once, in place: a loop over lanes inside each round is what compilers vectorise.
template <int kLanes>
[[maybe_unused]] inline void sigreg_philox(std::uint64_t seed, std::uint32_t (&words)[4][kLanes]) {
  std::uint32_t key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * words[0][lane];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * words[2][lane];
      words[0][lane] = static_cast<std::uint32_t>(p1 >> 32) ^ words[1][lane] ^ key0;
      words[1][lane] = static_cast<std::uint32_t>(p1);
      words[2][lane] = static_cast<std::uint32_t>(p0 >> 32) ^ words[3][lane] ^ key1;
      words[3][lane] = static_cast<std::uint32_t>(p0);
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

// 1 / sqrt(square); 0 for a column whose normals were all zero.
[[maybe_unused]] inline double sigreg_inverse_length(double square) {
  return square > 0 ? 1.0 / __builtin_sqrt(square) : 0.0;
}

}  // namespace
}  // namespace lewm::cpu
