// SIGReg of the CUDA backend, on the host run, against the formulas in double precision.
#include <vector>

#include "arrays.h"
#include "check.h"
#include "cpu/sigreg.h"
#include "cuda/device.cuh"
#include "cuda/sigreg.cuh"
#include "cuda/table.h"

extern "C" const lewm::cuda::Table* lewm_cuda_table();

using namespace lewm::cuda;
using namespace cuda_test;

namespace {

using Doubles = std::vector<double>;

constexpr double kStatisticError = 1e-5;  // relative
constexpr double kGradientError = 1e-4;   // relative to the largest component

struct Expected {
  Doubles statistic;  // [m]
  Doubles gradient;   // [b, m], of the sum of the statistics
};

Expected formulas(const Floats& p, int batch, int projections, Knots knots) {
  Expected e{Doubles(size(projections)), Doubles(size(batch * projections))};
  for (int m = 0; m < projections; ++m) {
    for (int k = 0; k < knots.count; ++k) {
      const double s = static_cast<double>(knots.delta) * k, phi = std::exp(-0.5 * s * s);
      const double w = (k == 0 || k == knots.count - 1 ? 1.0 : 2.0) * static_cast<double>(knots.delta) * phi;
      double c = 0, v = 0;
      for (int b = 0; b < batch; ++b) {
        const double x = s * static_cast<double>(p[size(b * projections + m)]);
        c += std::cos(x) / batch;
        v += std::sin(x) / batch;
      }
      e.statistic[size(m)] += batch * w * ((c - phi) * (c - phi) + v * v);
      for (int b = 0; b < batch; ++b) {
        const double x = s * static_cast<double>(p[size(b * projections + m)]);
        e.gradient[size(b * projections + m)] += 2 * w * s * (-(c - phi) * std::sin(x) + v * std::cos(x));
      }
    }
  }
  return e;
}

void check_sigreg(int batch, int projections, Knots knots, int splits, float scale, bool collapsed) {
  Floats p = normal(std::int64_t{batch} * projections, 1, scale);
  if (collapsed) std::fill(p.begin(), p.end(), 0.4f);
  const Expected expected = formulas(p, batch, projections, knots);
  Doubles sums(size(projections * knots.count * 2)), statistic(size(projections));
  Floats partial(size(splits * projections * knots.count * 2), NAN);
  launch_characteristic_sums({p.data(), 1, batch, projections, knots, sums.data(), partial.data(), splits}, 0);
  launch_statistic({sums.data(), projections, knots, static_cast<double>(batch), statistic.data()}, 0);
  for (int m = 0; m < projections; ++m) {
    CHECK_NEAR(statistic[size(m)], expected.statistic[size(m)], kStatisticError * expected.statistic[size(m)]);
  }
  Floats gradient(p);
  launch_projection_gradient(
      {gradient.data(), 1, batch, projections, knots, sums.data(), static_cast<double>(batch), 1.0f}, 0);
  double largest = 0;
  for (const double g : expected.gradient) largest = std::fmax(largest, std::fabs(g));
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    CHECK_NEAR(gradient[i], expected.gradient[i], kGradientError * largest);
  }
}

// Sums, statistic and gradient of whole batches, as the module's table gives them, against the CPU's.
void check_batches(int steps, int batch, int dim, int num_proj) {
  constexpr int kKnots = 17;
  const Floats z = normal(std::int64_t{steps} * batch * dim, 4, 1.0f);
  Floats directions = normal(dim * num_proj, 5, 1.0f);
  for (int m = 0; m < num_proj; ++m) {
    double square = 0;
    for (int i = 0; i < dim; ++i) square += std::pow(static_cast<double>(directions[size(i * num_proj + m)]), 2);
    for (int i = 0; i < dim; ++i) directions[size(i * num_proj + m)] /= static_cast<float>(std::sqrt(square));
  }
  SigregArguments a{0, z.data(), directions.data(), steps, batch, dim, num_proj, kKnots, 3.0, nullptr};
  const Table& table = *lewm_cuda_table();
  Floats workspace(size(table.sigreg_workspace(&a)), NAN), gradient(z.size(), NAN), expected(z.size());
  a.workspace = workspace.data();
  Doubles sums(size(steps * num_proj * 2 * kKnots), NAN), terms(size(steps * num_proj));
  Message message{};
  CHECK(table.sigreg_sums(&a, sums.data(), nullptr, &message) == 0);
  CHECK(table.sigreg_statistic(&a, sums.data(), batch, terms.data(), nullptr, &message) == 0);
  CHECK(table.sigreg_gradient(&a, sums.data(), batch, 2.0, gradient.data(), nullptr, &message) == 0);

  lewm::cpu::SigregInput input;
  input.z = z.data();
  input.steps = steps;
  input.batch = batch;
  input.dim = dim;
  input.directions = directions.data();
  input.num_proj = num_proj;
  const double value = lewm::cpu::Sigreg(lewm::cpu::Isa::scalar, 1).value(input, expected.data());
  double mean = 0, error = 0, norm = 0;
  for (const double term : terms) mean += term / static_cast<double>(terms.size());
  for (std::size_t i = 0; i < z.size(); ++i) {
    error += std::pow(gradient[i] - 2.0 * expected[i], 2);
    norm += std::pow(2.0 * expected[i], 2);
  }
  CHECK_NEAR(mean, value, kStatisticError * value);
  CHECK(std::sqrt(error) <= kGradientError * std::sqrt(norm));
}

void check_product(int m, int n, int k, bool transposed) {
  const Floats a = normal(m * k, 1, 1.0f), b = normal(k * n, 2, 1.0f);
  Floats c(size(m * n), NAN);
  launch_matrix_product({a.data(), b.data(), c.data(), m, n, k, k, transposed ? k : n, n, transposed}, 0);
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int d = 0; d < k; ++d)
        sum += static_cast<double>(a[size(i * k + d)]) * b[size(transposed ? j * k + d : d * n + j)];
      CHECK_NEAR(c[size(i * n + j)], sum, 1e-6 * k);
    }
  }
}

}  // namespace

TEST(projections_are_plain_products) {
  in_every_order([] {
    check_product(1, 1, 1, false);
    check_product(5, 70, 17, false);
    check_product(66, 9, 40, true);
  });
  host::schedule() = {};
  check_product(700, 680, 3, false);  // enough for large tiles
  check_product(680, 700, 3, true);
}

TEST(statistic_and_gradient_follow_the_formulas) {
  in_every_order([] {
    check_sigreg(2, 3, {17, 0.1875f}, 1, 1.0f, false);
    check_sigreg(128, 5, {17, 0.1875f}, 4, 1.0f, false);
    check_sigreg(33, 1, {2, 3.0f}, 2, 0.5f, false);
    check_sigreg(20, 2, {200, 0.02f}, 3, 1.0f, false);
  });
}

TEST(whole_batches_have_the_cpus_value_and_gradient) {
  host::schedule() = {};
  check_batches(2, 33, 5, 7);
  check_batches(3, 1000, 2, 3);  // two time steps at once, and the third
  check_batches(1, 2100, 2, 3);  // more rows than projections are held for at once
}

TEST(large_small_and_collapsed_embeddings) {
  host::schedule() = {};
  check_sigreg(64, 4, {17, 0.1875f}, 2, 100.0f, false);
  check_sigreg(64, 4, {17, 0.1875f}, 2, 0.01f, false);
  check_sigreg(64, 4, {17, 0.1875f}, 2, 1.0f, true);
}

CHECK_MAIN
