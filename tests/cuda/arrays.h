// Arrays that the tests of CUDA kernels fill, and the orders that they run in.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "host_cuda.h"

namespace cuda_test {

using Floats = std::vector<float>;
using Halves = std::vector<std::uint16_t>;
using Bytes = std::vector<std::uint8_t>;
using Indices = std::vector<std::int32_t>;

inline std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

// Standard normal values times `scale`.
inline Floats normal(std::int64_t count, std::uint32_t seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(0.0f, scale);
  Floats values(size(count));
  for (float& value : values) value = distribution(random);
  return values;
}

// Calls body with lanes and blocks running forward, backward and shuffled.
template <class Body>
void in_every_order(Body body) {
  using lewm::cuda::host::Order;
  for (const Order order : {Order::forward, Order::backward, Order::shuffled}) {
    lewm::cuda::host::schedule() = {order, order, 11};
    body();
  }
}

}  // namespace cuda_test
