// What happens to a block of X W^T between the registers and memory. Include after math.inl.h.
#pragma once

#include "cpu/kernels.h"

namespace lewm::cpu::LEWM_SIMD {

// Where a block of the product lies: rows [row, row + rows), columns [column, column + columns).
struct Block {
  std::int64_t row, rows, column, columns;
};

// Words from a product of int24's highest digits to that of lower ones: a block of 32 rows.
constexpr std::int64_t kDigitStride = 32 * kTileColumns;

template <Precision P, Activation A>
LEWM_INLINE F activate(F x) {
  if constexpr (A == Activation::gelu) return is_exact(P) ? gelu(x) : gelu_coarse(x);
  if constexpr (A == Activation::silu) return silu(x);
  return x;
}

// The vectors of one block that all its rows share.
template <Precision P>
struct ColumnTerms {
  F bias, scale;
  I sum;
  LEWM_METHOD ColumnTerms(const PackedMatrix& w, std::int64_t j) {
    bias = load(w.bias + j);  // padded to whole vectors
    if constexpr (is_integer(P)) {
      scale = load(w.scale + j);
      sum = load_i(w.sum + j);
    }
  }
  LEWM_METHOD F value(const std::uint32_t* product, float row_scale) const {
    if constexpr (P == Precision::int24) {
      const auto digits = [&](int place) { return to_float(load_i(product + place * kDigitStride)); };
      const F low = fma(digits(1), set(kInt24Middle), mul(digits(2), set(kInt24Low)));
      return fma(mul(fma(digits(0), set(kInt24High), low), set(row_scale)), scale, bias);
    } else if constexpr (is_integer(P)) {
      I total = load_i(product);
      if constexpr (Integers<P>::kProductZero != 0) total = add_i(total, sum);
      return fma(mul(to_float(total), set(row_scale)), scale, bias);
    } else {
      return add(load(reinterpret_cast<const float*>(product)), bias);
    }
  }
};

LEWM_INLINE bool combines(const Epilogue& e) { return e.addend || e.gate || e.residual; }

// Asks for the addends, gates and residuals of a block: they were written a layer or a step ago and lie far away.
LEWM_INLINE void fetch_terms(const Block& block, const Epilogue& e) {
  if (!combines(e)) return;
  const std::int64_t gate_bytes = e.gate_storage == Store::f32 ? 4 : 2;
  for (std::int64_t r = block.row; r < block.row + block.rows; ++r) {
    if (e.addend) __builtin_prefetch(e.addend[r] + e.addend_offset + block.column);
    if (e.gate) __builtin_prefetch(static_cast<const char*>(e.gate[r]) + (e.gate_offset + block.column) * gate_bytes);
    if (e.residual) __builtin_prefetch(e.residual + r * e.residual_stride + block.column);
  }
}

// Addend, gate and residual of one vector of row r, `n` columns from j. Full: n == kLanes.
template <bool Full>
LEWM_INLINE F combine(F value, std::int64_t r, std::int64_t j, std::int64_t n, const Epilogue& e) {
  if (e.addend) {
    const float* addend = e.addend[r] + e.addend_offset + j;
    value = add(value, Full ? load(addend) : load_n(addend, n));
  }
  if (e.gate) {
    const std::int64_t i = e.gate_offset + j;
    const float* floats = static_cast<const float*>(e.gate[r]) + i;
    const std::uint16_t* halves = static_cast<const std::uint16_t*>(e.gate[r]) + i;
    const F gate = e.gate_storage == Store::f32 ? (Full ? load(floats) : load_n(floats, n))
                                                : (Full ? load(halves) : load_n(halves, n));
    value = mul(gate, value);
  }
  if (e.residual) {
    const float* residual = e.residual + r * e.residual_stride + j;
    value = add(value, Full ? load(residual) : load_n(residual, n));
  }
  return value;
}

// The epilogue of one row of a block. product: [kTileColumns] words of X W^T, float or for integers int32 (int8: with
// the zero point still in it). A block has at most two vectors of columns.
template <Precision P, Activation A, class Element>
LEWM_INLINE void finish_row(const std::uint32_t* product, std::int64_t r, const Block& block,
                            const ColumnTerms<P>& left, const ColumnTerms<P>& right, const float* x_scale,
                            const Epilogue& e, void* y, std::int64_t y_stride) {
  const std::int64_t j = block.column;
  const float row_scale = is_integer(P) ? x_scale[r] : 1.0f;
  F a = activate<P, A>(left.value(product, row_scale));
  F b = activate<P, A>(right.value(product + kLanes, row_scale));
  Element* out = static_cast<Element*>(y) + r * y_stride + j;
  if (block.columns == 2 * kLanes) {
    if (combines(e)) {
      a = combine<true>(a, r, j, kLanes, e);
      b = combine<true>(b, r, j + kLanes, kLanes, e);
    }
    store_pair(out, a, b);
  } else {
    store_n(out, combine<false>(a, r, j, block.columns, e), block.columns);
    if (block.columns > kLanes) {
      store_n(out + kLanes, combine<false>(b, r, j + kLanes, block.columns - kLanes, e), block.columns - kLanes);
    }
  }
}

// product: [block.rows, product_stride] words.
template <Precision P, Activation A, class Element>
static void finish(const std::uint32_t* product, std::int64_t product_stride, const Block& block, const float* x_scale,
                   const PackedMatrix& w, const Epilogue& e, void* y, std::int64_t y_stride) {
  const ColumnTerms<P> left(w, block.column), right(w, block.column + kLanes);  // both within the padding
  for (std::int64_t i = 0; i < block.rows; ++i) {
    finish_row<P, A, Element>(product + i * product_stride, block.row + i, block, left, right, x_scale, e, y, y_stride);
  }
}

using Finish = void (*)(const std::uint32_t*, std::int64_t, const Block&, const float*, const PackedMatrix&,
                        const Epilogue&, void*, std::int64_t);

template <Precision P, Activation A>
static Finish select_store(Store store) {
  return store == Store::f32 ? finish<P, A, float> : finish<P, A, std::uint16_t>;
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
