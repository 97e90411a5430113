// LayerNorm, adaLN, both attentions and the squared distance of every tier against the scalar tier, and the scalar tier
// against double precision.
#include <limits>

#include "cpu_reference.h"

using namespace lewm;
using namespace lewm::cpu;
using namespace lewm::cpu::testing;

namespace {

// Largest difference of two tiers' rows: rounding in fp32, one step of the output's element type otherwise.
double step(Precision p, float value, float scale) {
  constexpr double kFp32 = 2e-5;
  if (is_exact(p)) return kFp32 * (1 + std::fabs(value));
  if (p == Precision::bf16) return std::fabs(value) / 128 + kFp32;
  return scale * 1.001 + kFp32;
}

void compare_rows(RowsBuffer& got, RowsBuffer& want, const std::string& what) {
  double worst = 0;
  for (std::int64_t r = 0; r < want.rows; ++r) {
    for (std::int64_t i = 0; i < want.k; ++i) {
      const float expected = want.value(r, i);
      const double error = std::fabs(got.value(r, i) - expected) /
                           step(want.precision, expected, is_integer(want.precision) ? want.view.scale[r] : 0);
      worst = error <= worst ? worst : error;
    }
  }
  if (!(worst <= 1)) check::fail(__FILE__, __LINE__, what + ": " + std::to_string(worst) + " times the tolerance");
}

void check_padding(RowsBuffer& rows, const Kernels& tier, const std::string& what) {
  const std::int64_t end = tier.gemm[static_cast<int>(rows.precision)].padded_k(rows.k);
  for (std::int64_t r = 0; r < rows.rows; ++r) {
    for (std::int64_t i = rows.k; i < end; ++i) {
      if (rows.value(r, i) != 0) return check::fail(__FILE__, __LINE__, what + ": padding not written");
    }
  }
}

std::string label(const Kernels& tier, Precision p, const char* what, std::int64_t size) {
  return std::string(tier.isa) + " " + name(p) + " " + what + " " + std::to_string(size);
}

constexpr std::int64_t kWidths[] = {1, 2, 15, 16, 31, 64, 100, 128, 192, 300, 1024, 2048};

// storage: the numbers as float or as bf16.
Buffer stored(const std::vector<float>& values, Store storage) {
  Buffer buffer(values.size() * (storage == Store::f32 ? 4 : 2));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (storage == Store::f32) {
      buffer.as<float>()[i] = values[i];
    } else {
      buffer.as<std::uint16_t>()[i] = bf16_from_float(values[i]);
    }
  }
  return buffer;
}

}  // namespace

TEST(layer_norm_agrees_with_scalar) {
  for_tiers([](const Kernels& tier, Precision p) {
    for (std::int64_t d : kWidths) {
      for (bool affine : {false, true}) {
        Random random(static_cast<std::uint32_t>(d));
        const std::vector<float> x = random.normal(6 * (d + 3), 2.0f, 1.0f), gamma = random.normal(d),
                                 beta = random.normal(d);
        const LayerNorm args = {
            x.data(), d + 3, 6, d, 1e-5f, affine ? gamma.data() : nullptr, affine ? beta.data() : nullptr};
        RowsBuffer got(tier, p, 6, d), want(kernels(Isa::scalar), p, 6, d);
        tier.layer_norm(args, p, got.view);
        kernels(Isa::scalar).layer_norm(args, p, want.view);
        compare_rows(got, want, label(tier, p, "layer_norm", d));
        check_padding(got, tier, label(tier, p, "layer_norm", d));
      }
    }
  });
}

