// Norms and attentions of the CUDA backend, on the host run, against the scalar CPU kernels.
#include <vector>

#include "arrays.h"
#include "check.h"
#include "cpu/isa.h"
#include "cuda/attention.cuh"
#include "cuda/device.cuh"
#include "cuda/norm.cuh"

using namespace lewm::cuda;
using namespace cuda_test;
namespace cpu = lewm::cpu;

namespace {

// bf16 keeps 8 bits of a number: half a unit in the last place, and one more for sums that round differently.
constexpr float kBf16 = 1.0f / 128.0f;

Halves halves(const Floats& values) {
  Halves out;
  for (const float value : values) out.push_back(float_to_bf16(value));
  return out;
}

const cpu::Kernels& reference() { return cpu::kernels(cpu::Isa::scalar); }

void expect_close(const Halves& got, const Halves& expected, const char* what) {
  CHECK_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    const float a = bf16_to_float(got[i]), b = bf16_to_float(expected[i]);
    if (!(std::fabs(a - b) <= kBf16 * (0.5f + std::fabs(b)))) {
      check::fail(__FILE__, __LINE__,
                  std::string(what) + "[" + std::to_string(i) + "]: " + std::to_string(a) + " vs " + std::to_string(b));
      return;
    }
  }
}

void check_layer_norm(int rows, int d, bool affine, float offset) {
  const std::int64_t stride = d + 3, y_stride = lewm::round_up(d, 8);
  Floats x = normal(rows * stride, 1);
  for (float& value : x) value += offset;
  const Floats gamma = normal(d, 2), beta = normal(d, 3);
  Halves y(size(rows * y_stride), 0x7fc0), expected(y);
  launch_layer_norm({x.data(), stride, rows, d, 1e-5f, affine ? gamma.data() : nullptr, affine ? beta.data() : nullptr,
                     y.data(), y_stride},
                    0);
  for (int r = 0; r < rows; ++r) {
    std::fill_n(&expected[size(r * y_stride)], y_stride, std::uint16_t{0});
  }
  reference().layer_norm(
      {x.data(), stride, rows, d, 1e-5f, affine ? gamma.data() : nullptr, affine ? beta.data() : nullptr},
      lewm::Precision::bf16, {expected.data(), y_stride, nullptr});
  expect_close(y, expected, "layer_norm");
}

void check_ada_ln(int rows, int d) {
  const std::int64_t y_stride = lewm::round_up(d, 8);
  const Floats x = normal(rows * d, 1), modulation = normal(2 * 6 * d, 2, 0.5f);
  std::vector<std::int32_t> row(size(rows));
  std::vector<const void*> pointers(size(rows));
  for (int r = 0; r < rows; ++r) {
    row[size(r)] = r % 2;
    pointers[size(r)] = modulation.data() + r % 2 * 6 * d;
  }
  Halves y(size(rows * y_stride), 0x7fc0), expected(size(rows * y_stride), 0);
  launch_ada_ln({x.data(), d, rows, d, modulation.data(), row.data(), 6 * d, 3 * d, 4 * d, y.data(), y_stride}, 0);
  reference().ada_ln({x.data(), d, rows, d, pointers.data(), 3 * d, 4 * d}, lewm::Precision::bf16,
                     {expected.data(), y_stride, nullptr});
  expect_close(y, expected, "ada_ln");
}

