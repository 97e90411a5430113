#include "plan/options.h"

#include <cmath>
#include <limits>
#include <string>

#include "core/error.h"
#include "plan/philox.h"

namespace lewm {
namespace {

[[noreturn]] void refuse(const std::string& field, const std::string& expected, const std::string& got) {
  throw Error(Status::invalid_argument, field + ": expected " + expected + ", got " + got);
}

void check_range(const char* field, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value < least) refuse(field, "at least " + std::to_string(least), std::to_string(value));
  if (value > most) refuse(field, "at most " + std::to_string(most), std::to_string(value));
}

void check_float(const char* field, float value, float least, bool above) {
  if (!std::isfinite(value) || value < least || (above && value == least)) {
    refuse(field,
           std::string(above ? "a finite number above " : "a finite number of at least ") + std::to_string(least),
           std::to_string(value));
  }
}

// none: the infinity that bounds nothing; no number keeps within the other one.
void check_bound(const char* field, const std::vector<float>& bound, float none, std::int64_t block_dim,
                 std::int64_t action_dim) {
  const std::int64_t size = static_cast<std::int64_t>(bound.size());
  if (size && size != action_dim && size != block_dim) {
    const std::string sizes = block_dim == action_dim ? "no or " : "no, " + std::to_string(action_dim) + " or ";
    refuse(field, sizes + std::to_string(block_dim) + " entries", std::to_string(size));
  }
  for (const float value : bound) {
    if (!std::isfinite(value) && value != none) {
      refuse(field, "finite numbers or " + std::to_string(none), std::to_string(value));
    }
  }
}

}  // namespace

PlannerOptions default_options(Method method) {
  PlannerOptions options;
  options.method = method;
  if (method == Method::icem) options.momentum = 0.1f;
  if (method == Method::predictive_sampling) options.iterations = 1;
  return options;
}

const char* method_name(Method method) {
  switch (method) {
    case Method::cem:
      return "cem";
    case Method::icem:
      return "icem";
    case Method::mppi:
      return "mppi";
    case Method::predictive_sampling:
      return "predictive_sampling";
  }
  return "unknown";
}

void check_bounds(const std::vector<float>& low, const std::vector<float>& high, std::int64_t block_dim,
                  std::int64_t action_dim) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  check_bound("low", low, -kInfinity, block_dim, action_dim);
  check_bound("high", high, kInfinity, block_dim, action_dim);
  for (std::int64_t i = 0; i < block_dim && !low.empty() && !high.empty(); ++i) {
    const float least = low[static_cast<std::size_t>(i) % low.size()];
    const float most = high[static_cast<std::size_t>(i) % high.size()];
    if (least > most) {
      refuse("low", "at most high (" + std::to_string(most) + ") in dimension " + std::to_string(i),
             std::to_string(least));
    }
  }
}

void check_options(const PlannerOptions& options, std::int64_t block_dim, std::int64_t action_dim) {
  constexpr std::int64_t kMost = 1 << 24;
  const int method = static_cast<int>(options.method);
  if (method < 0 || method > 3) refuse("method", "cem, icem, mppi or predictive_sampling", std::to_string(method));
  const int mode = static_cast<int>(options.cost_mode);
  if (mode < 0 || mode > 2) refuse("cost_mode", "final, sum or discounted", std::to_string(mode));

  check_range("samples", options.samples, 1, kMost);
  if (options.method != Method::predictive_sampling) {
    check_range("elites", options.elites, options.method == Method::mppi ? 0 : 1, kMost);
    if (options.elites > options.samples) {
      refuse("elites", "at most samples (" + std::to_string(options.samples) + ")", std::to_string(options.elites));
    }
  }
  check_range("iterations", options.iterations, 1, philox::kMaxIterations - 1);
  check_range("horizon", options.horizon, 1, std::int64_t{4} * philox::kMaxQuads / block_dim);
  check_range("problems", options.problems, 1, kMost);
  check_range("kept_elites", options.kept_elites, 0, kMost);
  const std::int64_t steps = block_dim / action_dim;
  check_range("action_hold", options.action_hold, 1, steps);
  if (steps % options.action_hold != 0) {
    refuse("action_hold", "a divisor of a block's " + std::to_string(steps) + " steps",
           std::to_string(options.action_hold));
  }
  // Candidates, their costs and the elites of all problems: refuse what no machine holds before asking for it.
  const double floats = static_cast<double>(options.problems) * static_cast<double>(options.samples) *
                        static_cast<double>(options.horizon * block_dim);
  if (floats > 0x1p32) {
    refuse("samples", "problems * samples * horizon * block_dim of at most 2^32", std::to_string(floats));
  }

  check_float("std_init", options.std_init, 0.0f, false);
  check_float("std_min", options.std_min, 0.0f, false);
  check_float("momentum", options.momentum, 0.0f, false);
  if (options.momentum >= 1.0f) refuse("momentum", "less than 1", std::to_string(options.momentum));
  check_float("noise_exponent", options.noise_exponent, 0.0f, false);
  // The slowest wave of the noise is horizon^(exponent / 2) times as strong as the fastest.
  constexpr double kMostDoublings = 120;  // that a float holds
  const double doublings = std::log2(static_cast<double>(options.horizon)) / 2;
  if (options.noise_exponent * doublings > kMostDoublings) {
    refuse("noise_exponent", "at most " + std::to_string(kMostDoublings / doublings) + " for this horizon",
           std::to_string(options.noise_exponent));
  }
  check_float("temperature", options.temperature, 0.0f, true);
  check_float("discount", options.discount, 0.0f, false);
  check_float("action_penalty", options.action_penalty, 0.0f, false);

  check_bounds(options.low, options.high, block_dim, action_dim);
}

}  // namespace lewm
