// SIGReg against the formula in double: every instruction set, odd shapes, extreme scales, collapsed embeddings.
#include <algorithm>
#include <limits>
#include <numbers>
#include <random>

#include "check.h"
#include "core/error.h"
#include "cpu/bf16.h"
#include "cpu/sigreg.h"
#include "cpu_reference.h"

using namespace lewm;
using namespace lewm::cpu;

namespace {

constexpr double kValueTolerance = 1e-5;     // relative
constexpr double kGradientTolerance = 1e-4;  // of the gradient's norm

struct Case {
  std::int64_t steps, batch, dim, num_proj, knots;
  double t_max = 3.0;
  double scale = 1.0;
  bool collapsed = false;  // every sample of a time step equal
};

std::vector<float> embeddings(const Case& c, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> z(static_cast<std::size_t>(c.steps * c.batch * c.dim));
  for (float& x : z) x = static_cast<float>(c.scale) * normal(engine);
  if (c.collapsed) {
    for (std::int64_t t = 0; t < c.steps; ++t) {
      float* step = z.data() + t * c.batch * c.dim;
      for (std::int64_t b = 1; b < c.batch; ++b) std::copy_n(step, c.dim, step + b * c.dim);
    }
  }
  return z;
}

SigregInput input_of(const Case& c, const std::vector<float>& z, std::uint64_t seed) {
  SigregInput in;
  in.z = z.data();
  in.steps = c.steps;
  in.batch = c.batch;
  in.dim = c.dim;
  in.num_proj = c.num_proj;
  in.knots = c.knots;
  in.t_max = c.t_max;
  in.seed = seed;
  return in;
}

// The formula of sigreg.h, term by term; u: [D, M].
struct Reference {
  double value = 0;
  std::vector<double> gradient;

