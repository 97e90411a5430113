// Models, tiers and comparisons that the tests of csrc/model share.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/isa.h"
#include "model/model.h"
#include "naive_model.h"

namespace model_test {

using lewm::Config;
using lewm::Precision;

// DESIGN.md section 6.
constexpr double kFp32Tolerance = 1e-4;
constexpr double kLowPrecisionCosine = 0.999;

constexpr const char* kPrecisionNames[] = {"fp32", "bf16", "int8"};

struct Tier {
  lewm::cpu::Isa isa;
  Precision precision;
  std::string name() const {
    return std::string(lewm::cpu::isa_name(isa)) + " " + kPrecisionNames[static_cast<int>(precision)];
  }
};

// Everything that this machine runs.
inline std::vector<Tier> tiers() {
  std::vector<Tier> all;
  for (int i = 0; i < lewm::cpu::kIsas; ++i) {
    const auto isa = static_cast<lewm::cpu::Isa>(i);
    if (!lewm::cpu::isa_available(isa)) continue;
    for (int p = 0; p < lewm::kPrecisions; ++p) {
      const Tier tier{isa, static_cast<Precision>(p)};
      if (lewm::cpu::has(lewm::cpu::kernels(isa), tier.precision)) all.push_back(tier);
    }
  }
  return all;
}

inline std::vector<Tier> fp32_tiers() {
  std::vector<Tier> all = tiers();
  std::erase_if(all, [](const Tier& tier) { return tier.precision != Precision::fp32; });
  return all;
}

inline std::shared_ptr<const lewm::Model> make_model(const Config& config, const naive::Tensors& tensors, Tier tier) {
  return lewm::Model::create(config, tensors, {}, {}, tier.precision, tier.isa);
}

// Small, and odd wherever a kernel could assume a multiple of something.
inline Config small_config() {
  Config c;
  c.image_size = 20;
  c.patch_size = 5;
  c.encoder_dim = 36;
  c.encoder_depth = 3;
  c.encoder_heads = 3;
  c.encoder_mlp_dim = 50;
  c.latent_dim = 24;
  c.projector_dim = 70;
  c.pred_proj_dim = 52;
  c.history = 3;
  c.predictor_depth = 2;
  c.predictor_heads = 3;
  c.predictor_head_dim = 8;
  c.predictor_mlp_dim = 56;
  c.predictor_dim = 24;
  c.predictor_output_dim = 24;
  c.action_dim = 5;
  c.frame_skip = 5;
  c.action_smoothed_dim = 7;
  c.action_mlp_scale = 2;
  return c;
}

inline std::vector<float> random_floats(std::size_t n, std::uint64_t seed) {
  naive::Generator generator(seed);
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>(generator.normal());
  return values;
}

inline std::vector<std::uint8_t> random_frames(const Config& config, std::size_t n, std::uint64_t seed) {
  naive::Generator generator(seed);
  std::vector<std::uint8_t> frames(n * static_cast<std::size_t>(3 * config.image_size * config.image_size));
  for (std::uint8_t& byte : frames) byte = static_cast<std::uint8_t>(generator.bits() >> 24);
  return frames;
}

// The tolerance of the tier's precision, between a latent and its reference.
inline void check_latent(const float* got, const naive::Vector& expected, Tier tier, const std::string& what) {
  double worst = 0, dot = 0, a = 0, b = 0;
  bool finite = true;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double x = got[i], y = expected[i];
    finite = finite && std::isfinite(x);
    worst = std::max(worst, std::fabs(x - y));
    dot += x * y;
    a += x * x;
    b += y * y;
  }
  const double cosine = dot / std::sqrt(a * b);
  const bool good =
      finite && (tier.precision == Precision::fp32 ? worst <= kFp32Tolerance : cosine >= kLowPrecisionCosine);
  if (!good) {
    check::fail(__FILE__, __LINE__,
                tier.name() + ", " + what + ": worst difference " + std::to_string(worst) + ", cosine " +
                    std::to_string(cosine));
  }
}

inline bool same_bytes(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace model_test
