// GEMM of every tier: against the scalar tier and double precision, over ragged shapes, all epilogues, and the promises
// of kernels.h (padding, NaN, rows that do not depend on their neighbours).
#include <limits>

#include "cpu/kernels_scalar.h"
#include "cpu_reference.h"

using namespace lewm;
using namespace lewm::cpu;
using namespace lewm::cpu::testing;

namespace {

// Largest difference from the scalar tier, relative to 1 + |value|: fp32 and bf16 differ by the order of their sums and
// by the activation's polynomial, and a bf16 store by one rounding.
constexpr double kFp32Tolerance = 1e-5;
constexpr double kBf16Tolerance = 3e-4;
constexpr double kIntegerTolerance = 3e-4;
constexpr double kBf16Step = 1.0 / 128;

struct Options {
  Activation activation = Activation::none;
  bool gate = false, residual = false, in_place = false;
  Store store = Store::f32, gate_storage = Store::f32;
  bool addend = false;
};

std::string describe(const Kernels& tier, Precision p, std::int64_t m, std::int64_t n, std::int64_t k,
                     const Options& o) {
  return std::string(tier.isa) + " " + name(p) + " M=" + std::to_string(m) + " N=" + std::to_string(n) +
         " K=" + std::to_string(k) + " activation " + std::to_string(static_cast<int>(o.activation)) + " gate " +
         std::to_string(o.gate) + " residual " + std::to_string(o.residual) + " in place " +
         std::to_string(o.in_place) + " store " + std::to_string(static_cast<int>(o.store)) + " addend " +
         std::to_string(o.addend);
}

// Inputs of one GEMM, the same for all tiers.
struct Problem {
  std::int64_t m, n, k;
  std::vector<float> x, w, bias, residual, gate, addend;
  std::vector<std::uint16_t> gate_bf16;
  std::vector<const void*> gates[2];  // by Store: [m], each shared by two rows
  std::vector<const float*> addends;  // [m], likewise
  static constexpr std::int64_t kGateOffset = 3, kAddendOffset = 2;

  Problem(std::int64_t m_, std::int64_t n_, std::int64_t k_, std::uint32_t seed) : m(m_), n(n_), k(k_) {
    Random random(seed);
    x = random.normal(m * k);
    w = random.normal(n * k, 1.0f / std::sqrt(static_cast<float>(k)));
    bias = random.normal(n);
    residual = random.normal(m * (n + 5));
    gate = random.normal((m + 1) / 2 * (n + kGateOffset));
    for (float& value : gate) {
      gate_bf16.push_back(bf16_from_float(value));
      value = float_from_bf16(gate_bf16.back());
    }
    addend = random.normal((m + 1) / 2 * (n + kAddendOffset), 0.3f);
    for (std::int64_t r = 0; r < m; ++r) {
      addends.push_back(addend.data() + r / 2 * (n + kAddendOffset));
      gates[0].push_back(gate.data() + r / 2 * (n + kGateOffset));
      gates[1].push_back(gate_bf16.data() + r / 2 * (n + kGateOffset));
    }
  }

