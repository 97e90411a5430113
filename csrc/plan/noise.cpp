#include "plan/noise.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

namespace lewm {
namespace {

// Quads are made in batches of fixed length, one array per step, so that the compiler turns each loop into vectors.
constexpr int kBatch = 16;

[[gnu::always_inline]] inline void fill(const philox::Stream& stream, std::uint32_t sample, std::int64_t n,
                                        float* out) {
  const std::uint32_t key0 = static_cast<std::uint32_t>(stream.seed);
  const std::uint32_t key1 = static_cast<std::uint32_t>(stream.seed >> 32);
  for (std::int64_t first = 0; first < n; first += 4 * kBatch) {
    std::uint32_t words[4][kBatch];
    float normals[kBatch][4];
    for (int i = 0; i < kBatch; ++i) {
      const std::uint32_t quad = static_cast<std::uint32_t>(first / 4) + static_cast<std::uint32_t>(i);
      words[0][i] = stream.iteration << 16 | (quad & 0xFFFFu);
      words[1][i] = sample;
      words[2][i] = stream.problem;
      words[3][i] = stream.plan;
    }
    for (int i = 0; i < kBatch; ++i) {
      const philox::Words block =
          philox::block(philox::Words{{words[0][i], words[1][i], words[2][i], words[3][i]}}, key0, key1);
      for (int lane = 0; lane < 4; ++lane) words[lane][i] = block.v[lane];
    }
    for (int pair = 0; pair < 2; ++pair) {
      for (int i = 0; i < kBatch; ++i) {
        const philox::Pair z = philox::normals(words[2 * pair][i], words[2 * pair + 1][i]);
        normals[i][2 * pair] = z.first;
        normals[i][2 * pair + 1] = z.second;
      }
    }
    const std::int64_t count = n - first < 4 * kBatch ? n - first : 4 * kBatch;
    std::memcpy(out + first, normals, static_cast<std::size_t>(count) * sizeof(float));
  }
}

#if defined(__x86_64__)
[[gnu::target("avx2,fma")]] void fill_avx2(const philox::Stream& stream, std::uint32_t sample, std::int64_t n,
                                           float* out) {
  fill(stream, sample, n, out);
}
#endif

}  // namespace

void fill_normals_portable(const philox::Stream& stream, std::uint32_t sample, std::int64_t n, float* out) {
  fill(stream, sample, n, out);
}

void fill_normals(const philox::Stream& stream, std::uint32_t sample, std::int64_t n, float* out) {
#if defined(__x86_64__)
  static const bool vectors = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (vectors) return fill_avx2(stream, sample, n, out);
#endif
  fill_normals_portable(stream, sample, n, out);
}

void hold_noise(float* noise, std::int64_t n, std::int64_t block_dim, std::int64_t action_dim, std::int64_t hold) {
  if (hold == 1) return;
  for (std::int64_t e = 0; e < n; ++e) noise[e] = noise[philox::held_element(e, block_dim, action_dim, hold)];
}

ColouredNoise::ColouredNoise(std::int64_t horizon, float exponent) {
  if (horizon < 2) return;
  // kernel = irfft of the scales s(k) = f(k)^(-exponent/2), f(k) = k / H, with s(0) = s(1).
  kernel_.resize(static_cast<std::size_t>(horizon));
  for (std::int64_t t = 0; t < horizon; ++t) {
    double sum = 0;
    for (std::int64_t k = 0; k < horizon; ++k) {
      const std::int64_t folded = std::max<std::int64_t>(1, std::min(k, horizon - k));
      const double scale = std::pow(static_cast<double>(folded) / static_cast<double>(horizon), -0.5 * exponent);
      const double turn = static_cast<double>(k * t % horizon) / static_cast<double>(horizon);
      sum += scale * std::cos(2 * std::numbers::pi * turn);
    }
    kernel_[static_cast<std::size_t>(t)] = static_cast<float>(sum / static_cast<double>(horizon));
  }
}

// Products of two floats are exact in double, so that these sums do not depend on whether the compiler fuses them.
void ColouredNoise::apply(float* noise, std::int64_t block_dim, float* scratch) const {
  const std::int64_t horizon = static_cast<std::int64_t>(kernel_.size());
  for (std::int64_t a = 0; horizon && a < block_dim; ++a) {
    double mean = 0;
    for (std::int64_t t = 0; t < horizon; ++t) {
      double sum = 0;
      for (std::int64_t u = 0; u < horizon; ++u) {
        const float weight = kernel_[static_cast<std::size_t>(t >= u ? t - u : t - u + horizon)];
        sum += static_cast<double>(weight) * static_cast<double>(noise[u * block_dim + a]);
      }
      scratch[t] = static_cast<float>(sum);
      mean += scratch[t];
    }
    mean /= static_cast<double>(horizon);
    double squares = 0;
    for (std::int64_t t = 0; t < horizon; ++t) {
      const double deviation = static_cast<float>(scratch[t] - mean);
      squares += deviation * deviation;
    }
    const double std = std::sqrt(squares / static_cast<double>(horizon - 1));
    const double inverse = 1.0 / std::max(std, 1e-8);
    for (std::int64_t t = 0; t < horizon; ++t) noise[t * block_dim + a] = static_cast<float>(scratch[t] * inverse);
  }
}

}  // namespace lewm