void check_window(int rows, int heads, int head_dim, int max_keys) {
  const std::int64_t inner = heads * head_dim, cache_rows = rows * max_keys;
  const Halves query = halves(normal(rows * inner, 1)), cache = halves(normal(cache_rows * 2 * inner, 2));
  std::vector<std::int32_t> key_row(size(rows * max_keys)), keys(size(rows));
  for (int r = 0; r < rows; ++r) {
    keys[size(r)] = 1 + r % max_keys;
    for (int j = 0; j < max_keys; ++j) {
      key_row[size(r * max_keys + j)] = static_cast<std::int32_t>((r * max_keys + j) * 7 % cache_rows);
    }
  }
  Halves out(size(rows * inner)), expected(out);
  launch_window_attention({rows, heads, head_dim, query.data(), inner, cache.data(), 2 * inner, inner, key_row.data(),
                           keys.data(), max_keys, out.data(), inner},
                          0);
  // The CPU's kernel leaves the first key out: plain sums.
  const auto at = [](const Halves& values, std::int64_t i) {
    return static_cast<double>(bf16_to_float(values[static_cast<std::size_t>(i)]));
  };
  for (std::int64_t i = 0; i < rows * inner; ++i) {
    const std::int64_t r = i / inner, head = i % inner / head_dim * head_dim;
    double total = 0, value = 0;
    for (std::int64_t j = 0; j < keys[static_cast<std::size_t>(r)]; ++j) {
      const std::int64_t key = key_row[static_cast<std::size_t>(r * max_keys + j)] * 2 * inner;
      double logit = 0;
      for (std::int64_t c = head; c < head + head_dim; ++c) logit += at(query, r * inner + c) * at(cache, key + c);
      total += std::exp(logit);
      value += std::exp(logit) * at(cache, key + inner + i % inner);
    }
    expected[static_cast<std::size_t>(i)] = float_to_bf16(static_cast<float>(value / total));
  }
  expect_close(out, expected, "window_attention");
}

void check_full(int sequences, int tokens, int heads, int head_dim, int queries) {
  lewm::cuda::load_kernels();  // heads of 128 need more than 48 KiB
  const std::int64_t inner = heads * head_dim, stride = 3 * inner;
  const Halves qkv = halves(normal(sequences * tokens * stride, 1));
  Halves out(size(sequences * queries * inner));
  launch_full_attention(
      {sequences, tokens, heads, head_dim, qkv.data(), stride, inner, 2 * inner, out.data(), inner, queries}, 0);

  std::vector<unsigned char> scratch(reference().full_attention_scratch(tokens, head_dim) + 64);
  void* aligned = reinterpret_cast<void*>(lewm::round_up(reinterpret_cast<std::int64_t>(scratch.data()), 64));
  Floats expected(out.size());
  for (int s = 0; s < sequences; ++s) {
    for (int h = 0; h < heads; ++h) {
      const std::uint16_t* q = qkv.data() + s * tokens * stride + h * head_dim;
      reference().full_attention({tokens, head_dim, 0, queries, cpu::Store::bf16, q, q + inner, q + 2 * inner, stride,
                                  expected.data() + s * queries * inner + h * head_dim, inner, aligned});
    }
  }
  expect_close(out, halves(expected), "full_attention");
}

}  // namespace

TEST(layer_norm_matches_the_reference) {
  in_every_order([] {
    check_layer_norm(1, 1, false, 0.0f);
    check_layer_norm(5, 24, true, 0.0f);
    check_layer_norm(9, 192, false, 1000.0f);
    check_layer_norm(3, 100, true, -5.0f);
    check_layer_norm(2, 300, true, 2.0f);
  });
}

TEST(ada_ln_matches_the_reference) {
  in_every_order([] {
    check_ada_ln(1, 8);
    check_ada_ln(7, 192);
    check_ada_ln(6, 50);
    check_ada_ln(3, 300);
  });
}

TEST(window_attention_matches_the_reference) {
  in_every_order([] {
    check_window(1, 1, 1, 1);
    check_window(5, 3, 8, 4);
    check_window(4, 2, 200, 3);
    check_window(3, 16, 64, 3);
  });
}

TEST(full_attention_matches_the_reference) {
  in_every_order([] {
    check_full(1, 1, 1, 8, 1);
    check_full(2, 17, 2, 40, 17);
    check_full(1, 65, 1, 128, 65);
    check_full(1, 130, 2, 64, 130);
    check_full(3, 70, 2, 32, 1);
  });
}

CHECK_MAIN
