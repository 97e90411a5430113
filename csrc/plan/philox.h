// Counter-based noise: Philox4x32-10 and normals from it, the same bits from every compiler, instruction set and
// device.
//
// Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
// Bits stay equal because nothing is left to a maths library or to contraction: every multiply that meets an add is an
// explicit fma, the rest are single IEEE operations (conversion, square root), and the functions are polynomials below.
// Everything is static: these functions are compiled again with wider flags (noise.cpp) and must not be merged at link
// time.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define LEWM_HOST_DEVICE __host__ __device__
#else
#define LEWM_HOST_DEVICE
#endif

namespace lewm::philox {

// The 128-bit counter of four normals; the seed is the 64-bit key (low word first).
//   word 0: iteration << 16 | quad, where a quad is four elements of one sample, element = 4 * quad + lane
//   word 1: sample    word 2: problem id    word 3: plan index
constexpr std::uint32_t kMaxIterations = 1u << 16;
constexpr std::uint32_t kMaxQuads = 1u << 16;

struct Stream {
  std::uint64_t seed;
  std::uint32_t plan;
  std::uint32_t iteration;  // < kMaxIterations
  std::uint32_t problem;
};

struct Words {
  std::uint32_t v[4];
};

// One Philox4x32-10 block.
LEWM_HOST_DEVICE static inline Words block(Words counter, std::uint32_t key0, std::uint32_t key1) {
  std::uint32_t c0 = counter.v[0], c1 = counter.v[1], c2 = counter.v[2], c3 = counter.v[3];
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<std::uint32_t>(p0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

LEWM_HOST_DEVICE static inline Words block(const Stream& stream, std::uint32_t sample, std::uint32_t quad) {
  return block({{stream.iteration << 16 | quad, sample, stream.problem, stream.plan}},
               static_cast<std::uint32_t>(stream.seed), static_cast<std::uint32_t>(stream.seed >> 32));
}

LEWM_HOST_DEVICE static inline float fused(float a, float b, float c) {
#ifdef __CUDA_ARCH__
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

LEWM_HOST_DEVICE static inline float square_root(float x) {
#ifdef __CUDA_ARCH__
  return __fsqrt_rn(x);
#else
  return __builtin_sqrtf(x);
#endif
}

// -ln(u) for u in (0, 1], relative error below 2e-7, given 1 - u too (near 1 it has the digits that u has lost).
// u = 2^e * (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); ln(1 + f) = f - f^2/2 + f^3 P(f).
LEWM_HOST_DEVICE static inline float negative_log(float u, float complement) {
  constexpr std::uint32_t kSqrtHalf = 0x3F3504F3u;  // bits of sqrt(1/2)
  std::uint32_t bits;
  std::memcpy(&bits, &u, sizeof bits);
  bits -= kSqrtHalf;
  const float e = static_cast<float>(static_cast<std::int32_t>(bits) >> 23);
  bits = (bits & 0x007FFFFFu) + kSqrtHalf;
  float m;
  std::memcpy(&m, &bits, sizeof m);
  const float f = e == 0.0f ? -complement : m - 1.0f;
  float p = -0.083050534f;
  p = fused(p, f, 0.12798768f);
  p = fused(p, f, -0.12943469f);
  p = fused(p, f, 0.14190255f);
  p = fused(p, f, -0.16643485f);
  p = fused(p, f, 0.2000188f);
  p = fused(p, f, -0.2500028f);
  p = fused(p, f, 0.33333325f);
  p = fused(p, f, -0.5f);
  p = fused(f * f, p, f);
  return -fused(e, 0.69314718f, p);
}

struct Pair {
  float first, second;
};

// Box-Muller: two words -> two independent standard normals. The first word gives the radius, from 31 bits so that its
// uniform is in (0, 1] and normals reach 6.6; the second the angle in quarter turns, 2 bits of quadrant and a signed
// rest.
LEWM_HOST_DEVICE static inline Pair normals(std::uint32_t radius_word, std::uint32_t angle_word) {
  const std::int32_t x = static_cast<std::int32_t>(radius_word >> 1);
  const float u = fused(static_cast<float>(x), 0x1p-31f, 0x1p-32f);
  const float complement = fused(static_cast<float>(0x7FFFFFFF - x), 0x1p-31f, 0x1p-32f);
  const float radius = square_root(2.0f * negative_log(u, complement));

  const std::uint32_t quadrant = (angle_word + 0x20000000u) >> 30;
  const float t =
      static_cast<float>(static_cast<std::int32_t>(angle_word << 2)) * 0x1p-32f;  // [-1/2, 1/2] of a quarter
  const float tt = t * t;
  float s = 0.00015820675f;  // sin(pi/2 t) / t
  s = fused(s, tt, -0.0046812664f);
  s = fused(s, tt, 0.07969258f);
  s = fused(s, tt, -0.6459641f);
  s = fused(s, tt, 1.5707964f);
  s = s * t;
  float c = -2.4850968e-05f;  // cos(pi/2 t)
  c = fused(c, tt, 0.0009191617f);
  c = fused(c, tt, -0.020863468f);
  c = fused(c, tt, 0.2536695f);
  c = fused(c, tt, -1.2337005f);
  c = fused(c, tt, 1.0f);
  const float cosine = quadrant & 1 ? s : c;
  const float sine = quadrant & 1 ? c : s;
  const float cosine_sign = (quadrant + 1) & 2 ? -1.0f : 1.0f;
  const float sine_sign = quadrant & 2 ? -1.0f : 1.0f;
  return {radius * (cosine_sign * cosine), radius * (sine_sign * sine)};
}

// Element `element` of a sample's noise; the CPU fills whole samples (noise.h), a GPU thread asks for one quad.
LEWM_HOST_DEVICE static inline void normal_quad(const Stream& stream, std::uint32_t sample, std::uint32_t quad,
                                                float out[4]) {
  const Words words = block(stream, sample, quad);
  const Pair low = normals(words.v[0], words.v[1]);
  const Pair high = normals(words.v[2], words.v[3]);
  out[0] = low.first;
  out[1] = low.second;
  out[2] = high.first;
  out[3] = high.second;
}

// The element whose draw element `e` of a sample uses when every `hold` steps of a block share one.
LEWM_HOST_DEVICE static inline std::int64_t held_element(std::int64_t e, std::int64_t block_dim,
                                                         std::int64_t action_dim, std::int64_t hold) {
  return e - e % block_dim / action_dim % hold * action_dim;
}

}  // namespace lewm::philox