// Mean 1000, deviation 0.1: a one-pass variance in fp32 would be noise. What remains is the rounding of x itself.
TEST(layer_norm_keeps_its_digits_far_from_zero) {
  constexpr std::int64_t kD = 192;
  const std::vector<float> x = Random(4).normal(3 * kD, 0.1f, 1000.0f);
  for (Isa isa : tiers()) {
    RowsBuffer got(kernels(isa), Precision::fp32, 3, kD);
    kernels(isa).layer_norm({x.data(), kD, 3, kD, 1e-12f, nullptr, nullptr}, Precision::fp32, got.view);
    for (std::int64_t r = 0; r < 3; ++r) {
      double mean = 0, variance = 0;
      for (std::int64_t i = 0; i < kD; ++i) mean += x[static_cast<std::size_t>(r * kD + i)] / static_cast<double>(kD);
      for (std::int64_t i = 0; i < kD; ++i) {
        variance += std::pow(x[static_cast<std::size_t>(r * kD + i)] - mean, 2) / static_cast<double>(kD);
      }
      for (std::int64_t i = 0; i < kD; ++i) {
        CHECK_NEAR(got.value(r, i), (x[static_cast<std::size_t>(r * kD + i)] - mean) / std::sqrt(variance + 1e-12),
                   2e-3);
      }
    }
  }
}

TEST(ada_ln_agrees_with_scalar) {
  for_tiers([](const Kernels& tier, Precision p) {
    for (std::int64_t d : kWidths) {
      if (d < 2) continue;  // one element: LayerNorm divides rounding by rounding
      Random random(static_cast<std::uint32_t>(d + 1));
      const std::vector<float> x = random.normal(5 * d, 3.0f, -1.0f), modulation = random.normal(2 * 6 * d, 0.5f);
      std::vector<std::uint16_t> rounded;
      for (float value : modulation) rounded.push_back(bf16_from_float(value));
      for (Store storage : {Store::f32, Store::bf16}) {
        const void* rows[5];
        for (int r = 0; r < 5; ++r) {
          const std::int64_t first = r % 2 * 6 * d;
          rows[r] =
              storage == Store::f32 ? static_cast<const void*>(modulation.data() + first) : rounded.data() + first;
        }
        const AdaLN args = {x.data(), d, 5, d, rows, 3 * d, 4 * d, storage};
        RowsBuffer got(tier, p, 5, d), want(kernels(Isa::scalar), p, 5, d);
        tier.ada_ln(args, p, got.view);
        kernels(Isa::scalar).ada_ln(args, p, want.view);
        compare_rows(got, want, label(tier, p, "ada_ln", d));
        check_padding(got, tier, label(tier, p, "ada_ln", d));
      }
    }
  });
}

// What is kept of a row, and its difference from an anchor, as converting those floats gives it.
TEST(ada_ln_keeps_rows_and_writes_differences) {
  for_tiers([](const Kernels& tier, Precision p) {
    for (std::int64_t d : kWidths) {
      constexpr std::int64_t kRows = 6;
      Random random(static_cast<std::uint32_t>(d + 2));
      const std::int64_t stride = d + 3;
      const std::vector<float> x = random.normal(kRows * d), modulation = random.normal(2 * d, 0.5f),
                               anchors = random.normal(2 * d);
      const void* modulations[kRows];
      const float* anchor[kRows];
      for (std::int64_t r = 0; r < kRows; ++r) {
        modulations[r] = modulation.data();
        anchor[r] = anchors.data() + r % 2 * d;
      }
      std::vector<float> kept(static_cast<std::size_t>(kRows * stride), -1.0f), difference;
      RowsBuffer plain(tier, p, kRows, d), got(tier, p, kRows, d), differences(tier, p, kRows, d),
          want(tier, p, kRows, d);
      AdaLN args = {x.data(), d, kRows, d, modulations, 0, d};
      tier.ada_ln(args, p, plain.view);
      args.kept = kept.data();
      args.kept_stride = stride;
      args.anchor = anchor;
      args.differences = differences.view;
      tier.ada_ln(args, p, got.view);
      for (std::int64_t r = 0; r < kRows; ++r) {
        for (std::int64_t i = 0; i < stride; ++i) {
          const float value = kept[static_cast<std::size_t>(r * stride + i)];
          if (i < d) difference.push_back(value - anchor[r][i]);
          if (i >= d) CHECK_EQ(value, -1.0f);
        }
        for (std::int64_t i = 0; i < d; ++i) CHECK_EQ(got.value(r, i), plain.value(r, i));
      }
      const Gemm& gemm = tier.gemm[static_cast<int>(p)];
      gemm.convert(kept.data(), stride, kRows, d, want.view);
      for (std::int64_t r = 0; r < kRows; ++r) {
        for (std::int64_t i = 0; i < d; ++i) CHECK_EQ(got.value(r, i), want.value(r, i));
      }
      gemm.convert(difference.data(), d, kRows, d, want.view);
      for (std::int64_t r = 0; r < kRows; ++r) {
        for (std::int64_t i = 0; i < d; ++i) CHECK_EQ(differences.value(r, i), want.value(r, i));
      }
      check_padding(differences, tier, label(tier, p, "ada_ln differences", d));
    }
  });
}

