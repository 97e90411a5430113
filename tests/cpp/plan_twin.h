// The planners again, in plain double precision and without any of their machinery: what the tests compare with.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <functional>
#include <numbers>
#include <numeric>
#include <vector>

#include "plan/options.h"
#include "plan/philox.h"

namespace twin {

using Sequence = std::vector<double>;                 // [H * A]
using Cost = std::function<double(const Sequence&)>;  // of one candidate

// Element e of the noise of a sample: Philox words through the maths library's Box-Muller.
inline Sequence white_noise(const lewm::philox::Stream& stream, std::uint32_t sample, std::size_t elements) {
  Sequence noise;
  for (std::uint32_t quad = 0; noise.size() < elements; ++quad) {
    const lewm::philox::Words words = lewm::philox::block(stream, sample, quad);
    for (int pair = 0; pair < 2; ++pair) {
      const double u = ((words.v[2 * pair] >> 1) + 0.5) / 0x1p31;
      const double angle = 2 * std::numbers::pi * words.v[2 * pair + 1] / 0x1p32;
      noise.push_back(std::sqrt(-2 * std::log(u)) * std::cos(angle));
      noise.push_back(std::sqrt(-2 * std::log(u)) * std::sin(angle));
    }
  }
  noise.resize(elements);
  return noise;
}

// Scales the discrete spectrum of every block dimension by f^(-exponent/2) and divides by the unbiased std.
inline void colour(Sequence& noise, std::size_t horizon, double exponent) {
  const std::size_t width = noise.size() / horizon;
  for (std::size_t a = 0; a < width; ++a) {
    std::vector<std::complex<double>> spectrum(horizon);
    for (std::size_t k = 0; k < horizon; ++k) {
      for (std::size_t t = 0; t < horizon; ++t) {
        spectrum[k] +=
            noise[t * width + a] * std::polar(1.0, -2 * std::numbers::pi * static_cast<double>(k * t) / horizon);
      }
      const double f = static_cast<double>(std::max<std::size_t>(1, std::min(k, horizon - k))) / horizon;
      spectrum[k] *= std::pow(f, -exponent / 2);
    }
    Sequence series(horizon);
    for (std::size_t t = 0; t < horizon; ++t) {
      std::complex<double> sum = 0;
      for (std::size_t k = 0; k < horizon; ++k) {
        sum += spectrum[k] * std::polar(1.0, 2 * std::numbers::pi * static_cast<double>(k * t) / horizon);
      }
      series[t] = sum.real() / horizon;
    }
    const double mean = std::accumulate(series.begin(), series.end(), 0.0) / horizon;
    double squares = 0;
    for (const double value : series) squares += (value - mean) * (value - mean);
    for (std::size_t t = 0; t < horizon; ++t) {
      noise[t * width + a] = series[t] / std::sqrt(squares / static_cast<double>(horizon - 1));
    }
  }
}

struct Plan {
  Sequence mean, std;
  std::vector<int> elites;  // of the last iteration, best first
  double elite_cost = 0;
};

inline Plan plan(const lewm::PlannerOptions& options, std::size_t block_dim, const Cost& cost, Sequence start = {},
                 std::uint32_t plan_index = 0, std::uint32_t problem_id = 0) {
  using lewm::Method;
  const std::size_t horizon = static_cast<std::size_t>(options.horizon);
  const std::size_t elements = horizon * block_dim;
  const bool best_only = options.method == Method::predictive_sampling;
  const bool softmax = options.method == Method::mppi;
  const int samples = static_cast<int>(options.samples);
  const auto clip = [&](Sequence& actions) {
    for (std::size_t e = 0; e < elements; ++e) {
      if (!options.low.empty())
        actions[e] = std::max<double>(actions[e], options.low[e % block_dim % options.low.size()]);
      if (!options.high.empty())
        actions[e] = std::min<double>(actions[e], options.high[e % block_dim % options.high.size()]);
    }
  };

  Plan plan;
  plan.mean = start;
  plan.mean.resize(elements, 0.0);
  clip(plan.mean);
  plan.std.assign(elements, options.std_init);
  std::vector<Sequence> kept;
  for (std::int64_t iteration = 0; iteration < options.iterations; ++iteration) {
    std::vector<Sequence> candidates;
    std::vector<double> costs;
    for (int i = 0; i < samples; ++i) {
      const lewm::philox::Stream stream{options.seed, plan_index, static_cast<std::uint32_t>(iteration), problem_id};
      Sequence candidate = plan.mean;
      if (i > 0 && i <= static_cast<int>(kept.size())) {
        candidate = kept[static_cast<std::size_t>(i - 1)];
      } else if (i > 0) {
        Sequence noise = white_noise(stream, static_cast<std::uint32_t>(i), elements);
        if (options.method == Method::icem && options.noise_exponent > 0 && horizon > 1) {
          colour(noise, horizon, options.noise_exponent);
        }
        for (std::size_t e = 0; e < elements; ++e) candidate[e] += plan.std[e] * noise[e];
        clip(candidate);
      }
      candidates.push_back(candidate);
      costs.push_back(cost(candidate));
    }
    std::vector<int> order;
    for (int i = 0; i < samples; ++i) {
      if (std::isfinite(costs[static_cast<std::size_t>(i)])) order.push_back(i);
    }
    const auto cost_at = [&](int i) { return costs[static_cast<std::size_t>(i)]; };
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return cost_at(a) < cost_at(b); });
    const std::size_t k = best_only ? 1 : options.elites ? static_cast<std::size_t>(options.elites) : order.size();
    order.resize(k);
    plan.elites = order;

    std::vector<double> weights(k, 1.0 / static_cast<double>(k));
    if (softmax) {
      double total = 0;
      for (std::size_t i = 0; i < k; ++i) {
        weights[i] = std::exp((cost_at(order[0]) - cost_at(order[i])) / options.temperature);
        total += weights[i];
      }
      for (double& weight : weights) weight /= total;
    }
    plan.elite_cost = 0;
    for (const int i : order) plan.elite_cost += cost_at(i) / static_cast<double>(k);
    kept.clear();
    for (std::size_t i = 0;
         options.method == Method::icem && i < k && i < static_cast<std::size_t>(options.kept_elites); ++i) {
      kept.push_back(candidates[static_cast<std::size_t>(order[i])]);
    }
    for (std::size_t e = 0; e < elements; ++e) {
      double mean = 0, squares = 0;
      for (std::size_t i = 0; i < k; ++i) mean += weights[i] * candidates[static_cast<std::size_t>(order[i])][e];
      for (std::size_t i = 0; i < k; ++i)
        squares += std::pow(candidates[static_cast<std::size_t>(order[i])][e] - mean, 2);
      if (softmax || best_only) {
        plan.mean[e] = mean;
        continue;
      }
      const double m = options.momentum;
      plan.mean[e] = m * plan.mean[e] + (1 - m) * mean;
      plan.std[e] = m * plan.std[e] + (1 - m) * (k > 1 ? std::sqrt(squares / static_cast<double>(k - 1)) : 0.0);
      plan.std[e] = std::max<double>(plan.std[e], options.std_min);
    }
    clip(plan.mean);
  }
  return plan;
}

}  // namespace twin