  // y: [m, n + 5], of which the last five columns must stay as they were.
  Buffer run(const Kernels& tier, Precision p, const Options& o) const {
    const Gemm& gemm = tier.gemm[static_cast<int>(p)];
    Weights weights(gemm, w, bias.data(), n, k);
    RowsBuffer rows(tier, p, m, k, 64);
    gemm.convert(x.data(), k, m, k, rows.view);
    Buffer y(static_cast<std::size_t>(m * (n + 5)) * (o.store == Store::f32 ? 4 : 2));
    Epilogue e;
    e.activation = o.activation;
    e.store = o.store;
    if (o.gate) {
      e.gate = gates[static_cast<int>(o.gate_storage)].data();
      e.gate_offset = kGateOffset;
      e.gate_storage = o.gate_storage;
    }
    if (o.addend) e.addend = addends.data(), e.addend_offset = kAddendOffset;
    if (o.residual) e.residual = residual.data(), e.residual_stride = n + 5;
    if (o.in_place) {
      std::memcpy(y.as<float>(), residual.data(), y.bytes());
      e.residual = y.as<float>();
    }
    gemm.run(rows.view, m, weights.matrix, e, y.as<void>(), n + 5);
    return y;
  }
};

float element(Buffer& y, std::int64_t i, Store store) {
  return store == Store::f32 ? y.as<float>()[i] : float_from_bf16(y.as<std::uint16_t>()[i]);
}

double tolerance(Precision p, Store store) {
  const double own = is_exact(p) ? kFp32Tolerance : p == Precision::bf16 ? kBf16Tolerance : kIntegerTolerance;
  return store == Store::bf16 ? own + kBf16Step : own;
}

void compare(const Kernels& tier, Precision p, const Problem& problem, const Options& o) {
  Buffer got = problem.run(tier, p, o);
  Buffer want = problem.run(kernels(Isa::scalar), p, o);
  double worst = 0;
  for (std::int64_t r = 0; r < problem.m; ++r) {
    for (std::int64_t j = 0; j < problem.n; ++j) {
      const double a = element(got, r * (problem.n + 5) + j, o.store),
                   b = element(want, r * (problem.n + 5) + j, o.store);
      const double error = std::fabs(a - b) / (1 + std::fabs(b));
      worst = error <= worst ? worst : error;  // takes a NaN
    }
    for (std::int64_t j = problem.n; j < problem.n + 5; ++j) {
      const std::int64_t at = r * (problem.n + 5) + j;
      const float before = o.in_place ? problem.residual[static_cast<std::size_t>(at)] : 0;
      const float after = element(got, at, o.store);
      if (o.in_place ? before != after : !std::isnan(after)) {
        check::fail(__FILE__, __LINE__, "wrote beyond N: " + describe(tier, p, problem.m, problem.n, problem.k, o));
        return;
      }
    }
  }
  if (!(worst <= tolerance(p, o.store))) {
    check::fail(__FILE__, __LINE__,
                describe(tier, p, problem.m, problem.n, problem.k, o) + ": off by " + std::to_string(worst));
  }
}

}  // namespace

TEST(scalar_fp32_equals_double_precision) {
  const Problem problem(7, 50, 300, 1);
  Buffer y = problem.run(kernels(Isa::scalar), Precision::fp32, {});
  for (std::int64_t r = 0; r < problem.m; ++r) {
    for (std::int64_t j = 0; j < problem.n; ++j) {
      double want = problem.bias[static_cast<std::size_t>(j)];
      for (std::int64_t i = 0; i < problem.k; ++i) {
        want += static_cast<double>(problem.x[static_cast<std::size_t>(r * problem.k + i)]) *
                problem.w[static_cast<std::size_t>(j * problem.k + i)];
      }
      CHECK_NEAR(y.as<float>()[r * (problem.n + 5) + j], want, kFp32Tolerance);
    }
  }
}

// Against sums in double. int24 counts in steps of a row's largest number and leaves out products of low digits, so an
// element that towers above its row costs digits (in weights a model does not take it, see kMostUneven); fp32 rounds
// its partial sums. Without outliers neither is much worse than the other.
TEST(int24_is_as_exact_as_fp32) {
  constexpr std::int64_t kRows = 20, kColumns = 40;
  for (const std::int64_t k : {64, 192, 1024, 2048, 8192}) {
    for (const float outlier : {1.0f, 50.0f}) {
      Problem problem(kRows, kColumns, k, static_cast<std::uint32_t>(k));
      for (std::int64_t r = 0; r < kRows; ++r) problem.x[static_cast<std::size_t>(r * k)] *= outlier;
      // The largest error, relative to what a sum of such products comes to.
      const auto error_of = [&](Buffer y) {
        double worst = 0;
        for (std::int64_t r = 0; r < kRows; ++r) {
          for (std::int64_t j = 0; j < kColumns; ++j) {
            double want = problem.bias[static_cast<std::size_t>(j)], x_square = 0, w_square = 0;
            for (std::int64_t i = 0; i < k; ++i) {
              const double x = problem.x[static_cast<std::size_t>(r * k + i)];
              const double w = problem.w[static_cast<std::size_t>(j * k + i)];
              want += x * w;
              x_square += x * x;
              w_square += w * w;
            }
            const double size = std::fabs(want) + std::sqrt(x_square * w_square / static_cast<double>(k));
            worst = std::fmax(worst, std::fabs(y.as<float>()[r * (kColumns + 5) + j] - want) / size);
          }
        }
        return worst;
      };
      const double floats = error_of(problem.run(kernels(Isa::scalar), Precision::fp32, {}));
      for_tiers([&](const Kernels& tier, Precision p) {
        if (p != Precision::int24) return;
        const double error = error_of(problem.run(tier, p, {}));
        if (!(error < (outlier > 1 ? 2.5e-5 : 2 * floats))) {
          check::fail(__FILE__, __LINE__,
                      std::string(tier.isa) + " K=" + std::to_string(k) + ": off by " + std::to_string(1e6 * error) +
                          "e-6, fp32 by " + std::to_string(1e6 * floats) + "e-6");
        }
      });
    }
  }
}