TEST(scalar_ada_ln_equals_its_formula) {
  const float x[4] = {1, 2, 3, 6}, modulation[8] = {0.5f, -0.25f, 1, 0, 0.1f, 0.2f, -0.3f, 0.4f};  // shift, scale
  const void* rows[1] = {modulation};
  RowsBuffer got(kernels(Isa::scalar), Precision::fp32, 1, 4);
  kernels(Isa::scalar).ada_ln({x, 4, 1, 4, rows, 0, 4}, Precision::fp32, got.view);
  double y[4], mean = 0, variance = 0;
  for (int i = 0; i < 4; ++i) {
    y[i] = (x[i] - 3) / std::sqrt(3.5 + 1e-6) * (1 + modulation[4 + i]) + modulation[i];
    mean += y[i] / 4;
  }
  for (double value : y) variance += (value - mean) * (value - mean) / 4;
  for (int i = 0; i < 4; ++i) CHECK_NEAR(got.value(0, i), (y[i] - mean) / std::sqrt(variance + 1e-5), 1e-6);
}

TEST(window_attention_agrees_with_scalar) {
  struct Shape {
    std::int64_t heads, head_dim, max_keys;
  };
  for_tiers([](const Kernels& tier, Precision p) {
    for (const Shape& s :
         {Shape{16, 64, 3}, {8, 32, 3}, {1, 192, 1}, {3, 8, 4}, {17, 20, 5}, {2, 7, kMaxWindow}, {4, 128, 2}}) {
      for (Store storage : {Store::f32, Store::bf16}) {
        constexpr std::int64_t kRows = 7;
        const std::int64_t width = s.heads * s.head_dim, size = storage == Store::f32 ? 4 : 2;
        Random random(static_cast<std::uint32_t>(width));
        // One q|k|v row per token; queries sit in their own rows, keys are drawn from any.
        Buffer qkv = stored(random.normal(kRows * 3 * width, 0.7f), storage);
        std::vector<const void*> query, key;
        std::vector<std::int32_t> keys;
        for (std::int64_t r = 0; r < kRows; ++r) {
          query.push_back(qkv.as<char>() + r * 3 * width * size);
          for (std::int64_t j = 0; j < s.max_keys; ++j) {
            key.push_back(qkv.as<char>() + (random.integer(0, kRows - 1) * 3 + 1) * width * size);
          }
          keys.push_back(static_cast<std::int32_t>(r == 0 ? 1 : random.integer(1, s.max_keys)));
        }
        const WindowAttention args = {kRows,      s.heads, s.head_dim, storage,    query.data(),
                                      key.data(), width,   s.max_keys, keys.data()};
        RowsBuffer got(tier, p, kRows, width), want(kernels(Isa::scalar), p, kRows, width);
        tier.window_attention(args, p, got.view);
        kernels(Isa::scalar).window_attention(args, p, want.view);
        compare_rows(got, want, label(tier, p, "window_attention", width));
        check_padding(got, tier, label(tier, p, "window_attention", width));
      }
    }
  });
}

