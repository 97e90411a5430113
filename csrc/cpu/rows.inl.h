// Rows of floats -> GEMM input. Include after math.inl.h.
#pragma once

#include "cpu/kernels.h"

namespace lewm::cpu::LEWM_SIMD {

// body(i, n) over [0, d) in vectors; n < kLanes in the last one only.
template <class Body>
LEWM_INLINE void for_vectors(std::int64_t d, Body body) {
  std::int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes) body(i, static_cast<std::int64_t>(kLanes));
  if (i < d) body(i, d - i);
}
LEWM_INLINE std::int64_t max_of(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
LEWM_INLINE std::int64_t min_of(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
LEWM_INLINE F load_some(const float* p, std::int64_t n) { return n == kLanes ? load(p) : load_n(p, n); }

// How the integer precisions store rows and weights. kRowZero stands for zero in a row; kProductZero is what of it is
// left in a dot product.
template <Precision P>
struct Integers;
template <>
struct Integers<Precision::int8> {  // unsigned rows, signed weights: what the dot products want
  using Row = std::uint8_t;
  using Weight = std::int8_t;
  static constexpr int kRowZero = kInt8Zero, kProductZero = kInt8ProductZero;
  static LEWM_METHOD float levels(std::int64_t) { return kInt8Levels; }
};
template <>
struct Integers<Precision::int16> {
  using Row = std::int16_t;
  using Weight = std::int16_t;
  static constexpr int kRowZero = 0, kProductZero = 0;
  static LEWM_METHOD float levels(std::int64_t k) { return int16_levels(k); }
};
template <>
struct Integers<Precision::int24> {
  using Row = std::int8_t;  // a digit
  using Weight = std::int8_t;
  static constexpr int kRowZero = 0, kProductZero = 0;
  static LEWM_METHOD float levels(std::int64_t) { return kInt24Levels; }
};

// Stored elements of a number.
template <Precision P>
constexpr int kDigits = P == Precision::int24 ? kInt24Digits : 1;

// body(Tag<P>{}) for the precision P that `precision` is, if this tier has it.
template <Precision P>
struct Tag {
  static constexpr Precision kValue = P;
};
template <class Body>
LEWM_INLINE void with_precision(Precision precision, Body body) {
  switch (precision) {
    case Precision::fp32:
      return body(Tag<Precision::fp32>{});
    case Precision::bf16:
      return body(Tag<Precision::bf16>{});
    case Precision::int8:
      if constexpr (kHasInt8) body(Tag<Precision::int8>{});
      return;
    case Precision::int16:
      if constexpr (kHasInt16) body(Tag<Precision::int16>{});
      return;
    case Precision::int24:
      if constexpr (kHasInt24) body(Tag<Precision::int24>{});
      return;
  }
}

// Rows end on a multiple of 64 bytes (fp32: of an element; int24: of each digit), which is what one tile register holds
// of a row.
template <Precision P>
LEWM_INLINE std::int64_t padded_k(std::int64_t k) {
  constexpr std::int64_t kElements = P == Precision::fp32 ? 1 : P == Precision::int8 || P == Precision::int24 ? 64 : 32;
  return (k + kElements - 1) / kElements * kElements;
}

// max|x| / levels of a row, with the exceptions that kernels.h names.
LEWM_INLINE float integer_scale(const float* x, std::int64_t k, float levels) {
  I bits = zero_i();
  std::int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) bits = max_i(bits, magnitude_bits(load(x + i)));
  if (i < k) bits = max_i(bits, magnitude_bits(load_n(x + i, k - i)));
  const std::int32_t top = largest_i(bits);
  constexpr std::int32_t kInfinity = 0x7f800000, kQuietNaN = 0x7fc00000;
  float value;
  __builtin_memcpy(&value, top >= kInfinity ? &kQuietNaN : &top, sizeof value);
  return value < kInt8Tiny ? 1.0f : value * (1.0f / levels);
}

// integers[0..padded) <- x[0..k) / scale, rounded to nearest even, + zero; of int24 each digit so, the highest first.
template <Precision P, int kZero, class Integer>
LEWM_INLINE void write_integers(const float* x, std::int64_t k, std::int64_t padded, float scale, Integer* integers) {
  const F inverse = set(1.0f / scale);
  if constexpr (P == Precision::int24) {
    for (std::int64_t i = 0; i < padded; i += kLanes) {
      store_digits(integers + i, padded, mul(load_n(x + i, k - i), inverse));
    }
  } else {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const F shift = set(12582912.0f + kZero);
    std::int64_t i = 0;
    for (; i + kLanes <= k; i += kLanes) store_low_bits(integers + i, add(mul(load(x + i), inverse), shift));
    for (; i < padded; i += kLanes) store_low_bits(integers + i, add(mul(load_n(x + i, k - i), inverse), shift));
  }
}

template <Precision P>
LEWM_INLINE void write_row_integers(const float* x, std::int64_t k, typename Integers<P>::Row* row, float* scale) {
  *scale = integer_scale(x, k, Integers<P>::levels(k));
  write_integers<P, Integers<P>::kRowZero>(x, k, padded_k<P>(k), *scale, row);
}

LEWM_INLINE void write_row_bf16(const float* x, std::int64_t k, std::uint16_t* row) {
  std::int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) store(row + i, load(x + i));
  for (; i < padded_k<Precision::bf16>(k); i += kLanes) store(row + i, load_n(x + i, k - i));
}

LEWM_INLINE void write_row_f32(const float* x, std::int64_t k, float* row) {
  std::int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) store(row + i, load(x + i));
  if (i < k) store_n(row + i, load_n(x + i, k - i), k - i);
}

// Row r of `out` <- x[0..k), padding included.
template <Precision P>
LEWM_INLINE void write_row(const float* x, std::int64_t k, Rows out, std::int64_t r) {
  const std::int64_t first = r * out.stride;
  if constexpr (P == Precision::fp32) write_row_f32(x, k, static_cast<float*>(out.data) + first);
  if constexpr (P == Precision::bf16) write_row_bf16(x, k, static_cast<std::uint16_t*>(out.data) + first);
  if constexpr (is_integer(P)) {
    write_row_integers<P>(x, k, static_cast<typename Integers<P>::Row*>(out.data) + first * kDigits<P>, out.scale + r);
  }
}

template <Precision P>
static void convert(const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t k, Rows out) {
  for (std::int64_t r = 0; r < rows; ++r) write_row<P>(x + r * x_stride, k, out, r);
}

}  // namespace lewm::cpu::LEWM_SIMD