// bf16 rounds to 8 bits, int8 to about 7 of the largest and int16 to 11: results stay near fp32's.
TEST(low_precision_stays_near_fp32) {
  const Problem problem(9, 40, 192, 2);
  for_tiers([&](const Kernels& tier, Precision p) {
    Buffer want = problem.run(kernels(Isa::scalar), Precision::fp32, {});
    Buffer got = problem.run(tier, p, {});
    double squares = 0, reference = 0;
    for (std::int64_t r = 0; r < problem.m; ++r) {
      for (std::int64_t j = 0; j < problem.n; ++j) {
        const std::int64_t at = r * (problem.n + 5) + j;
        squares += std::pow(got.as<float>()[at] - want.as<float>()[at], 2);
        reference += std::pow(want.as<float>()[at], 2);
      }
    }
    constexpr double kLimits[kLayerPrecisions] = {1e-6, 4e-3, 1.5e-2, 1e-3, 1e-6};
    CHECK(std::sqrt(squares / reference) < kLimits[static_cast<int>(p)]);
  });
}

TEST(every_row_count_agrees_with_scalar) {
  for (std::int64_t m = 1; m <= 40; ++m) {
    const Problem problem(m, 37, 45, static_cast<std::uint32_t>(m));
    for_tiers([&](const Kernels& tier, Precision p) { compare(tier, p, problem, {}); });
  }
}

TEST(ragged_shapes_agree_with_scalar) {
  const std::int64_t shapes[][3] = {{5, 1, 10},    {13, 10, 10},  {3, 10, 1},   {1, 1, 1},
                                    {18, 33, 64},  {7, 63, 65},   {33, 65, 31}, {12, 127, 67},
                                    {26, 129, 10}, {17, 20, 588}, {2, 768, 10}};
  for (const auto& s : shapes) {
    const Problem problem(s[0], s[1], s[2], static_cast<std::uint32_t>(s[0] * 7 + s[1]));
    for_tiers([&](const Kernels& tier, Precision p) { compare(tier, p, problem, {}); });
  }
}

TEST(published_shapes_agree_with_scalar) {
  const std::int64_t shapes[][2] = {{192, 3072}, {1024, 192}, {192, 2048}, {2048, 192}, {192, 1152}, {768, 192}};
  for (const auto& s : shapes) {
    const Problem problem(19, s[1], s[0], static_cast<std::uint32_t>(s[0]));
    for_tiers([&](const Kernels& tier, Precision p) { compare(tier, p, problem, {}); });
  }
}

TEST(epilogues_agree_with_scalar) {
  const Problem problem(21, 75, 40, 5);
  for_tiers([&](const Kernels& tier, Precision p) {
    for (Activation activation : {Activation::none, Activation::gelu, Activation::silu}) {
      for (Store store : {Store::f32, Store::bf16}) {
        for (bool gate : {false, true}) {
          for (bool residual : {false, true}) {
            for (bool addend : {false, true}) {
              compare(tier, p, problem, {activation, gate, residual, false, store, Store::f32, addend});
            }
          }
        }
      }
      for (bool gate : {false, true}) compare(tier, p, problem, {activation, gate, true, true, Store::f32});
      compare(tier, p, problem, {activation, true, true, false, Store::f32, Store::bf16});
    }
  });
}

TEST(a_matrix_without_bias_packs_zeros) {
  for_tiers([&](const Kernels& tier, Precision p) {
    const Gemm& gemm = tier.gemm[static_cast<int>(p)];
    Weights weights(gemm, Random(3).normal(5 * 6), nullptr, 5, 6);
    for (std::int64_t j = 0; j < gemm.padded_n(5); ++j) CHECK_EQ(weights.matrix.bias[j], 0.0f);
  });
}

