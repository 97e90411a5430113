// The CPU kernels: one table of function pointers per instruction set, chosen once (isa.h).
//
// Every kernel is single-threaded, allocates nothing, and gives each output row a value that depends on that row's
// inputs alone: not on how many rows share the call, where a tile ends, or which thread runs it. Callers split rows
// over threads freely and plans stay byte-identical.
//
// This header and the files that implement it include no STL container or algorithm: per-ISA files are compiled with
// wider flags, and an inline function instantiated there must not win at link time.
#pragma once

#include "core/types.h"

namespace lewm::cpu {

// ---------------------------------------------------------------------------------------------------------------------
// GEMM: Y = epilogue(X W^T + bias)
// ---------------------------------------------------------------------------------------------------------------------

// Rows of GEMM input, in the element type of a precision:
//   fp32: float.   bf16: uint16_t (round to nearest even).
//   int8: uint8_t(round(x / scale[row]) + kInt8Zero) with scale[row] = max|x| / kInt8Levels.
//   int16: int16_t(round(x / scale[row])) with scale[row] = max|x| / int16_levels(k).
//   int24: round(x / scale[row]) with scale[row] = max|x| / kInt24Levels, as three int8_t digits to base 256; first all
//     highest digits of a row (padding included), then all middle ones, then all lowest ones. k is at most kInt24MostK.
// The scale is 1 for a row whose max|x| is below kInt8Tiny, and NaN for a row that holds a NaN or an infinity, so that
// neither gets lost. `stride` is in elements of Gemm::row_bytes and at least padded_k(k); elements k..padded_k(k)-1 of
// a row stand for zero.
constexpr int kInt8Zero = 128;
constexpr float kInt8Tiny = 1e-30f;
constexpr float kInt8Levels = 127.0f;
constexpr int kInt24Digits = 3;
constexpr float kInt24Levels = 8355000.0f;  // the highest digit stays below 128, however the quotient is rounded
// The longest rows whose int32 sums cannot overflow: of products of 255 and 127; of 3 k products of two digits.
constexpr std::int64_t kInt8MostK = 66'000, kInt24MostK = 43'000;
// The longest rows that bf16 models multiply in int16: 512 steps on either side of zero.
constexpr std::int64_t kInt16MostK = 8192;

// As many steps on either side of zero as the int32 sum of k products of two such numbers cannot overflow with, between
// 127 (k up to 133,000) and 4095. Internal linkage: per-ISA files include this.
[[maybe_unused]] static inline float int16_levels(std::int64_t k) {
  const float most = __builtin_floorf(__builtin_sqrtf(2147000000.0f / static_cast<float>(k)));
  return most < kInt8Levels ? kInt8Levels : most > 4095.0f ? 4095.0f : most;
}

// What the product of two highest digits counts, of digits one place below that, and two.
constexpr float kInt24High = 4294967296.0f, kInt24Middle = 16777216.0f, kInt24Low = 65536.0f;

struct Rows {
  void* data = nullptr;
  std::int64_t stride = 0;
  float* scale = nullptr;  // [rows], integers only
};

// A weight matrix W (N, K) packed for one instruction set and precision. Owned by the model, read-only after packing.
struct PackedMatrix {
  std::int64_t n = 0;
  std::int64_t k = 0;
  void* data = nullptr;         // packed_bytes(n, k), 64-byte aligned
  float* bias = nullptr;        // [padded_n], zero where there is none
  float* scale = nullptr;       // [padded_n], integers only: weight = scale * integer, of as many levels as the rows
  std::int32_t* sum = nullptr;  // [padded_n], integers only: what undoes the rows' kInt8Zero
};

enum class Activation : int { none = 0, gelu = 1, silu = 2 };  // gelu is the exact (erf) one
enum class Store : int { f32 = 0, bf16 = 1 };

// y = act(x W^T + bias) [+ addend];  then, if gate: y = residual + gate * y;  else if residual: y = residual + y.
struct Epilogue {
  Activation activation = Activation::none;
  const float* const* addend = nullptr;  // [rows] pointers, each to N floats
  std::int64_t addend_offset = 0;        // floats added to each addend pointer
  const void* const* gate = nullptr;     // [rows] pointers, each to N elements; null: no gate
  std::int64_t gate_offset = 0;          // elements added to each gate pointer
  Store gate_storage = Store::f32;       // element type behind gate
  const float* residual = nullptr;       // [rows, residual_stride]; may alias the output when Store::f32
  std::int64_t residual_stride = 0;
  Store store = Store::f32;
};

struct Gemm {
  std::int64_t row_bytes;  // of an element of a row
  std::int64_t (*padded_k)(std::int64_t k);
  std::int64_t (*padded_n)(std::int64_t n);
  std::size_t (*packed_bytes)(std::int64_t n, std::int64_t k);
  // w: [n, k] row-major float; bias: [n] or null. Fills every field that `out` points to.
  void (*pack)(const float* w, const float* bias, std::int64_t n, std::int64_t k, PackedMatrix* out);
  // x: [rows, k] float with row stride x_stride -> GEMM input rows of this precision (padding written too).
  void (*convert)(const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t k, Rows out);
  // y: [rows, y_stride], float or bf16 by epilogue.store; exactly n columns of each row are written.
  void (*run)(Rows x, std::int64_t rows, const PackedMatrix& w, const Epilogue& epilogue, void* y,
              std::int64_t y_stride);
};

// ---------------------------------------------------------------------------------------------------------------------
// Normalisation
// ---------------------------------------------------------------------------------------------------------------------

// Widest row (d, or heads * head_dim) of the kernels below: they keep one row on the stack.
constexpr std::int64_t kMaxWidth = 8192;

// y = LN(x; eps) [* gamma + beta], written as GEMM input of `precision` (padding written too). gamma and beta: [d] or
// both null.
struct LayerNorm {
  const float* x;  // [rows, x_stride]
  std::int64_t x_stride;
  std::int64_t rows, d;
  float eps;
  const float* gamma;
  const float* beta;
};

// y = LN(LN(x; 1e-6) * (1 + scale) + shift; 1e-5), the second LayerNorm without its affine part (folded into the next
// weights), written as GEMM input. shift and scale are read per row at modulation[row] + {shift,scale}_offset, [d]
// elements of `storage` each.
struct AdaLN {
  const float* x;  // [rows, x_stride]
  std::int64_t x_stride;
  std::int64_t rows, d;
  const void* const* modulation;
  std::int64_t shift_offset, scale_offset;
  Store storage = Store::f32;
  // Optional: y as floats, [rows, kept_stride].
  float* kept = nullptr;
  std::int64_t kept_stride = 0;
  // Optional: y - anchor[row] as GEMM input. anchor: [rows] pointers, each to d floats.
  const float* const* anchor = nullptr;
  Rows differences = {};
};

// ---------------------------------------------------------------------------------------------------------------------
// Attention
// ---------------------------------------------------------------------------------------------------------------------

// Attention of single queries over a handful of keys (at most kMaxWindow), as the predictor needs it: the softmax lives
// in registers. The scale 1/sqrt(head_dim) is folded into the query weights. Keys and values are differences from those
// of one more token, whose own are therefore zero: it takes its share of the weights, and is not among the keys. One
// output row per query:
//   out[h*head_dim + :] = sum_j exp(q_h . k_jh) v_jh / (1 + sum_j exp(q_h . k_jh))
constexpr int kMaxWindow = 64;
struct WindowAttention {
  std::int64_t rows;
  std::int64_t heads, head_dim;
  Store storage;             // element type behind q, k and v
  const void* const* query;  // [rows] -> heads*head_dim elements
  const void* const* key;    // [rows, max_keys] -> heads*head_dim elements; the value lies value_offset elements after
  std::int64_t value_offset;
  std::int64_t max_keys;
  const std::int32_t* keys;  // [rows], how many of max_keys to attend to, 1..max_keys
};

// Full attention of one head over one sequence (the encoder): queries [first, last) against all `tokens` keys.
// The scale is folded into the query weights. out: [tokens, out_stride] float, this head's head_dim columns of it.
struct FullAttention {
  std::int64_t tokens, head_dim;
  std::int64_t first, last;
  Store storage;
  const void* q;  // [tokens, stride]
  const void* k;
  const void* v;
  std::int64_t stride;
  float* out;
  std::int64_t out_stride;
  void* scratch;  // full_attention_scratch(tokens, head_dim) bytes, 64-byte aligned
};

// ---------------------------------------------------------------------------------------------------------------------
// The table
// ---------------------------------------------------------------------------------------------------------------------

// Of a model's layers: most are `main`; those whose inputs or outputs suffer most from 8 bits, and cost little, `fine`.
struct LayerPrecisions {
  Precision main = Precision::fp32;
  Precision fine = Precision::fp32;
};

struct Kernels {
  const char* isa;       // "scalar", "avx2", "avx512", "amx", "neon"
  Precision fp32;        // of the layers of fp32 models: fp32, or int24, which is as exact
  Precision bf16;        // of bf16 models: bf16, or int16 where that is faster
  LayerPrecisions int8;  // of int8 models
  // All null where the CPU lacks the precision's dot products; Store::bf16 needs gemm[bf16].
  Gemm gemm[kLayerPrecisions];
  void (*layer_norm)(const LayerNorm& args, Precision precision, Rows out);
  void (*ada_ln)(const AdaLN& args, Precision precision, Rows out);
  void (*window_attention)(const WindowAttention& args, Precision precision, Rows out);
  std::size_t (*full_attention_scratch)(std::int64_t tokens, std::int64_t head_dim);
  void (*full_attention)(const FullAttention& args);
  // cost[i] = sum_d (x[i, d] - goal[d])^2, summed in a fixed order.  x: [rows, x_stride], goal: [d]
  void (*squared_distance)(const float* x, std::int64_t x_stride, const float* goal, std::int64_t rows, std::int64_t d,
                           float* cost);
};

}  // namespace lewm::cpu
