// Elementary functions on vectors. Include after a vec_<isa>.h. The bounds are measured by tests/cpp/test_cpu_math.cpp
// against double precision, over the whole range that is named. NaN in, NaN out.
#pragma once

namespace lewm::cpu::LEWM_SIMD {

// exp(x), relative error below 3e-7 on [-87, 88]; 0 from -104 down, infinity from 89 up.
// x = n ln2 + r with |r| <= ln2 / 2 (ln2 in two parts), exp(r) = 1 + r + r^2 P(r), P a minimax polynomial.
LEWM_INLINE F exp(F x) {
  x = min(set(89.0f), max(set(-104.0f), x));
  const F n = round_nearest(mul(x, set(1.442695f)));
  F r = fnma(n, set(0.69314575f), x);
  r = fnma(n, set(1.4286068e-6f), r);
  F p = set(8.312478e-3f);
  p = fma(p, r, set(4.189055e-2f));
  p = fma(p, r, set(1.6667116e-1f));
  p = fma(p, r, set(4.9999228e-1f));
  p = fma(mul(r, r), p, add(r, set(1.0f)));
  return scale_by_power_of_two(p, n);
}

// x / (1 + exp(-x)), relative error below 5e-7 on [-87, inf); x * 2^-126 or less, or -0, below.
LEWM_INLINE F silu(F x) { return div(x, add(set(1.0f), exp(sub(zero(), x)))); }

// x Phi(x), the erf form of GELU, absolute error below 2e-6 max(1, |x|). Phi(x) - 1/2 is odd and flat beyond 5.2, so
// with t = x clamped there it is t Q(2 t^2 / 5.2^2 - 1): Q is a minimax polynomial in a variable that stays in [-1, 1],
// which keeps its rounding errors small, and meets 1/2 at the clamp.
LEWM_INLINE F gelu(F x) {
  const F t = clamp_magnitude(x, 5.2f);
  const F u = fma(mul(t, t), set(0.0739644989f), set(-1.0f));
  F q = set(8.55948776e-4f);
  q = fma(q, u, set(-2.50273035e-3f));
  q = fma(q, u, set(2.86091864e-3f));
  q = fma(q, u, set(-3.50798224e-3f));
  q = fma(q, u, set(7.55081046e-3f));
  q = fma(q, u, set(-1.31014837e-2f));
  q = fma(q, u, set(1.83902271e-2f));
  q = fma(q, u, set(-2.45940592e-2f));
  q = fma(q, u, set(3.19066681e-2f));
  q = fma(q, u, set(-3.99412103e-2f));
  q = fma(q, u, set(5.00302091e-2f));
  q = fma(q, u, set(-6.77434057e-2f));
  q = fma(q, u, set(1.35949925e-1f));
  return mul(x, fma(t, q, set(0.5f)));
}

// The same at the accuracy of bf16 and int8: absolute error below 1.4e-4 max(1, |x|), clamped at 4.
LEWM_INLINE F gelu_coarse(F x) {
  const F t = clamp_magnitude(x, 4.0f);
  const F u = fma(mul(t, t), set(0.125f), set(-1.0f));
  F q = set(-2.90064001e-3f);
  q = fma(q, u, set(8.677545e-3f));
  q = fma(q, u, set(-1.31177334e-2f));
  q = fma(q, u, set(2.08684653e-2f));
  q = fma(q, u, set(-3.63355167e-2f));
  q = fma(q, u, set(5.62746972e-2f));
  q = fma(q, u, set(-8.44073072e-2f));
  q = fma(q, u, set(1.75940484e-1f));
  return mul(x, fma(t, q, set(0.5f)));
}

}  // namespace lewm::cpu::LEWM_SIMD
