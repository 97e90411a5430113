// Elementary functions on vectors. Include after a vec_<isa>.h. The bounds hold over the whole range that is named,
// against double precision; those of the activations are measured by tests/cpp/test_cpu_gemm.cpp. NaN in, NaN out.
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

// exp(x) at the accuracy of bf16: relative error below 1e-4 on [-87, 88]; 0 from -104 down. A minimax cubic for 2^f.
LEWM_INLINE F exp_coarse(F x) {
  const F y = mul(max(set(-104.0f), x), set(1.442695f));
  const F n = round_nearest(y), f = sub(y, n);
  F p = fma(f, set(5.517167e-2f), set(2.4261112e-1f));
  p = fma(p, f, set(6.9326099e-1f));
  return scale_by_power_of_two(fma(p, f, set(9.9992807e-1f)), n);
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

#ifdef LEWM_HAS_LOOKUP

// The same at the accuracy of bf16 and int8: absolute error below 1.4e-4 max(1, |x|). Minimax quadratics on 32
// intervals of width 0.27, centred at (n - 16) * 0.27; the first stands for all that lies below it (0), the last for
// all above (x).
LEWM_INLINE F gelu_coarse(F x) {
  // clang-format off
  alignas(64) static constexpr float kConstant[32] = {
      0.0f, -0.0150770117f, -0.032788191f, -0.064963527f, -0.116880164f, -0.190162241f,
      -0.278287053f, -0.363729089f, -0.420549184f, -0.424379826f, -0.366408765f, -0.26244536f,
      -0.148165002f, -0.0603913106f, -0.0140057839f, -0.000860503817f, 2.74931244e-06f, -0.000860503817f,
      -0.0140057839f, -0.0603913106f, -0.148165002f, -0.26244536f, -0.366408765f, -0.424379826f,
      -0.420549184f, -0.363729089f, -0.278287053f, -0.190162241f, -0.116880164f, -0.064963527f,
      -0.032788191f, 0.0f};
  alignas(64) static constexpr float kLinear[32] = {
      0.0f, -0.00696406793f, -0.0160514507f, -0.0337785743f, -0.0646593645f, -0.112013184f,
      -0.174325258f, -0.240982428f, -0.290278912f, -0.293434948f, -0.22628139f, -0.0848420262f,
      0.104638152f, 0.290856689f, 0.427350312f, 0.490105957f, 0.5f, 0.509894073f,
      0.572649717f, 0.709143281f, 0.895361841f, 1.08484209f, 1.2262814f, 1.29343498f,
      1.29027891f, 1.24098241f, 1.17432523f, 1.11201322f, 1.06465936f, 1.03377855f,
      1.01605141f, 1.0f};
  alignas(64) static constexpr float kQuadratic[32] = {
      0.0f, -0.000806651486f, -0.0019724064f, -0.00441436283f, -0.00900701806f, -0.0166580025f,
      -0.0276750755f, -0.0406785756f, -0.051373519f, -0.0519976504f, -0.0325446054f, 0.0155912228f,
      0.0942106247f, 0.193140239f, 0.293875784f, 0.369370222f, 0.397733808f, 0.369370222f,
      0.293875784f, 0.193140239f, 0.0942106247f, 0.0155912228f, -0.0325446054f, -0.0519976504f,
      -0.051373519f, -0.0406785756f, -0.0276750755f, -0.0166580025f, -0.00900701806f, -0.00441436283f,
      -0.0019724064f, 0.0f};
  // clang-format on
  const F t = max(set(-4.3f), min(set(4.1f), x));  // n is 0..31
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const F n = fma(t, set(1.0f / 0.27f), set(12582912.0f + 16.0f));
  return fma(fma(lookup(kQuadratic, n), x, lookup(kLinear, n)), x, lookup(kConstant, n));
}

#else

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

#endif

}  // namespace lewm::cpu::LEWM_SIMD
