// From the costs of an iteration to the next mean and std.
//
// Every sum runs over candidates in the order of their index, in double, and multiplies floats only (exact in double):
// the result depends on nothing but the values.
#pragma once

#include <cstdint>

namespace lewm {

// The k lowest finite costs: order[0..k) holds their indices, best first, ties to the lower index. order: [n] scratch.
// Returns how many there are, at most k; fewer when fewer costs are finite.
std::int64_t select_elites(const float* cost, std::int64_t n, std::int64_t k, std::int32_t* order);

// Candidates of one problem and the ones that count. `index` is sorted ascending.
struct Elites {
  const float* candidates;    // [N, elements]
  std::int64_t elements;      // H * A
  const std::int32_t* index;  // [k]
  std::int64_t k;
};

// mean = momentum * mean + (1 - momentum) * elite mean, std alike with the unbiased elite std (divisor k - 1; 0 when k
// is 1), then std = max(std, std_min). mean, std: [elements]
void refit_normal(const Elites& elites, float momentum, float std_min, float* mean, float* std);

// mean = weighted mean with weights softmax(-cost / temperature). cost: [N]; weights: [k] scratch.
void refit_softmax(const Elites& elites, const float* cost, float temperature, float* weights, float* mean);

// Mean cost of the elites, summed in index order.
float mean_cost(const float* cost, const std::int32_t* index, std::int64_t k);

}  // namespace lewm