  Reference(const Case& c, const std::vector<float>& z, const std::vector<float>& u) : gradient(z.size()) {
    const double delta = c.t_max / static_cast<double>(c.knots - 1);
    std::vector<double> p(static_cast<std::size_t>(c.batch));
    for (std::int64_t t = 0; t < c.steps; ++t) {
      for (std::int64_t m = 0; m < c.num_proj; ++m) {
        for (std::int64_t b = 0; b < c.batch; ++b) {
          double sum = 0;
          for (std::int64_t d = 0; d < c.dim; ++d) {
            sum += static_cast<double>(z[index(c, t, b, d)]) * static_cast<double>(u[at(d * c.num_proj + m)]);
          }
          p[at(b)] = sum;
        }
        std::vector<double> slope(p.size());
        for (std::int64_t k = 0; k < c.knots; ++k) {
          const double s = delta * static_cast<double>(k), phi = std::exp(-s * s / 2);
          const double weight = (k == 0 || k == c.knots - 1 ? 1 : 2) * delta * phi;
          double mean_cos = 0, mean_sin = 0;
          for (double x : p) {
            mean_cos += std::cos(s * x) / static_cast<double>(c.batch);
            mean_sin += std::sin(s * x) / static_cast<double>(c.batch);
          }
          const double error = mean_cos - phi;
          value += static_cast<double>(c.batch) * weight * (error * error + mean_sin * mean_sin);
          for (std::size_t b = 0; b < p.size(); ++b) {
            slope[b] += 2 * weight * s * (mean_sin * std::cos(s * p[b]) - error * std::sin(s * p[b]));
          }
        }
        for (std::int64_t b = 0; b < c.batch; ++b) {
          for (std::int64_t d = 0; d < c.dim; ++d) {
            gradient[index(c, t, b, d)] += slope[at(b)] * static_cast<double>(u[at(d * c.num_proj + m)]) / count(c);
          }
        }
      }
    }
    value /= count(c);
  }

  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
  static std::size_t index(const Case& c, std::int64_t t, std::int64_t b, std::int64_t d) {
    return at((t * c.batch + b) * c.dim + d);
  }
  static double count(const Case& c) { return static_cast<double>(c.steps * c.num_proj); }
};

double relative_distance(const std::vector<float>& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

// Value and gradient from every instruction set, with directions drawn and given.
void check_case(const Case& c) {
  const std::vector<float> z = embeddings(c, 11);
  std::vector<float> u(static_cast<std::size_t>(c.dim * c.num_proj)), gradient(z.size());
  sigreg_directions(5, c.dim, c.num_proj, u.data());
  const Reference expected(c, z, u);
  for (Isa isa : cpu::testing::tiers()) {
    Sigreg sigreg(isa, 2);
    SigregInput in = input_of(c, z, 5);
    for (const float* directions : {static_cast<const float*>(nullptr), static_cast<const float*>(u.data())}) {
      in.directions = directions;
      const double value = sigreg.value(in, gradient.data());
      CHECK_NEAR(value / expected.value, 1.0, kValueTolerance);
      CHECK_NEAR(relative_distance(gradient, expected.gradient), 0.0, kGradientTolerance);
      CHECK_EQ(sigreg.value(in, nullptr), value);
    }
  }
}

}  // namespace

TEST(value_and_gradient_at_odd_shapes) {
  check_case({4, 128, 192, 40, 17});
  check_case({1, 1, 1, 1, 2});
  check_case({3, 2, 5, 1, 17});
  check_case({2, 97, 33, 35, 17});    // a row past a block, a column past a strip
  check_case({1, 13, 7, 700, 9});     // more directions than a tile
  check_case({400, 100, 1, 512, 2});  // more time steps than a group
  check_case({1, 10, 3, 5, 150, 6.0});
  check_case({1, 10, 3, 5, 5, 0.5});
}

TEST(value_and_gradient_at_extreme_scales) {
  for (double scale : {0.01, 0.1, 10.0, 100.0}) {
    for (std::int64_t dim : {1, 192}) {
      check_case({1, 2, dim, 1, 17, 3.0, scale});
      check_case({2, 50, dim, 20, 17, 3.0, scale});
    }
  }
  check_case({1, 2, 8, 1, 17, 3.0, 1e4});
}

TEST(value_and_gradient_of_collapsed_embeddings) {
  for (double scale : {0.01, 1.0, 100.0}) check_case({2, 40, 16, 8, 17, 3.0, scale, true});
}

// The statistic of a Gaussian batch is a small difference of large sums: C - phi is about 1 / sqrt(B).
TEST(value_and_gradient_of_a_large_batch) {
  check_case({1, 100000, 1, 1, 17});
  check_case({1, 100000, 3, 2, 17});
}

TEST(bf16_embeddings_are_read_exactly) {
  const Case c{2, 31, 20, 17, 17};
  std::vector<float> z = embeddings(c, 3);
  std::vector<std::uint16_t> narrow(z.size());
  for (std::size_t i = 0; i < z.size(); ++i) {
    narrow[i] = bf16_from_float(z[i]);
    z[i] = float_from_bf16(narrow[i]);
  }
  for (Isa isa : cpu::testing::tiers()) {
    for (double t_max : {3.0, 300.0}) {  // summed in float, and in double
      Sigreg sigreg(isa, 1);
      SigregInput in = input_of(c, z, 9);
      in.t_max = t_max;
      std::vector<float> expected(z.size()), gradient(z.size());
      const double value = sigreg.value(in, expected.data());
      in.z = narrow.data();
      in.storage = Store::bf16;
      CHECK_EQ(sigreg.value(in, gradient.data()), value);
      CHECK(gradient == expected);
    }
  }
}

TEST(results_do_not_depend_on_threads) {
  const Case c{2, 9000, 12, 70, 17};  // three chunks of samples
  const std::vector<float> z = embeddings(c, 1);
  for (Isa isa : cpu::testing::tiers()) {
    if (isa == Isa::scalar) continue;  // slow, and the threading is the same
    const SigregInput in = input_of(c, z, 2);
    std::vector<float> one(z.size()), three(z.size());
    Sigreg single(isa, 1), several(isa, 3);
    CHECK_EQ(single.value(in, one.data()), several.value(in, three.data()));
    CHECK(one == three);
  }
}

TEST(every_instruction_set_draws_the_same_directions) {
  const Case c{1, 1, 190, 70, 3};
  std::vector<float> u(static_cast<std::size_t>(c.dim * c.num_proj));
  sigreg_directions(77, c.dim, c.num_proj, u.data());
  for (std::int64_t m = 0; m < c.num_proj; ++m) {
    double square = 0;
    for (std::int64_t d = 0; d < c.dim; ++d) {
      const double x = static_cast<double>(u[static_cast<std::size_t>(d * c.num_proj + m)]);
      square += x * x;
    }
    CHECK_NEAR(square, 1.0, 1e-6);
  }
  const std::vector<float> z = embeddings(c, 8);
  for (Isa isa : cpu::testing::tiers()) {
    Sigreg sigreg(isa, 1);
    SigregInput in = input_of(c, z, 77);
    const double drawn = sigreg.value(in, nullptr);
    in.directions = u.data();
    CHECK_EQ(sigreg.value(in, nullptr), drawn);
  }
}

// What two ranks do: sums of their shares, added; then each its own part of the gradient.
TEST(sums_of_shares_give_the_whole) {
  const Case whole{3, 50, 10, 40, 17};
  const std::vector<float> z = embeddings(whole, 21);
  const std::int64_t split = 13, sizes = whole.steps * whole.num_proj * 2 * whole.knots;
  for (Isa isa : cpu::testing::tiers()) {
    Sigreg sigreg(isa, 2);
    std::vector<float> expected(z.size());
    const double value = sigreg.value(input_of(whole, z, 4), expected.data());

    std::vector<double> total(static_cast<std::size_t>(sizes));
    std::vector<float> shares[2];
    Case share[2] = {whole, whole};
    share[0].batch = split;
    share[1].batch = whole.batch - split;
    for (int rank = 0; rank < 2; ++rank) {
      for (std::int64_t t = 0; t < whole.steps; ++t) {
        const auto begin = z.begin() + (t * whole.batch + rank * split) * whole.dim;
        shares[rank].insert(shares[rank].end(), begin, begin + share[rank].batch * whole.dim);
      }
      std::vector<double> sums(total.size());
      sigreg.sums(input_of(share[rank], shares[rank], 4), sums.data());
      for (std::size_t i = 0; i < total.size(); ++i) total[i] += sums[i];
    }
    CHECK_NEAR(sigreg_statistic(total.data(), input_of(whole, z, 4), 50.0) / value, 1.0, kValueTolerance);
    for (int rank = 0; rank < 2; ++rank) {
      std::vector<float> gradient(shares[rank].size());
      std::vector<double> part;
      sigreg.gradient(input_of(share[rank], shares[rank], 4), total.data(), 50.0, 2.0, gradient.data());
      for (std::int64_t t = 0; t < whole.steps; ++t) {
        const auto begin = expected.begin() + (t * whole.batch + rank * split) * whole.dim;
        for (auto x = begin; x != begin + share[rank].batch * whole.dim; ++x) part.push_back(2.0 * *x);
      }
      CHECK_NEAR(relative_distance(gradient, part), 0.0, kValueTolerance);
    }
  }
}

TEST(nan_reaches_value_and_gradient) {
  const Case c{2, 20, 6, 9, 17};
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> z = embeddings(c, 1), gradient(z.size());
    z[30] = bad;
    for (Isa isa : cpu::testing::tiers()) {
      CHECK(std::isnan(Sigreg(isa, 1).value(input_of(c, z, 2), gradient.data())));
      CHECK(std::isnan(gradient[30]));
      CHECK(std::isfinite(gradient[static_cast<std::size_t>(c.batch * c.dim)]));  // the other time step
    }
  }
}

TEST(sizes_out_of_range_are_named) {
  const Case c{1, 4, 3, 2, 17};
  const std::vector<float> z = embeddings(c, 1);
  Sigreg sigreg(active_isa(), 1);
  SigregInput in = input_of(c, z, 0);
  in.knots = 1;
  CHECK_THROWS(sigreg.value(in, nullptr), Error, "knots: expected 2..");
  in = input_of(c, z, 0);
  in.batch = 0;
  CHECK_THROWS(sigreg.value(in, nullptr), Error, "batch: expected 1..");
  in = input_of(c, z, 0);
  in.num_proj = 0;
  CHECK_THROWS(sigreg.value(in, nullptr), Error, "num_proj: expected 1..");
  in = input_of(c, z, 0);
  in.t_max = 0;
  CHECK_THROWS(sigreg.value(in, nullptr), Error, "t_max: expected a positive number, got 0");
}

CHECK_MAIN
