// What the model benches share: random weights, options, and the ceiling that a figure is compared with.
#pragma once

#include <time.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../../tests/cpp/naive_model.h"
#include "core/arena.h"
#include "core/thread_pool.h"
#include "cpu/isa.h"
#include "model/linear.h"
#include "model/model.h"

namespace model_bench {

using lewm::Precision;
constexpr const char* kPrecisionNames[] = {"fp32", "bf16", "int8"};

// Options of the form name=value, with defaults. What is no name of `known` or no number where one is needed ends the
// program: it would measure something else than was asked for.
class Options {
 public:
  Options(int argc, char** argv, const std::vector<std::string>& known) : arguments_(argv + 1, argv + argc) {
    for (const std::string& argument : arguments_) {
      const std::size_t equals = argument.find('=');
      const std::string name = argument.substr(0, equals);
      if (equals != std::string::npos && std::find(known.begin(), known.end(), name) != known.end()) continue;
      std::string names;
      for (const std::string& one : known) names.append(names.empty() ? "" : ", ").append(one).append("=");
      refuse(argument, "one of " + names);
    }
  }
  std::string text(const std::string& name, const std::string& otherwise) const {
    for (const std::string& argument : arguments_) {
      if (argument.starts_with(name + "=")) return argument.substr(name.size() + 1);
    }
    return otherwise;
  }
  std::int64_t number(const std::string& name, std::int64_t otherwise) const {
    const std::string value = text(name, "");
    if (value.empty()) return otherwise;
    std::int64_t read = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), read);
    if (error != std::errc() || end != value.data() + value.size()) refuse(name, "a whole number", value);
    return read;
  }

 private:
  [[noreturn]] static void refuse(const std::string& what, const std::string& expected, const std::string& got = "") {
    std::fprintf(stderr, "%s: expected %s%s%s\n", what.c_str(), expected.c_str(), got.empty() ? "" : ", got ",
                 got.c_str());
    std::exit(2);
  }

  std::vector<std::string> arguments_;
};

struct Tier {
  lewm::cpu::Isa isa;
  Precision precision;
};

// The tiers of isa= and precision=, or all that this machine runs (scalar only when named).
inline std::vector<Tier> chosen_tiers(const Options& options) {
  std::vector<Tier> all;
  const std::string isa = options.text("isa", ""), precision = options.text("precision", "");
  for (int i = 0; i < lewm::cpu::kIsas; ++i) {
    const auto id = static_cast<lewm::cpu::Isa>(i);
    if (!lewm::cpu::isa_available(id) || (isa.empty() ? i == 0 : isa != lewm::cpu::isa_name(id))) continue;
    for (int p = 0; p < lewm::kPrecisions; ++p) {
      if (!lewm::cpu::has(lewm::cpu::kernels(id), static_cast<Precision>(p)) ||
          (!precision.empty() && precision != kPrecisionNames[p]))
        continue;
      all.push_back({id, static_cast<Precision>(p)});
    }
  }
  if (all.empty()) {
    std::fprintf(stderr, "isa=%s precision=%s: nothing of this runs on this machine\n", isa.c_str(), precision.c_str());
    std::exit(2);
  }
  return all;
}

// The shortest of `repeats` calls, in seconds: others may be using this machine. Wall-clock time, or with
// LEWM_BENCH_CPU set, this process's CPU time: on a busy machine that is the better figure, with one thread.
template <class Work>
double best_seconds(std::int64_t repeats, Work&& work) {
  static const bool cpu = std::getenv("LEWM_BENCH_CPU") != nullptr;
  const auto now = [] {
    timespec time;
    clock_gettime(cpu ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  double best = 1e30;
  for (std::int64_t i = 0; i < repeats; ++i) {
    const double start = now();
    work();
    best = std::min(best, now() - start);
  }
  return best;
}

// FLOP/s of the tier's GEMM where it is fastest: weights and rows that stay in each core's L1 or L2, all threads at
// once.
inline double gemm_peak(const Tier& tier, lewm::ThreadPool& pool) {
  const lewm::cpu::Kernels& kernels = lewm::cpu::kernels(tier.isa);
  const Precision precision = lewm::cpu::layer_precisions(kernels, tier.precision).main;
  double peak = 0;
  for (const std::int64_t n : {64, 192, 512}) {
    for (const std::int64_t k : {192, 512, 1024}) {
      const std::int64_t rows = 192, calls = 4;
      lewm::WeightMemory memory(kernels);
      lewm::Affine layer{"peak", n, k, lewm::Values(static_cast<std::size_t>(n * k), 0.01),
                         lewm::Values(static_cast<std::size_t>(n))};
      const lewm::Linear linear = memory.pack(layer, precision);
      std::vector<lewm::cpu::Rows> x(static_cast<std::size_t>(pool.threads()));
      std::vector<float*> y(x.size());
      const lewm::Arena arena([&](lewm::Arena& a) {
        for (std::size_t t = 0; t < x.size(); ++t) {
          x[t] = take_rows(a, kernels, precision, rows, k);
          y[t] = a.take<float>(rows * n);
        }
      });
      const double seconds = best_seconds(20, [&] {
        pool.run(pool.threads(), [&](std::int64_t t, int) {
          const auto at = static_cast<std::size_t>(t);
          for (std::int64_t i = 0; i < calls; ++i) run_linear(kernels, linear, x[at], rows, {}, y[at], n);
        });
      });
      peak = std::max(peak, 2.0 * static_cast<double>(pool.threads() * calls * rows * n * k) / seconds);
    }
  }
  return peak;
}

}  // namespace model_bench