// Attention over the differences from a token, and that token's value, are attention over all tokens.
TEST(window_attention_over_differences_equals_softmax) {
  constexpr std::int64_t kHeads = 2, kDim = 32, kWidth = kHeads * kDim;
  constexpr std::size_t kTokens = 4;
  Random random(11);
  const std::vector<float> query = random.normal(kWidth, 0.5f);
  std::vector<float> token[kTokens], difference[kTokens];  // a key, then a value
  for (std::size_t j = 0; j < kTokens; ++j) {
    token[j] = random.normal(2 * kWidth);
    difference[j] = token[j];
    for (std::size_t i = 0; i < token[j].size(); ++i) difference[j][i] -= token[0][i];
  }
  const void *q = query.data(), *key[kTokens - 1];
  for (std::size_t j = 1; j < kTokens; ++j) key[j - 1] = difference[j].data();
  for (Isa isa : tiers()) {
    for (std::int32_t keys = 1; keys < static_cast<std::int32_t>(kTokens); ++keys) {
      RowsBuffer got(kernels(isa), Precision::fp32, 1, kWidth);
      kernels(isa).window_attention({1, kHeads, kDim, Store::f32, &q, key, kWidth, 3, &keys}, Precision::fp32,
                                    got.view);
      for (std::int64_t i = 0; i < kWidth; ++i) {
        const std::int64_t head = i / kDim * kDim;
        double total = 0, value = 0;
        for (std::size_t j = 0; j <= static_cast<std::size_t>(keys); ++j) {
          double logit = 0;
          for (std::int64_t c = head; c < head + kDim; ++c) {
            logit += static_cast<double>(query[static_cast<std::size_t>(c)]) * token[j][static_cast<std::size_t>(c)];
          }
          total += std::exp(logit);
          value += std::exp(logit) * token[j][static_cast<std::size_t>(kWidth + i)];
        }
        CHECK_NEAR(got.value(0, i) + token[0][static_cast<std::size_t>(kWidth + i)], value / total, 1e-5);
      }
    }
  }
}

TEST(attention_survives_large_logits) {
  std::vector<float> qkv = Random(12).normal(4 * 3 * 16, 30.0f);  // logits of some thousands
  for (Isa isa : tiers()) {
    const Kernels& tier = kernels(isa);
    const void *query = qkv.data(), *key[4];
    for (int j = 0; j < 4; ++j) key[j] = qkv.data() + j * 48 + 16;
    const std::int32_t keys = 4;
    RowsBuffer got(tier, Precision::fp32, 1, 16), want(kernels(Isa::scalar), Precision::fp32, 1, 16);
    tier.window_attention({1, 1, 16, Store::f32, &query, key, 16, 4, &keys}, Precision::fp32, got.view);
    kernels(Isa::scalar)
        .window_attention({1, 1, 16, Store::f32, &query, key, 16, 4, &keys}, Precision::fp32, want.view);
    compare_rows(got, want, label(tier, Precision::fp32, "large logits", 16));
  }
}

namespace {

// out: [tokens, 3 * head_dim] of which head 1 is computed; the others stay NaN.
Buffer run_full(const Kernels& tier, Buffer& qkv, std::int64_t tokens, std::int64_t d, Store storage,
                std::int64_t split) {
  const std::int64_t size = storage == Store::f32 ? 4 : 2, width = 3 * d;
  Buffer out(static_cast<std::size_t>(tokens * width) * 4);
  Buffer scratch(tier.full_attention_scratch(tokens, d));
  FullAttention args = {};
  args.tokens = tokens;
  args.head_dim = d;
  args.storage = storage;
  args.q = qkv.as<char>() + d * size;
  args.k = qkv.as<char>() + (width + d) * size;
  args.v = qkv.as<char>() + (2 * width + d) * size;
  args.stride = 3 * width;
  args.out = out.as<float>() + d;
  args.out_stride = width;
  args.scratch = scratch.as<void>();
  for (auto [first, last] : {std::pair{std::int64_t{0}, split}, {split, tokens}}) {
    args.first = first;
    args.last = last;
    if (first < last) tier.full_attention(args);
  }
  return out;
}

}  // namespace