// A row's bytes are the same alone, among others, and at any place among them.
TEST(rows_do_not_depend_on_their_neighbours) {
  const Problem problem(40, 70, 96, 6);
  for_tiers([&](const Kernels& tier, Precision p) {
    const Gemm& gemm = tier.gemm[static_cast<int>(p)];
    Weights weights(gemm, problem.w, problem.bias.data(), problem.n, problem.k);
    RowsBuffer rows(tier, p, problem.m, problem.k);
    gemm.convert(problem.x.data(), problem.k, problem.m, problem.k, rows.view);
    Epilogue e;
    e.activation = Activation::gelu;
    std::vector<float> all(static_cast<std::size_t>(problem.m * problem.n)), part(all.size());
    gemm.run(rows.view, problem.m, weights.matrix, e, all.data(), problem.n);
    for (std::int64_t first = 0; first < problem.m; first += 3) {
      for (std::int64_t count = 1; first + count <= problem.m; count += 5) {
        Rows view = rows.view;
        view.data = static_cast<char*>(view.data) + first * view.stride * gemm.row_bytes;
        view.scale += first;
        gemm.run(view, count, weights.matrix, e, part.data(), problem.n);
        CHECK(
            !std::memcmp(part.data(), all.data() + first * problem.n, static_cast<std::size_t>(count * problem.n) * 4));
      }
    }
  });
}

// The sum over k of the largest possible products fits an int32, as the levels promise.
TEST(the_largest_integers_do_not_overflow) {
  for (std::int64_t k : {1, 192, 1024, 2048, 8192, 65536}) {
    const std::vector<float> x(static_cast<std::size_t>(k), 3.0f), w(static_cast<std::size_t>(2 * k), -0.5f);
    for_tiers([&](const Kernels& tier, Precision p) {
      const Gemm& gemm = tier.gemm[static_cast<int>(p)];
      if (!is_integer(p) || (p == Precision::int24 && k > kInt24MostK)) return;
      Weights weights(gemm, w, nullptr, 2, k);
      RowsBuffer rows(tier, p, 1, k);
      gemm.convert(x.data(), k, 1, k, rows.view);
      float y[2] = {};
      gemm.run(rows.view, 1, weights.matrix, {}, y, 2);
      const double want = -1.5 * static_cast<double>(k);
      for (const float value : y) CHECK_NEAR(value / want, 1.0, 1e-5);
    });
  }
}

// Digits of 126, 127 and 127 everywhere but at the largest number, in the longest rows that there are.
TEST(the_largest_digits_do_not_overflow) {
  constexpr std::int64_t kK = kInt24MostK;
  const float below = 8290175.0f / kInt24Levels;
  std::vector<float> x(static_cast<std::size_t>(kK), below);
  x[0] = 1;
  for_tiers([&](const Kernels& tier, Precision p) {
    if (p != Precision::int24) return;
    const Gemm& gemm = tier.gemm[static_cast<int>(p)];
    Weights weights(gemm, x, nullptr, 1, kK);
    RowsBuffer rows(tier, p, 1, kK);
    gemm.convert(x.data(), kK, 1, kK, rows.view);
    float y = 0;
    gemm.run(rows.view, 1, weights.matrix, {}, &y, 1);
    const double want = 1 + static_cast<double>(kK - 1) * below * below;
    CHECK_NEAR(y / want, 1.0, 1e-6);
  });
}

TEST(no_rows_write_nothing) {
  const Problem problem(1, 33, 17, 7);
  for_tiers([&](const Kernels& tier, Precision p) {
    const Gemm& gemm = tier.gemm[static_cast<int>(p)];
    Weights weights(gemm, problem.w, nullptr, problem.n, problem.k);
    float y = 42;
    gemm.run({}, 0, weights.matrix, {}, &y, problem.n);
    CHECK_EQ(y, 42.0f);
  });
}

TEST(conversion_round_trips_within_a_step_and_writes_the_padding) {
  const std::vector<float> x = Random(8).normal(5 * 77, 3.0f);
  for_tiers([&](const Kernels& tier, Precision p) {
    for (std::int64_t k : {1, 15, 16, 33, 64, 77}) {
      const Gemm& gemm = tier.gemm[static_cast<int>(p)];
      RowsBuffer rows(tier, p, 5, k);
      gemm.convert(x.data(), 77, 5, k, rows.view);
      for (std::int64_t r = 0; r < 5; ++r) {
        for (std::int64_t i = 0; i < gemm.padded_k(k); ++i) {
          const float want = i < k ? x[static_cast<std::size_t>(r * 77 + i)] : 0;
          const float step = p == Precision::fp32   ? 0
                             : p == Precision::bf16 ? std::fabs(want) / 256
                                                    : rows.view.scale[r] * 0.5001f;
          const float rounding = p == Precision::int24 ? std::fabs(want) * 2e-7f : 0;  // of value() itself
          CHECK_NEAR(rows.value(r, i), want, step + rounding);
        }
      }
    }
  });
}

