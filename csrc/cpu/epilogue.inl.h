// What happens to a block of X W^T between the registers and memory. Include after math.inl.h.
#pragma once

#include "cpu/kernels.h"

namespace lewm::cpu::LEWM_SIMD {

// Where a block of the product lies: rows [row, row + rows), columns [column, column + columns).
struct Block {
  std::int64_t row, rows, column, columns;
};

template <Precision P, Activation A>
LEWM_INLINE F activate(F x) {
  if constexpr (A == Activation::gelu) return P == Precision::fp32 ? gelu(x) : gelu_coarse(x);
  if constexpr (A == Activation::silu) return silu(x);
  return x;
}

// One vector of row r, `n` columns from j. Full: n == kLanes.
template <Precision P, Activation A, Store S, bool Full>
LEWM_INLINE void finish_vector(const std::uint32_t* product, std::int64_t r, std::int64_t j, std::int64_t n,
                               float row_scale, const PackedMatrix& w, const Epilogue& e, const float* gate, void* y) {
  F value;
  if constexpr (P == Precision::int8) {
    value = fma(mul(to_float(load_i(product)), set(row_scale)), load(w.scale + j), load(w.bias + j));
  } else {
    value = load(reinterpret_cast<const float*>(product));  // the bias is in it
  }
  value = activate<P, A>(value);
  const float* residual = e.residual ? e.residual + r * e.residual_stride + j : nullptr;
  if (gate) {
    const F g = Full ? load(gate + j) : load_n(gate + j, n);
    if (residual) {
      value = fma(g, value, Full ? load(residual) : load_n(residual, n));
    } else {
      value = mul(g, value);
    }
  } else if (residual) {
    value = add(value, Full ? load(residual) : load_n(residual, n));
  }
  if constexpr (S == Store::f32) {
    float* out = static_cast<float*>(y) + j;
    Full ? store(out, value) : store_n(out, value, n);
  } else {
    std::uint16_t* out = static_cast<std::uint16_t*>(y) + j;
    Full ? store_bf16(out, value) : store_bf16_n(out, value, n);
  }
}

// product: [block.rows, product_stride] words: float, with the bias in it, or for int8 int32, with the zero point out
// of it.
template <Precision P, Activation A, Store S>
static void finish(const std::uint32_t* product, std::int64_t product_stride, const Block& block, const float* x_scale,
                   const PackedMatrix& w, const Epilogue& e, void* y, std::int64_t y_stride) {
  constexpr std::int64_t kElement = S == Store::f32 ? 4 : 2;
  for (std::int64_t i = 0; i < block.rows; ++i) {
    const std::int64_t r = block.row + i;
    const std::uint32_t* row = product + i * product_stride;
    const float row_scale = P == Precision::int8 ? x_scale[r] : 1.0f;
    const float* gate = e.gate ? e.gate[r] + e.gate_offset : nullptr;
    void* out = static_cast<char*>(y) + r * y_stride * kElement;
    std::int64_t c = 0;
    for (; c + kLanes <= block.columns; c += kLanes) {
      finish_vector<P, A, S, true>(row + c, r, block.column + c, kLanes, row_scale, w, e, gate, out);
    }
    if (c < block.columns) {
      finish_vector<P, A, S, false>(row + c, r, block.column + c, block.columns - c, row_scale, w, e, gate, out);
    }
  }
}

using Finish = void (*)(const std::uint32_t*, std::int64_t, const Block&, const float*, const PackedMatrix&,
                        const Epilogue&, void*, std::int64_t);

template <Precision P, Activation A>
static Finish select_store(Store store) {
  return store == Store::f32 ? finish<P, A, Store::f32> : finish<P, A, Store::bf16>;
}

// The epilogue's options as template arguments, chosen once per call.
template <Precision P>
static Finish select_finish(const Epilogue& e) {
  switch (e.activation) {
    case Activation::gelu:
      return select_store<P, Activation::gelu>(e.store);
    case Activation::silu:
      return select_store<P, Activation::silu>(e.store);
    case Activation::none:
      break;
  }
  return select_store<P, Activation::none>(e.store);
}

}  // namespace lewm::cpu::LEWM_SIMD
