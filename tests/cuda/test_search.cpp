// Sampling, elites and refit of the CUDA backend, on the host run: the same bits as the CPU's.
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "arrays.h"
#include "check.h"
#include "cuda/device.cuh"
#include "cuda/search.cuh"
#include "plan/noise.h"
#include "plan/refit.h"

using namespace lewm::cuda;
using namespace cuda_test;

namespace {

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// As csrc/plan: the mean, kept candidates, then mean + std * noise, coloured or not.
void check_sample(int problems, int samples, int horizon, int width, float exponent, int kept, std::uint32_t iteration,
                  int action_dim = 1, int hold = 1) {
  const int elements = horizon * width;
  const Floats mean = normal(problems * elements, 1), std = normal(problems * elements, 2);
  const Floats low(size(elements), -0.7f), high(size(elements), 0.9f), old = normal(problems * kept * elements, 3);
  const std::vector<std::uint32_t> ids = {5, 0, 9}, iterations(size(problems), iteration), plan = {3};
  const lewm::ColouredNoise colour(exponent > 0 ? horizon : 0, exponent);
  Floats candidates(size(problems * samples * elements)), noise(candidates), expected(candidates);
  Floats scratch(size(horizon));
  Sample args{};
  args.problems = problems;
  args.samples = samples;
  args.elements = elements;
  args.seed = 0x123456789abcdefull;
  args.plan = plan.data();
  args.iteration = iterations.data();
  args.problem_ids = ids.data();
  args.mean = mean.data();
  args.std = std.data();
  args.low = low.data();
  args.high = high.data();
  args.kept = kept;
  args.kept_candidates = old.data();
  args.horizon = horizon;
  args.colour = colour.kernel().empty() ? nullptr : colour.kernel().data();
  args.noise = noise.data();
  args.action_dim = action_dim;
  args.hold = hold;
  args.candidates = candidates.data();
  launch_sample(args, nullptr);
  for (int b = 0; b < problems; ++b) {
    for (int s = 0; s < samples; ++s) {
      float* out = &expected[size((b * samples + s) * elements)];
      lewm::fill_normals({0x123456789abcdefull, 3, iteration, ids[size(b)]}, static_cast<std::uint32_t>(s), elements,
                         out);
      lewm::hold_noise(out, elements, width, action_dim, hold);
      colour.apply(out, width, scratch.data());
      for (int e = 0; e < elements; ++e) {
        const float centre = mean[size(b * elements + e)];
        const float drawn = lewm::philox::fused(std[size(b * elements + e)], out[e], centre);
        out[e] = std::fmin(std::fmax(drawn, low[size(e)]), high[size(e)]);
        if (iteration > 0 && s <= kept && s > 0) out[e] = old[size((b * kept + s - 1) * elements + e)];
        if (s == 0) out[e] = centre;
      }
    }
  }
  CHECK(same_bits(candidates, expected));
}

void check_begin(int problems, int elements, int warm, int k) {
  const Floats start = normal(problems * warm, 7), low(size(elements), -0.3f);
  Floats mean(size(problems * elements), 9.0f), std(mean), initial(mean), initial_cost(size(problems), 9.0f),
      elite_cost(initial_cost);
  Indices elites(size(problems * k), 99), failed(size(problems), 99);
  std::vector<std::uint32_t> iteration(size(problems), 99);
  launch_begin_search(
      {problems, elements, k, warm, start.data(), 0.5f, low.data(), nullptr, mean.data(), std.data(), initial.data(),
       initial_cost.data(), elite_cost.data(), elites.data(), failed.data(), iteration.data()},
      nullptr);
  for (int b = 0; b < problems; ++b) {
    for (int e = 0; e < elements; ++e) {
      const float expected = std::fmax(e < warm ? start[size(b * warm + e)] : 0.0f, -0.3f);
      CHECK_EQ(mean[size(b * elements + e)], expected);
      CHECK_EQ(initial[size(b * elements + e)], expected);
      CHECK_EQ(std[size(b * elements + e)], 0.5f);
    }
    CHECK(std::isnan(initial_cost[size(b)]) && std::isnan(elite_cost[size(b)]));
    CHECK(failed[size(b)] == -1 && iteration[size(b)] == 0);
  }
  CHECK_EQ(std::count(elites.begin(), elites.end(), -1), problems * k);
}

void check_costs(int samples, int problems, int d, std::int64_t first, int count) {
  const Floats latents = normal(count * d, 1), goal = normal(problems * d, 2), actions = normal(count * 3, 3);
  Floats cost(size(samples * problems), 1.0f), before(cost);
  launch_squared_distance({count, d, first, samples, 0.5f, true, latents.data(), goal.data(), cost.data()}, nullptr);
  for (int i = 0; i < samples * problems; ++i) {
    double expected = 1.0;
    for (int j = 0; i >= first && i < first + count && j < d; ++j) {
      const double difference =
          static_cast<double>(latents[size((i - first) * d + j)]) - goal[size(i / samples * d + j)];
      expected += 0.5 * difference * difference;
    }
    CHECK_NEAR(cost[size(i)], expected, 1e-6 * expected * d);
  }
  Floats penalised(size(count), 2.0f);
  launch_action_penalty({count, 3, 0.1f, actions.data(), penalised.data()}, nullptr);
  for (int i = 0; i < count; ++i) {
    double squares = 0;
    for (int j = 0; j < 3; ++j) squares += static_cast<double>(actions[size(i * 3 + j)]) * actions[size(i * 3 + j)];
    CHECK_EQ(penalised[size(i)], 2.0f + static_cast<float>(static_cast<double>(0.1f) * squares));
  }
}

void check_elites(int problems, int samples, int k, const Floats& cost) {
  lewm::cuda::load_kernels();  // more than 6144 samples need more than 48 KiB
  Indices elites(size(problems * k), 99), found(size(problems), 99), order(size(samples));
  launch_select_elites({problems, samples, k, cost.data(), elites.data(), found.data()}, nullptr);
  for (int b = 0; b < problems; ++b) {
    const std::int64_t expected = lewm::select_elites(cost.data() + b * samples, samples, k, order.data());
    CHECK_EQ(std::int64_t{found[size(b)]}, expected);
    for (int i = 0; i < k; ++i) CHECK_EQ(elites[size(b * k + i)], i < expected ? order[size(i)] : -1);
  }
}

// One iteration's candidates and costs, with the elites that the CPU selects. Costs of the first `infinite` candidates
// do not count.
struct Iteration {
  Iteration(int b, int n, int e, int elites_wanted, int infinite)
      : problems(b),
        samples(n),
        elements(e),
        k(elites_wanted),
        candidates(normal(b * n * e, 3)),
        cost(normal(b * n, 4)) {
    std::fill_n(cost.begin(), infinite, std::numeric_limits<float>::infinity());
    elites.assign(size(b * k), -1);
    for (int p = 0; p < b; ++p) {
      Indices order(size(n));
      found.push_back(static_cast<std::int32_t>(lewm::select_elites(&cost[size(p * n)], n, k, order.data())));
      std::copy_n(order.begin(), found.back(), elites.begin() + p * k);
      std::sort(order.begin(), order.begin() + found.back());
      sorted.push_back(order);
    }
  }
  lewm::Elites of(int p) const {
    return {&candidates[size(p * samples * elements)], elements, sorted[size(p)].data(), found[size(p)]};
  }
  Refit refit(int needed, Floats& mean, Floats& std, const float* low) const {
    return {problems,    samples,       elements,     k,   needed,  0.0f,        0.1f,      0.3f, candidates.data(),
            cost.data(), elites.data(), found.data(), low, nullptr, mean.data(), std.data()};
  }
  int problems, samples, elements, k;
  Floats candidates, cost;
  Indices elites, found;
  std::vector<Indices> sorted;
};

void check_refit(int problems, int samples, int elements, int k, float momentum) {
  const Iteration iteration(problems, samples, elements, k, 0);
  Floats mean = normal(problems * elements, 5), std(size(problems * elements), 0.5f);
  Floats expected_mean(mean), expected_std(std);
  Refit args = iteration.refit(k, mean, std, nullptr);
  args.momentum = momentum;
  launch_refit_normal(args, nullptr);
  for (int b = 0; b < problems; ++b) {
    lewm::refit_normal(iteration.of(b), momentum, 0.1f, &expected_mean[size(b * elements)],
                       &expected_std[size(b * elements)]);
  }
  CHECK(same_bits(mean, expected_mean));
  CHECK(same_bits(std, expected_std));
}

void check_softmax(int problems, int samples, int elements, int k, int infinite) {
  const Iteration iteration(problems, samples, elements, k, infinite);
  const Floats low(size(elements), -0.1f);
  Floats mean(size(problems * elements), 7.0f), std(mean), expected(mean), weights(size(samples));
  launch_refit_softmax(iteration.refit(1, mean, std, low.data()), nullptr);
  for (int b = 0; b < problems; ++b) {
    float* out = &expected[size(b * elements)];
    if (iteration.found[size(b)] == 0) continue;  // keeps what it has
    lewm::refit_softmax(iteration.of(b), &iteration.cost[size(b * samples)], 0.3f, weights.data(), out);
    for (int e = 0; e < elements; ++e) out[e] = std::fmax(out[e], -0.1f);
  }
  CHECK(same_bits(mean, expected));
}

// What an iteration leaves behind, when all problems have enough finite costs and when the first has not.
void check_close(int samples, int elements, int k, int kept, int infinite) {
  constexpr int kProblems = 2;
  const Iteration it(kProblems, samples, elements, k, infinite);
  Floats best(size(kProblems * elements), 9.0f), best_cost(kProblems, 9.0f),
      kept_candidates(size(kProblems * kept * elements), 9.0f), elite_cost(kProblems, 9.0f),
      initial_cost(kProblems, 9.0f);
  Floats mean(size(kProblems * elements), 9.0f), std(mean);
  Indices failed(kProblems, -1), failed_found(kProblems, 99);
  std::vector<std::uint32_t> iteration = {0, 0};
  launch_refit_best(it.refit(k, mean, std, nullptr), nullptr);
  for (int round = 0; round < 2; ++round) {
    launch_close_iteration(
        {kProblems, samples, elements, k, k, kept, it.candidates.data(), it.cost.data(), it.elites.data(),
         it.found.data(), best.data(), best_cost.data(), kept_candidates.data(), elite_cost.data(), initial_cost.data(),
         failed.data(), failed_found.data(), iteration.data()},
        nullptr);
  }
  for (int b = 0; b < kProblems; ++b) {
    const float* cost = &it.cost[size(b * samples)];
    CHECK_EQ(iteration[size(b)], 2u);
    CHECK_EQ(initial_cost[size(b)], cost[0]);
    if (it.found[size(b)] < k) {
      CHECK(failed[size(b)] == 0 && failed_found[size(b)] == it.found[size(b)]);
      CHECK_EQ(mean[size(b * elements)], 9.0f);
      continue;
    }
    const std::int32_t* elites = &it.elites[size(b * k)];
    CHECK_EQ(failed[size(b)], -1);
    CHECK_EQ(best_cost[size(b)], cost[elites[0]]);
    CHECK_EQ(elite_cost[size(b)], lewm::mean_cost(cost, it.sorted[size(b)].data(), k));
    for (int e = 0; e < elements; ++e) {
      const auto candidate = [&](int rank) { return it.candidates[size((b * samples + elites[rank]) * elements + e)]; };
      CHECK_EQ(best[size(b * elements + e)], candidate(0));
      CHECK_EQ(mean[size(b * elements + e)], candidate(0));
      for (int i = 0; i < kept; ++i) CHECK_EQ(kept_candidates[size((b * kept + i) * elements + e)], candidate(i));
    }
  }
}

}  // namespace