TEST(full_attention_agrees_with_scalar) {
  for (const Kernels* table : attention_tables()) {
    const Kernels& tier = *table;
    for (Store storage : {Store::f32, Store::bf16}) {
      if (storage == Store::bf16 && !tier.gemm[1].run) continue;
      for (std::int64_t tokens : {1, 2, 17, 65, 257}) {
        for (std::int64_t d : {8, 10, 32, 33, 64, 128}) {
          if (tokens == 257 && d != 64) continue;
          Buffer qkv = stored(Random(static_cast<std::uint32_t>(tokens + d)).normal(tokens * 9 * d, 0.8f), storage);
          Buffer got = run_full(tier, qkv, tokens, d, storage, 0);
          Buffer want = run_full(kernels(Isa::scalar), qkv, tokens, d, storage, 0);
          const double tolerance = storage == Store::f32 ? 1e-5 : 1e-2;  // bf16: the weights' rounding
          double worst = 0;
          bool outside = true;
          for (std::int64_t i = 0; i < tokens * 3 * d; ++i) {
            const float a = got.as<float>()[i], b = want.as<float>()[i];
            if (i % (3 * d) / d != 1) {
              outside = outside && std::isnan(a);
            } else {
              const double error = std::fabs(a - b);
              worst = error <= worst ? worst : error;
            }
          }
          CHECK(outside);
          if (!(worst <= tolerance)) {
            check::fail(
                __FILE__, __LINE__,
                label(tier, storage == Store::f32 ? Precision::fp32 : Precision::bf16, "full_attention", tokens) +
                    " x " + std::to_string(d) + ": off by " + std::to_string(worst));
          }
        }
      }
    }
  }
}

// Queries may be split at any place: the bytes are the same.
TEST(full_attention_does_not_depend_on_the_split) {
  for (const Kernels* table : attention_tables()) {
    const Kernels& tier = *table;
    for (Store storage : {Store::f32, Store::bf16}) {
      if (storage == Store::bf16 && !tier.gemm[1].run) continue;
      Buffer qkv = stored(Random(21).normal(50 * 9 * 24), storage);
      Buffer whole = run_full(tier, qkv, 50, 24, storage, 50);
      for (std::int64_t split : {1, 7, 16, 25, 49}) CHECK(run_full(tier, qkv, 50, 24, storage, split) == whole);
    }
  }
}

TEST(squared_distance_equals_its_formula) {
  for (Isa isa : tiers()) {
    for (std::int64_t d : {1, 7, 16, 100, 192}) {
      Random random(static_cast<std::uint32_t>(d));
      const std::vector<float> x = random.normal(3 * (d + 2)), goal = random.normal(d);
      float cost[3];
      kernels(isa).squared_distance(x.data(), d + 2, goal.data(), 3, d, cost);
      for (int r = 0; r < 3; ++r) {
        double want = 0;
        for (std::int64_t i = 0; i < d; ++i) {
          want += std::pow(
              static_cast<double>(x[static_cast<std::size_t>(r * (d + 2) + i)]) - goal[static_cast<std::size_t>(i)], 2);
        }
        CHECK_NEAR(cost[r], want, 1e-5 * want);
      }
    }
  }
}

TEST(a_row_kernel_keeps_not_a_number_in_its_row) {
  constexpr std::int64_t kD = 50;
  std::vector<float> x = Random(13).normal(3 * kD);
  x[kD + 49] = std::numeric_limits<float>::quiet_NaN();
  for_tiers([&](const Kernels& tier, Precision p) {
    RowsBuffer got(tier, p, 3, kD);
    tier.layer_norm({x.data(), kD, 3, kD, 1e-5f, nullptr, nullptr}, p, got.view);
    for (std::int64_t i = 0; i < kD; ++i) {
      CHECK(std::isfinite(got.value(0, i)));
      CHECK(std::isnan(got.value(1, i)));
      CHECK(std::isfinite(got.value(2, i)));
    }
  });
}

CHECK_MAIN
