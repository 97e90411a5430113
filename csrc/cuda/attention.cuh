// The predictor's attention over a handful of keys, and the encoder's over a whole image.
#pragma once

#include "cuda/api.h"

namespace lewm::cuda {

// One query a row against keys[row] keys: out = softmax_j(q . k_j) v_j per head; 1/sqrt(head_dim) is folded into q.
// Keys are rows of a cache, [key | value]: key j of row i is at cache + key_row[i * max_keys + j] * cache_stride.
struct WindowAttention {
  int rows, heads, head_dim;   // head_dim <= 256
  const std::uint16_t* query;  // [rows, query_stride] bf16
  std::int64_t query_stride;
  const std::uint16_t* cache;  // [.., cache_stride] bf16
  std::int64_t cache_stride, value_offset;
  const std::int32_t* key_row;  // [rows, max_keys]
  const std::int32_t* keys;     // [rows], 1..max_keys
  int max_keys;
  std::uint16_t* out;  // [rows, out_stride] bf16
  std::int64_t out_stride;
};

// The first `queries` tokens of a sequence against all of it. qkv: [sequences * tokens, stride] bf16 with the three
// parts at the given offsets, heads side by side; 1/sqrt(head_dim) is folded into q. Strides, offsets and head_dim are
// multiples of 8.
struct FullAttention {
  int sequences, tokens, heads, head_dim;  // head_dim <= 128
  const std::uint16_t* qkv;
  std::int64_t stride, k_offset, v_offset;
  std::uint16_t* out;  // [sequences * queries, out_stride] bf16
  std::int64_t out_stride;
  int queries;  // of a sequence, 1..tokens
};

void launch_window_attention(const WindowAttention& attention, cudaStream_t stream);
void launch_full_attention(const FullAttention& attention, cudaStream_t stream);

}  // namespace lewm::cuda
