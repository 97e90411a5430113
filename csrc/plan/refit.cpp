#include "plan/refit.h"

#include <algorithm>
#include <cmath>

#include "plan/exponential.h"

namespace lewm {
std::int64_t select_elites(const float* cost, std::int64_t n, std::int64_t k, std::int32_t* order) {
  std::int64_t finite = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    if (std::isfinite(cost[i])) order[finite++] = static_cast<std::int32_t>(i);
  }
  k = std::min(k, finite);
  const auto better = [cost](std::int32_t a, std::int32_t b) {
    return cost[a] < cost[b] || (cost[a] == cost[b] && a < b);
  };
  if (k < finite) std::nth_element(order, order + k, order + finite, better);
  std::sort(order, order + k, better);
  return k;
}

void refit_normal(const Elites& elites, float momentum, float std_min, float* mean, float* std) {
  const double keep = momentum;
  for (std::int64_t e = 0; e < elites.elements; ++e) {
    double sum = 0;
    for (std::int64_t i = 0; i < elites.k; ++i) sum += elites.candidates[elites.index[i] * elites.elements + e];
    const double elite_mean = sum / static_cast<double>(elites.k);
    double squares = 0;
    for (std::int64_t i = 0; i < elites.k; ++i) {
      const double value = elites.candidates[elites.index[i] * elites.elements + e];
      const double deviation = static_cast<float>(value - elite_mean);
      squares += deviation * deviation;
    }
    const double elite_std = elites.k > 1 ? std::sqrt(squares / static_cast<double>(elites.k - 1)) : 0.0;
    mean[e] = static_cast<float>(std::fma(keep, mean[e] - elite_mean, elite_mean));
    std[e] = std::max(static_cast<float>(std::fma(keep, std[e] - elite_std, elite_std)), std_min);
  }
}

void refit_softmax(const Elites& elites, const float* cost, float temperature, float* weights, float* mean) {
  double least = cost[elites.index[0]];
  for (std::int64_t i = 1; i < elites.k; ++i) least = std::min<double>(least, cost[elites.index[i]]);
  double total = 0;
  for (std::int64_t i = 0; i < elites.k; ++i) {
    weights[i] = static_cast<float>(exp_nonpositive((least - cost[elites.index[i]]) / temperature));
    total += weights[i];
  }
  for (std::int64_t e = 0; e < elites.elements; ++e) {
    double sum = 0;
    for (std::int64_t i = 0; i < elites.k; ++i) {
      sum += static_cast<double>(weights[i]) * elites.candidates[elites.index[i] * elites.elements + e];
    }
    mean[e] = static_cast<float>(sum / total);
  }
}

float mean_cost(const float* cost, const std::int32_t* index, std::int64_t k) {
  double sum = 0;
  for (std::int64_t i = 0; i < k; ++i) sum += cost[index[i]];
  return static_cast<float>(sum / static_cast<double>(k));
}

}  // namespace lewm
