// LayerNorm, adaLN and the squared distance. Include after attention_rows.inl.h.
#pragma once

namespace lewm::cpu::LEWM_SIMD {

struct Moments {
  F mean, rstd;
};

// Of each of kRows rows y[r][0..d), in two passes (mean, then squares of what is left), so that a large common offset
// costs no digits. A row is a chain of sums: several at once hide each other's latency.
template <int kRows>
LEWM_INLINE void moments(const float* const (&y)[kRows], std::int64_t d, float eps, Moments (&out)[kRows]) {
  const std::int64_t whole = d / kLanes * kLanes;
  F even[kRows], odd[kRows], mean[kRows];
  for (int r = 0; r < kRows; ++r) {
    even[r] = load_n(y[r] + whole, d - whole);
    odd[r] = zero();
  }
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= whole; i += 2 * kLanes) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      even[r] = add(even[r], load(y[r] + i));
      odd[r] = add(odd[r], load(y[r] + i + kLanes));
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    if (i < whole) odd[r] = add(odd[r], load(y[r] + i));
    mean[r] = set(sum(add(even[r], odd[r])) / static_cast<float>(d));
    const F left = keep_n(sub(load_n(y[r] + whole, d - whole), mean[r]), d - whole);
    even[r] = mul(left, left);
    odd[r] = zero();
  }
  for (i = 0; i + 2 * kLanes <= whole; i += 2 * kLanes) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const F a = sub(load(y[r] + i), mean[r]), b = sub(load(y[r] + i + kLanes), mean[r]);
      even[r] = fma(a, a, even[r]);
      odd[r] = fma(b, b, odd[r]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    if (i < whole) {
      const F a = sub(load(y[r] + i), mean[r]);
      odd[r] = fma(a, a, odd[r]);
    }
    const float variance = sum(add(even[r], odd[r])) / static_cast<float>(d);
    out[r] = {mean[r], set(1.0f / __builtin_sqrtf(variance + eps))};
  }
}

// Rows of a call that are normalised together, the rest one by one.
constexpr int kNormRows = 4;

template <Precision P, int kRows>
LEWM_INLINE void layer_norm_rows(const LayerNorm& args, Rows out, std::int64_t first, float* buffer) {
  const float* x[kRows];
  Moments m[kRows];
  for (int r = 0; r < kRows; ++r) x[r] = args.x + (first + r) * args.x_stride;
  moments(x, args.d, args.eps, m);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    for_vectors(
        args.d, [&](std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
          F value = mul(sub(load_some(x[r] + i, n), m[r].mean), m[r].rstd);
          if (args.gamma) value = fma(value, load_some(args.gamma + i, n), load_some(args.beta + i, n));
          store(buffer + i, value);  // kMaxWidth is a multiple of kLanes
        });
    write_row<P>(buffer, args.d, out, first + r);
  }
}

template <Precision P>
static void layer_norm_as(const LayerNorm& args, Rows out) {
  alignas(64) float buffer[kMaxWidth];
  std::int64_t r = 0;
  for (; r + kNormRows <= args.rows; r += kNormRows) layer_norm_rows<P, kNormRows>(args, out, r, buffer);
  for (; r < args.rows; ++r) layer_norm_rows<P, 1>(args, out, r, buffer);
}

template <Precision P, class Row, int kRows>
LEWM_INLINE void ada_ln_rows(const AdaLN& args, Rows out, std::int64_t first, float (*buffer)[kMaxWidth]) {
  constexpr float kInnerEps = 1e-6f, kOuterEps = 1e-5f;
  constexpr std::int64_t kAhead = 4, kLineElements = 64 / sizeof(typename Row::Element);
  const float *x[kRows], *y[kRows];
  Moments m[kRows];
  for (int r = 0; r < kRows; ++r) {
    x[r] = args.x + (first + r) * args.x_stride;
    y[r] = buffer[r];
    // Rows' modulations lie far apart, where no hardware prefetcher looks.
    const Row later(args.modulation[first + r + kAhead < args.rows ? first + r + kAhead : first + r]);
    for (std::int64_t i = 0; i < args.d; i += kLineElements) {
      __builtin_prefetch(later.p + args.shift_offset + i);
      __builtin_prefetch(later.p + args.scale_offset + i);
    }
  }
  moments(x, args.d, kInnerEps, m);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    const Row modulation(args.modulation[first + r]);
    for_vectors(
        args.d, [&](std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
          const F normal = mul(sub(load_some(x[r] + i, n), m[r].mean), m[r].rstd);
          const F scale = modulation.at(args.scale_offset + i, n), shift = modulation.at(args.shift_offset + i, n);
          store(buffer[r] + i, add(fma(normal, scale, normal), shift));
        });
  }
  moments(y, args.d, kOuterEps, m);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    for_vectors(
        args.d, [&](std::int64_t i, std::int64_t) __attribute__((always_inline)) {
          store(buffer[r] + i, mul(sub(load(y[r] + i), m[r].mean), m[r].rstd));
        });
    write_row<P>(y[r], args.d, out, first + r);
    if (args.kept) write_row_f32(y[r], args.d, args.kept + (first + r) * args.kept_stride);
    if (args.anchor) {
      const float* anchor = args.anchor[first + r];
      for_vectors(
          args.d, [&](std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
            store(buffer[r] + i, sub(load(y[r] + i), load_some(anchor + i, n)));
          });
      write_row<P>(y[r], args.d, args.differences, first + r);
    }
  }
}

template <Precision P, class Row>
static void ada_ln_as(const AdaLN& args, Rows out) {
  alignas(64) float buffer[kNormRows][kMaxWidth];
  std::int64_t r = 0;
  for (; r + kNormRows <= args.rows; r += kNormRows) ada_ln_rows<P, Row, kNormRows>(args, out, r, buffer);
  for (; r < args.rows; ++r) ada_ln_rows<P, Row, 1>(args, out, r, buffer);
}

static void layer_norm(const LayerNorm& args, Precision precision, Rows out) {
  with_precision(precision, [&](auto p) { layer_norm_as<p.kValue>(args, out); });
}

template <Precision P>
static void ada_ln_from(const AdaLN& args, Rows out) {
  args.storage == Store::f32 ? ada_ln_as<P, FloatRow>(args, out) : ada_ln_as<P, Bf16Row>(args, out);
}

static void ada_ln(const AdaLN& args, Precision precision, Rows out) {
  with_precision(precision, [&](auto p) { ada_ln_from<p.kValue>(args, out); });
}

static void squared_distance(const float* x, std::int64_t x_stride, const float* goal, std::int64_t rows,
                             std::int64_t d, float* cost) {
  for (std::int64_t r = 0; r < rows; ++r) {
    F total = zero();
    for_vectors(
        d, [&](std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
          const F difference = sub(load_some(x + r * x_stride + i, n), load_some(goal + i, n));
          total = fma(difference, difference, total);
        });
    cost[r] = sum(total);
  }
}

}  // namespace lewm::cpu::LEWM_SIMD
