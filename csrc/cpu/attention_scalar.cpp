// The reference attentions.
#include <cmath>
#include <limits>

#include "cpu/kernels_scalar.h"

namespace lewm::cpu::scalar {
namespace {

float dot(const void* a, std::int64_t a_first, const void* b, std::int64_t b_first, std::int64_t count, Store storage) {
  float sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += stored(a, a_first + i, storage) * stored(b, b_first + i, storage);
  return sum;
}

// score[i] <- exp(score[i] - max), not yet divided by their sum. max: the largest of them and of `largest`, returned.
float exponentials(float* score, std::int64_t count, float largest = -std::numeric_limits<float>::infinity()) {
  for (std::int64_t i = 0; i < count; ++i) largest = std::fmax(largest, score[i]);
  for (std::int64_t i = 0; i < count; ++i) score[i] = std::exp(score[i] - largest);
  return largest;
}

}  // namespace

void window_attention(const WindowAttention& args, Precision precision, Rows out) {
  float result[kMaxWidth], score[kMaxWindow];
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const void* const* key = args.key + r * args.max_keys;
    for (std::int64_t h = 0; h < args.heads; ++h) {
      const std::int64_t first = h * args.head_dim;
      for (std::int32_t j = 0; j < args.keys[r]; ++j) {
        score[j] = dot(args.query[r], first, key[j], first, args.head_dim, args.storage);
      }
      float sum = std::exp(-exponentials(score, args.keys[r], 0.0f));  // the token that all are differences from
      for (std::int32_t j = 0; j < args.keys[r]; ++j) sum += score[j];
      for (std::int64_t i = first; i < first + args.head_dim; ++i) {
        float value = 0;
        for (std::int32_t j = 0; j < args.keys[r]; ++j) {
          value += score[j] * stored(key[j], args.value_offset + i, args.storage);
        }
        result[i] = value / sum;
      }
    }
    write_row(result, args.heads * args.head_dim, precision, out, r);
  }
}

std::size_t full_attention_scratch(std::int64_t tokens, std::int64_t) {
  return static_cast<std::size_t>(tokens) * sizeof(float);
}

void full_attention(const FullAttention& args) {
  float* score = static_cast<float*>(args.scratch);  // [tokens]
  for (std::int64_t t = args.first; t < args.last; ++t) {
    for (std::int64_t j = 0; j < args.tokens; ++j) {
      score[j] = dot(args.q, t * args.stride, args.k, j * args.stride, args.head_dim, args.storage);
    }
    exponentials(score, args.tokens);
    float sum = 0;
    for (std::int64_t j = 0; j < args.tokens; ++j) {
      // The weights become GEMM input, so with bf16 storage they are rounded, and their sum is that of the rounded
      // ones.
      if (args.storage == Store::bf16) score[j] = float_from_bf16(bf16_from_float(score[j]));
      sum += score[j];
    }
    for (std::int64_t i = 0; i < args.head_dim; ++i) {
      float value = 0;
      for (std::int64_t j = 0; j < args.tokens; ++j)
        value += score[j] * stored(args.v, j * args.stride + i, args.storage);
      args.out[t * args.out_stride + i] = value / sum;
    }
  }
}

}  // namespace lewm::cpu::scalar