TEST(candidates_have_the_bits_of_the_cpu) {
  in_every_order([] {
    check_sample(1, 1, 1, 1, 0.0f, 0, 0);
    check_sample(3, 7, 5, 10, 0.0f, 0, 4);
    check_sample(2, 33, 5, 2, 2.0f, 0, 0);
    check_sample(2, 9, 4, 3, 1.0f, 3, 0);
    check_sample(2, 9, 4, 3, 1.0f, 3, 2);
    check_sample(2, 9, 3, 10, 0.0f, 0, 1, 2, 5);
    check_sample(2, 9, 4, 18, 1.0f, 3, 2, 3, 2);
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

TEST(searches_begin_at_the_warm_start) {
  in_every_order([] {
    check_begin(1, 1, 0, 1);
    check_begin(3, 50, 20, 70);
  });
}

TEST(costs_are_squared_distances_and_penalties) {
  in_every_order([] {
    check_costs(1, 1, 1, 0, 1);
    check_costs(7, 3, 40, 5, 11);
  });
}

TEST(softmax_refit_has_the_bits_of_the_cpu) {
  in_every_order([] {
    check_softmax(1, 1, 1, 1, 0);
    check_softmax(2, 40, 50, 40, 5);
    check_softmax(2, 40, 10, 7, 40);
  });
}

TEST(an_iteration_leaves_its_best_and_its_failures) {
  in_every_order([] {
    check_close(6, 5, 3, 2, 0);
    check_close(6, 200, 3, 0, 4);
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
  const Iteration iteration(1, 4, 1, 2, 3);
  Floats mean{7.0f}, std{8.0f};
  launch_refit_normal(iteration.refit(2, mean, std, nullptr), nullptr);
  CHECK_EQ(mean[0], 7.0f);
  CHECK_EQ(std[0], 8.0f);
}

TEST(a_plan_worse_than_its_start_gives_way_to_it) {
  in_every_order([] {
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
    const int problems = 6, elements = 131;
    const Floats initial_cost = {1.0f, 2.0f, nan, 4.0f, infinite, 3.0f};
    Floats cost = {2.0f, 1.0f, 5.0f, nan, nan, 3.0f};  // the first and the fourth are worse than a finite start
    const Floats initial = normal(problems * elements, 1), before = normal(problems * elements, 2);
    Floats mean = before;
    launch_settle({problems, elements, initial.data(), initial_cost.data(), mean.data(), cost.data()}, nullptr);
    for (int i = 0; i < problems * elements; ++i) {
      const bool settles = i / elements == 0 || i / elements == 3;
      CHECK_EQ(mean[size(i)], (settles ? initial : before)[size(i)]);
    }
    CHECK(cost[0] == 1.0f && cost[1] == 1.0f && cost[2] == 5.0f && cost[3] == 4.0f && cost[5] == 3.0f);
    CHECK(std::isnan(cost[4]));
  });
}

CHECK_MAIN
