// Philox4x32-10 against its published vectors; normals against their distribution; equal bits from both compilations.
#include <algorithm>
#include <set>
#include <vector>

#include "check.h"
#include "plan/noise.h"
#include "plan_twin.h"

using namespace lewm;

namespace {

bool equal(const philox::Words& words, std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  return words.v[0] == a && words.v[1] == b && words.v[2] == c && words.v[3] == d;
}

// n normals, 64 elements a sample.
std::vector<float> many_normals(std::size_t n) {
  std::vector<float> out(n);
  const philox::Stream stream{42, 0, 0, 0};
  for (std::size_t i = 0; i < n; i += 64) fill_normals(stream, static_cast<std::uint32_t>(i / 64), 64, out.data() + i);
  return out;
}

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

}  // namespace

TEST(philox_known_answers) {  // kat_vectors of Random123
  CHECK(equal(philox::block({{0, 0, 0, 0}}, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  constexpr std::uint32_t kOnes = 0xffffffff;
  CHECK(equal(philox::block({{kOnes, kOnes, kOnes, kOnes}}, kOnes, kOnes), 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
              0x6d5451fd));
  CHECK(equal(philox::block({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0), 0xd16cfe09,
              0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(counter_layout) {
  const philox::Stream stream{0x0123456789abcdefull, 11, 7, 5};
  const philox::Words words = philox::block(stream, 3, 2);
  const philox::Words by_hand = philox::block({{7u << 16 | 2u, 3, 5, 11}}, 0x89abcdef, 0x01234567);
  CHECK(equal(words, by_hand.v[0], by_hand.v[1], by_hand.v[2], by_hand.v[3]));
}

TEST(normals_follow_box_muller) {
  constexpr double kTolerance = 2e-6;  // absolute, of normals up to 6.7
  double worst = 0;
  for (std::uint32_t sample = 0; sample < 2000; ++sample) {
    const philox::Stream stream{9, sample, 1, 2};
    float got[50];
    fill_normals(stream, sample, 50, got);
    const twin::Sequence expected = twin::white_noise(stream, sample, 50);
    for (std::size_t e = 0; e < 50; ++e) worst = std::max(worst, std::fabs(got[e] - expected[e]));
  }
  CHECK(worst < kTolerance);
}

TEST(extreme_words_give_finite_normals) {
  const std::uint32_t words[] = {0u,          1u,          2u,          0x1fffffffu, 0x20000000u,
                                 0x3fffffffu, 0x40000000u, 0x7fffffffu, 0x80000000u, 0xa0000000u,
                                 0xdfffffffu, 0xe0000000u, 0xfffffffeu, 0xffffffffu};
  for (const std::uint32_t radius : words) {
    for (const std::uint32_t angle : words) {
      const philox::Pair z = philox::normals(radius, angle);
      CHECK(std::isfinite(z.first) && std::isfinite(z.second));
      CHECK(std::hypot(z.first, z.second) < 6.7f);
      const double expected = std::sqrt(-2 * std::log(((radius >> 1) + 0.5) / 0x1p31));
      CHECK_NEAR(std::hypot(z.first, z.second), expected, 1e-6 * (1 + expected));
    }
  }
}

TEST(vector_and_portable_bits_are_equal) {
  for (const std::int64_t n : {1, 3, 4, 5, 50, 63, 64, 65, 200, 1003}) {
    std::vector<float> fast(static_cast<std::size_t>(n)), plain(fast.size());
    for (std::uint32_t sample = 0; sample < 200; ++sample) {
      const philox::Stream stream{77, 1, sample, 3};
      fill_normals(stream, sample, n, fast.data());
      fill_normals_portable(stream, sample, n, plain.data());
      CHECK(std::memcmp(fast.data(), plain.data(), fast.size() * sizeof(float)) == 0);
      float quad[4];
      philox::normal_quad(stream, sample, static_cast<std::uint32_t>((n - 1) / 4), quad);
      CHECK(std::memcmp(&quad[(n - 1) % 4], &fast[fast.size() - 1], sizeof(float)) == 0);
    }
  }
}

TEST(moments) {
  constexpr std::size_t kCount = 1 << 20;
  const std::vector<float> z = many_normals(kCount);
  double moment[5] = {};
  for (const float value : z) {
    for (int p = 1; p <= 4; ++p) moment[p] += std::pow(value, p) / kCount;
  }
  const double sigma = 1 / std::sqrt(static_cast<double>(kCount));  // of the mean; 5 sigma of each moment's spread
  CHECK_NEAR(moment[1], 0, 5 * sigma);
  CHECK_NEAR(moment[2], 1, 5 * sigma * std::sqrt(2));
  CHECK_NEAR(moment[3], 0, 5 * sigma * std::sqrt(15));
  CHECK_NEAR(moment[4], 3, 5 * sigma * std::sqrt(96));
}

TEST(kolmogorov_smirnov) {
  std::vector<float> z = many_normals(1 << 18);
  std::sort(z.begin(), z.end());
  double distance = 0;
  const double n = static_cast<double>(z.size());
  for (std::size_t i = 0; i < z.size(); ++i) {
    const double cdf = normal_cdf(z[i]);
    distance = std::max(
        {distance, std::fabs(cdf - static_cast<double>(i) / n), std::fabs(cdf - static_cast<double>(i + 1) / n)});
  }
  CHECK(distance * std::sqrt(n) < 1.95);  // exceeded by chance once in a thousand seeds
}

TEST(lanes_and_samples_are_uncorrelated) {
  constexpr std::size_t kCount = 1 << 18;
  const std::vector<float> z = many_normals(kCount);
  for (const std::size_t lag : {1, 2, 3, 4, 64, 128}) {
    double sum = 0;
    for (std::size_t i = 0; i + lag < kCount; ++i) sum += static_cast<double>(z[i]) * z[i + lag];
    CHECK_NEAR(sum / kCount, 0, 5 / std::sqrt(static_cast<double>(kCount)));
  }
}

TEST(every_counter_field_matters) {
  std::set<float> seen;
  std::size_t made = 0;
  const auto add = [&](const philox::Stream& stream, std::uint32_t sample) {
    float z[8];
    fill_normals(stream, sample, 8, z);
    seen.insert(z, z + 8);
    made += 8;
  };
  add({1, 0, 0, 0}, 0);
  add({2, 0, 0, 0}, 0);
  add({1ull << 32, 0, 0, 0}, 0);
  add({1, 1, 0, 0}, 0);
  add({1, 0, 1, 0}, 0);
  add({1, 0, 0, 1}, 0);
  add({1, 0, 0, 0}, 1);
  CHECK_EQ(seen.size(), made);
}

TEST(coloured_noise_follows_its_spectrum) {
  constexpr double kTolerance = 1e-5;
  for (const std::size_t horizon : {1, 2, 3, 5, 8, 16}) {
    constexpr std::size_t kWidth = 3;
    const ColouredNoise colour(static_cast<std::int64_t>(horizon), 2.0f);
    std::vector<float> scratch(horizon);
    for (std::uint32_t sample = 0; sample < 50; ++sample) {
      const philox::Stream stream{5, 0, 0, 0};
      std::vector<float> got(horizon * kWidth);
      fill_normals(stream, sample, static_cast<std::int64_t>(got.size()), got.data());
      colour.apply(got.data(), kWidth, scratch.data());
      twin::Sequence expected = twin::white_noise(stream, sample, got.size());
      if (horizon > 1) twin::colour(expected, horizon, 2.0);
      for (std::size_t e = 0; e < got.size(); ++e)
        CHECK_NEAR(got[e], expected[e], kTolerance * (1 + std::fabs(expected[e])));
    }
  }
}

CHECK_MAIN