TEST(a_row_of_zeros_gives_the_bias) {
  const Problem problem(1, 35, 50, 9);
  for_tiers([&](const Kernels& tier, Precision p) {
    const Gemm& gemm = tier.gemm[static_cast<int>(p)];
    Weights weights(gemm, problem.w, problem.bias.data(), problem.n, problem.k);
    RowsBuffer rows(tier, p, 1, problem.k);
    const std::vector<float> zeros(static_cast<std::size_t>(problem.k)), want = problem.bias;
    gemm.convert(zeros.data(), problem.k, 1, problem.k, rows.view);
    std::vector<float> y(want.size());
    gemm.run(rows.view, 1, weights.matrix, {}, y.data(), problem.n);
    CHECK(y == want);
  });
}

// A NaN or an infinity spoils its own row, visibly, and no other.
TEST(not_a_number_stays_in_its_row) {
  const Problem problem(14, 35, 50, 10);
  for (float poison : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> x = problem.x;
    x[5 * 50 + 49] = poison;
    for_tiers([&](const Kernels& tier, Precision p) {
      const Gemm& gemm = tier.gemm[static_cast<int>(p)];
      Weights weights(gemm, problem.w, problem.bias.data(), problem.n, problem.k);
      RowsBuffer rows(tier, p, problem.m, problem.k);
      gemm.convert(x.data(), problem.k, problem.m, problem.k, rows.view);
      for (Activation activation : {Activation::none, Activation::gelu, Activation::silu}) {
        Epilogue e;
        e.activation = activation;
        std::vector<float> y(static_cast<std::size_t>(problem.m * problem.n));
        gemm.run(rows.view, problem.m, weights.matrix, e, y.data(), problem.n);
        bool others = true, lost = false;
        for (std::int64_t i = 0; i < problem.m * problem.n; ++i) {
          const bool finite = std::isfinite(y[static_cast<std::size_t>(i)]);
          if (i / problem.n != 5) others = others && finite;
          // gelu and silu take minus infinity to minus zero or NaN; a NaN they must keep.
          if (i / problem.n == 5 && std::isnan(poison)) lost = lost || finite;
        }
        CHECK(others);
        CHECK(!lost);
      }
    });
  }
}

// K = N = 1 and weight 1 make the GEMM an identity before its epilogue.
void apply(const Kernels& tier, Precision p, Activation activation, std::vector<float>& x) {
  const Gemm& gemm = tier.gemm[static_cast<int>(p)];
  Weights weights(gemm, {1.0f}, nullptr, 1, 1);
  const std::int64_t rows = static_cast<std::int64_t>(x.size());
  RowsBuffer input(tier, p, rows, 1);
  gemm.convert(x.data(), 1, rows, 1, input.view);
  Epilogue e;
  e.activation = activation;
  gemm.run(input.view, rows, weights.matrix, e, x.data(), 1);
}

// Over the floats of 16 steps per binade, both signs, from 2^-30 to 2^12: absolute error relative to max(1, |x|), as
// math.inl.h states it.
TEST(activations_keep_their_error_bounds) {
  std::vector<float> points = {0.0f};
  for (float sign : {1.0f, -1.0f}) {
    for (std::uint32_t bits = 97u << 23; bits < 139u << 23; bits += 1u << 15) points.push_back(sign * bits_float(bits));
  }
  for_tiers([&](const Kernels& tier, Precision p) {
    if (is_integer(p)) return;  // one element a row: its quantisation says nothing about the activation
    for (Activation activation : {Activation::gelu, Activation::silu}) {
      std::vector<float> y = points;
      apply(tier, p, activation, y);
      double worst = 0;
      for (std::size_t i = 0; i < points.size(); ++i) {
        const double x = is_exact(p) ? points[i] : float_from_bf16(bf16_from_float(points[i]));
        const double want =
            activation == Activation::gelu ? 0.5 * x * std::erfc(-x / std::sqrt(2.0)) : x / (1 + std::exp(-x));
        const double error = std::fabs(y[i] - want) / std::max(1.0, std::fabs(x));
        worst = error <= worst ? worst : error;
      }
      const double bound = activation == Activation::silu ? 5e-7 : is_exact(p) ? 2e-6 : 1.4e-4;
      if (!(worst <= bound)) {
        check::fail(__FILE__, __LINE__,
                    std::string(tier.isa) + " " + name(p) + " activation " +
                        std::to_string(static_cast<int>(activation)) + ": error " + std::to_string(worst * 1e6) +
                        "e-6");
      }
    }
  });
}

CHECK_MAIN
