#include "cpu/sigreg_statistic.h"

#include <cmath>
#include <string>

#include "core/error.h"

namespace lewm::cpu {
namespace {

void require(bool ok, const char* name, const std::string& expected, double got) {
  if (ok) return;
  std::string text = std::to_string(got);
  if (got == std::floor(got) && std::fabs(got) < 1e15) text = std::to_string(static_cast<std::int64_t>(got));
  throw Error(Status::invalid_argument, std::string(name) + ": expected " + expected + ", got " + text);
}

}  // namespace

void check_sigreg(const SigregInput& in, std::int64_t least_batch) {
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  const auto in_range = [](const char* name, std::int64_t value, std::int64_t least, std::int64_t most) {
    require(value >= least && value <= most, name, std::to_string(least) + ".." + std::to_string(most),
            static_cast<double>(value));
  };
  in_range("steps", in.steps, 1, kMost);
  in_range("batch", in.batch, least_batch, kMost);
  in_range("dim", in.dim, 1, kMost);
  in_range("num_proj", in.num_proj, 1, kMost);
  in_range("knots", in.knots, 2, 1 << 16);
  require(in.t_max > 0 && std::isfinite(in.t_max), "t_max", "a positive number", in.t_max);
}

void check_sigreg_total(double total) { require(total >= 1, "total", "at least one sample", total); }

std::vector<SigregKnot> sigreg_knots(const SigregInput& in) {
  std::vector<SigregKnot> knots(static_cast<std::size_t>(in.knots));
  const double delta = in.t_max / static_cast<double>(in.knots - 1);
  for (std::int64_t k = 0; k < in.knots; ++k) {
    const double s = delta * static_cast<double>(k);
    const double phi = std::exp(-0.5 * s * s);
    const bool end = k == 0 || k == in.knots - 1;
    knots[static_cast<std::size_t>(k)] = {s, phi, (end ? 1.0 : 2.0) * delta * phi};
  }
  return knots;
}

double sigreg_statistic(SigregSums sums, const std::vector<SigregKnot>& knots, double total) {
  double result = 0;
  std::int64_t at = 0;
  for (const SigregKnot& knot : knots) {
    const double real = sums.cos[at] / total - knot.phi;
    const double imaginary = sums.sin[at] / total;
    result += knot.weight * (real * real + imaginary * imaginary);
    at += sums.stride;
  }
  return result * total;
}

double sigreg_statistic(const double* sums, const SigregInput& input, double total) {
  check_sigreg(input, 0);
  check_sigreg_total(total);
  const std::vector<SigregKnot> knots = sigreg_knots(input);
  const std::int64_t count = input.steps * input.num_proj;
  double result = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double* at = sums + i * 2 * input.knots;
    result += sigreg_statistic({at, at + input.knots, 1}, knots, total);
  }
  return result / static_cast<double>(count);
}

}  // namespace lewm::cpu
