// How fast this machine's matrix products are: the ceiling that plans are compared with.
#include <nanobind/stl/string.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "core/arena.h"
#include "model/linear.h"
#include "python/bindings.h"

namespace lewm::python {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// One thread's product: its own rows and result, the same weights.
struct Product {
  cpu::Rows x;
  float* y;
};

// FLOP/s of products of this shape, all threads at once: the best of as many rounds as fit into `budget` seconds.
double product_rate(const cpu::Kernels& kernels, Precision precision, ThreadPool& pool, std::int64_t n, std::int64_t k,
                    double budget) {
  constexpr std::int64_t kRows = 192, kCalls = 4;
  WeightMemory memory(kernels);
  const Affine layer{"peak", n, k, Values(static_cast<std::size_t>(n * k), 0.01), Values(static_cast<std::size_t>(n))};
  const Linear linear = memory.pack(layer, precision);
  std::vector<Product> products(static_cast<std::size_t>(pool.threads()));
  const Arena arena([&](Arena& a) {
    for (Product& product : products) {
      product = {take_rows(a, kernels, precision, kRows, k), a.take<float>(kRows * n)};
    }
  });
  const auto round = [&](std::int64_t thread, int) {
    const Product& product = products[static_cast<std::size_t>(thread)];
    for (std::int64_t i = 0; i < kCalls; ++i) run_linear(kernels, linear, product.x, kRows, {}, product.y, n);
  };
  double best = 1e30;
  const auto start = Clock::now();
  do {
    const auto begin = Clock::now();
    pool.run(pool.threads(), round);
    best = std::min(best, seconds_since(begin));
  } while (seconds_since(start) < budget);
  return 2.0 * static_cast<double>(pool.threads() * kCalls * kRows * n * k) / best;
}

// FLOP/s (int8: integer operations/s) of the fastest of some products whose weights and rows stay in each core's
// caches.
double gemm_peak(const std::string& precision, int threads, const std::string& isa) {
  const cpu::Kernels& kernels = cpu::kernels(isa_from_name(isa));
  const Precision chosen = precision_from_name(precision);
  if (!cpu::has(kernels, chosen)) {
    throw Error(Status::unsupported,
                "precision: " + precision + " is not available with instruction set " + kernels.isa);
  }
  const LayerPrecisions layers = cpu::layer_precisions(kernels, chosen);
  const ReleasedGil released;
  ThreadPool pool(threads);
  double peak = 0;
  for (const std::int64_t n : {64, 192, 512}) {
    for (const std::int64_t k : {192, 512, 1024}) {
      peak = std::max(peak, product_rate(kernels, layers.main, pool, n, k, 0.05));
    }
  }
  return peak;
}

}  // namespace

void bind_peak(nb::module_& module) {
  module.def("gemm_peak", &gemm_peak, nb::arg("precision"), nb::arg("threads"), nb::arg("isa") = "");
}

}  // namespace lewm::python
