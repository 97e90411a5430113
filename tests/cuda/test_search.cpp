// Sampling, elites and refit of the CUDA backend, on the host run: the same bits as the CPU's.
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "cuda/search.cuh"
#include "plan/noise.h"
#include "plan/refit.h"

using namespace lewm::cuda;

namespace {

using Floats = std::vector<float>;
using Indices = std::vector<std::int32_t>;

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

Floats normal(std::int64_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  Floats values(size(count));
  for (float& value : values) value = distribution(random);
  return values;
}

template <class Body>
void in_every_order(Body body) {
  for (const auto order : {host::Order::forward, host::Order::backward, host::Order::shuffled}) {
    host::schedule() = {order, order, 11};
    body();
  }
}

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_sample(int problems, int samples, int elements) {
  const Floats mean = normal(problems * elements, 1), std = normal(problems * elements, 2);
  const Floats low(size(elements), -0.7f), high(size(elements), 0.9f);
  const std::vector<std::uint32_t> ids = {5, 0, 9};
  Floats candidates(size(problems * samples * elements)), expected(candidates);
  launch_sample({problems, samples, elements, 0x123456789abcdefull, 3, 4, ids.data(), mean.data(), std.data(),
                 low.data(), high.data(), candidates.data()},
                0);
  for (int b = 0; b < problems; ++b) {
    for (int s = 0; s < samples; ++s) {
      float* out = &expected[size((b * samples + s) * elements)];
      lewm::fill_normals({0x123456789abcdefull, 3, 4, ids[size(b)]}, static_cast<std::uint32_t>(s), elements, out);
      for (int e = 0; e < elements; ++e) {
        const float centre = mean[size(b * elements + e)];
        const float drawn = lewm::philox::fused(std[size(b * elements + e)], out[e], centre);
        out[e] = s == 0 ? centre : std::fmin(std::fmax(drawn, low[size(e)]), high[size(e)]);
      }
    }
  }
  CHECK(same_bits(candidates, expected));
}

void check_elites(int problems, int samples, int k, const Floats& cost) {
  Indices elites(size(problems * k), 99), found(size(problems), 99), order(size(samples));
  launch_select_elites({problems, samples, k, cost.data(), elites.data(), found.data()}, 0);
  for (int b = 0; b < problems; ++b) {
    const std::int64_t expected = lewm::select_elites(cost.data() + b * samples, samples, k, order.data());
    CHECK_EQ(std::int64_t{found[size(b)]}, expected);
    for (int i = 0; i < k; ++i) CHECK_EQ(elites[size(b * k + i)], i < expected ? order[size(i)] : -1);
  }
}

void check_refit(int problems, int samples, int elements, int k, float momentum) {
  const Floats candidates = normal(problems * samples * elements, 3), cost = normal(problems * samples, 4);
  Floats mean = normal(problems * elements, 5), std(size(problems * elements), 0.5f);
  Floats expected_mean(mean), expected_std(std);
  Indices elites(size(problems * k)), found(size(problems), k);
  for (int b = 0; b < problems; ++b) {
    Indices order(size(samples));
    lewm::select_elites(cost.data() + b * samples, samples, k, order.data());
    std::copy_n(order.begin(), k, elites.begin() + b * k);
    std::sort(order.begin(), order.begin() + k);
    lewm::refit_normal({candidates.data() + b * samples * elements, elements, order.data(), k}, momentum, 0.1f,
                       &expected_mean[size(b * elements)], &expected_std[size(b * elements)]);
  }
  launch_refit_normal({problems, samples, elements, k, momentum, 0.1f, candidates.data(), elites.data(), found.data(),
                       nullptr, nullptr, mean.data(), std.data()},
                      0);
  CHECK(same_bits(mean, expected_mean));
  CHECK(same_bits(std, expected_std));
}

}  // namespace

TEST(candidates_have_the_bits_of_the_cpu) {
  in_every_order([] {
    check_sample(1, 1, 1);
    check_sample(3, 7, 50);
    check_sample(2, 33, 10);
  });
}

TEST(elites_ties_and_costs_that_do_not_count) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  in_every_order([&] {
    check_elites(1, 1, 1, {2.0f});
    check_elites(1, 6, 3, {1.0f, 0.5f, 0.5f, 0.5f, 0.5f, 2.0f});
    check_elites(1, 5, 3, {nan, inf, -inf, 1.0f, nan});
    check_elites(1, 3, 2, {nan, inf, -inf});
    check_elites(1, 4, 4, {0.0f, -0.0f, 0.0f, -1.0f});
    check_elites(2, 300, 30, normal(600, 6));
    check_elites(1, 1000, 1000, Floats(1000, 3.0f));
  });
}

TEST(refit_has_the_bits_of_the_cpu) {
  in_every_order([] {
    check_refit(1, 4, 1, 1, 0.0f);
    check_refit(2, 40, 50, 7, 0.0f);
    check_refit(1, 300, 50, 30, 0.3f);
  });
}

TEST(a_problem_with_too_few_finite_costs_keeps_its_distribution) {
  const Floats candidates = normal(4, 1);
  Floats mean{7.0f}, std{8.0f};
  const Indices elites{2, -1}, found{1};
  launch_refit_normal({1, 4, 1, 2, 0.0f, 0.0f, candidates.data(), elites.data(), found.data(), nullptr, nullptr,
                       mean.data(), std.data()},
                      0);
  CHECK_EQ(mean[0], 7.0f);
  CHECK_EQ(std[0], 8.0f);
}

TEST(squared_distance_is_the_sum_over_the_latent) {
  in_every_order([] {
    const int problems = 2, samples = 5, d = 70;
    const Floats latents = normal(problems * samples * d, 1), goal = normal(problems * d, 2);
    Floats cost(size(problems * samples), -1.0f);
    launch_squared_distance({problems, samples, d, latents.data(), goal.data(), cost.data()}, 0);
    for (int i = 0; i < problems * samples; ++i) {
      double sum = 0;
      for (int j = 0; j < d; ++j) {
        const double difference = latents[size(i * d + j)] - goal[size(i / samples * d + j)];
        sum += difference * difference;
      }
      CHECK_NEAR(cost[size(i)], sum, 1e-5 * sum);
    }
  });
}

CHECK_MAIN
