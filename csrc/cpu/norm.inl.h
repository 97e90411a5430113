// LayerNorm, adaLN and the squared distance. Include after attention_rows.inl.h.
#pragma once

namespace lewm::cpu::LEWM_SIMD {

struct Moments {
  F mean, rstd;
};

// Of y[0..d), in two passes (mean, then squares of what is left), so that a large common offset costs no digits.
LEWM_INLINE Moments moments(const float* y, std::int64_t d, float eps) {
  const std::int64_t whole = d / kLanes * kLanes;
  const F tail = load_n(y + whole, d - whole);
  F sums[2] = {tail, zero()};
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= whole; i += 2 * kLanes) {
    sums[0] = add(sums[0], load(y + i));
    sums[1] = add(sums[1], load(y + i + kLanes));
  }
  if (i < whole) sums[1] = add(sums[1], load(y + i));
  const F mean = set(sum(add(sums[0], sums[1])) / static_cast<float>(d));
  const F left = keep_n(sub(tail, mean), d - whole);
  F squares[2] = {mul(left, left), zero()};
  for (i = 0; i + 2 * kLanes <= whole; i += 2 * kLanes) {
    const F a = sub(load(y + i), mean), b = sub(load(y + i + kLanes), mean);
    squares[0] = fma(a, a, squares[0]);
    squares[1] = fma(b, b, squares[1]);
  }
  if (i < whole) {
    const F a = sub(load(y + i), mean);
    squares[1] = fma(a, a, squares[1]);
  }
  const float variance = sum(add(squares[0], squares[1])) / static_cast<float>(d);
  return {mean, set(1.0f / __builtin_sqrtf(variance + eps))};
}

template <Precision P>
static void layer_norm_as(const LayerNorm& args, Rows out) {
  alignas(64) float y[kMaxWidth];
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * args.x_stride;
    const Moments m = moments(x, args.d, args.eps);
    for_vectors(
        args.d, [&](std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
          F value = mul(sub(load_some(x + i, n), m.mean), m.rstd);
          if (args.gamma) value = fma(value, load_some(args.gamma + i, n), load_some(args.beta + i, n));
          store(y + i, value);  // kMaxWidth is a multiple of kLanes
        });
    write_row<P>(y, args.d, out, r);
  }
}

template <Precision P, class Row>
static void ada_ln_as(const AdaLN& args, Rows out) {
  constexpr float kInnerEps = 1e-6f, kOuterEps = 1e-5f;
  constexpr std::int64_t kAhead = 2, kLineElements = 64 / sizeof(typename Row::Element);
  alignas(64) float y[kMaxWidth];
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * args.x_stride;
    const Row modulation(args.modulation[r]);
    // Rows' modulations lie far apart, where no hardware prefetcher looks.
    const Row next(args.modulation[r + kAhead < args.rows ? r + kAhead : r]);
    for (std::int64_t i = 0; i < args.d; i += kLineElements) {
      __builtin_prefetch(next.p + args.shift_offset + i);
      __builtin_prefetch(next.p + args.scale_offset + i);
    }
    const Moments inner = moments(x, args.d, kInnerEps);
    for_vectors(
        args.d, [&](std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
          const F normal = mul(sub(load_some(x + i, n), inner.mean), inner.rstd);
          const F scale = modulation.at(args.scale_offset + i, n), shift = modulation.at(args.shift_offset + i, n);
          store(y + i, add(fma(normal, scale, normal), shift));
        });
    const Moments outer = moments(y, args.d, kOuterEps);
    for_vectors(
        args.d, [&](std::int64_t i, std::int64_t)
                    __attribute__((always_inline)) { store(y + i, mul(sub(load(y + i), outer.mean), outer.rstd)); });
    write_row<P>(y, args.d, out, r);
  }
}

static void layer_norm(const LayerNorm& args, Precision precision, Rows out) {
  switch (precision) {
    case Precision::fp32:
      return layer_norm_as<Precision::fp32>(args, out);
    case Precision::bf16:
      return layer_norm_as<Precision::bf16>(args, out);
    case Precision::int8:
      return layer_norm_as<Precision::int8>(args, out);
  }
}

template <Precision P>
static void ada_ln_from(const AdaLN& args, Rows out) {
  args.storage == Store::f32 ? ada_ln_as<P, FloatRow>(args, out) : ada_ln_as<P, Bf16Row>(args, out);
}

static void ada_ln(const AdaLN& args, Precision precision, Rows out) {
  switch (precision) {
    case Precision::fp32:
      return ada_ln_from<Precision::fp32>(args, out);
    case Precision::bf16:
      return ada_ln_from<Precision::bf16>(args, out);
    case Precision::int8:
      return ada_ln_from<Precision::int8>(args, out);
  }
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
