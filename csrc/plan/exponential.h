// An exponential that gives the same bits on every machine and device.
#pragma once

#include <cmath>

#include "plan/philox.h"

namespace lewm {

// e^x for x <= 0, relative error below 1e-14, from correctly rounded operations alone.
LEWM_HOST_DEVICE static inline double exp_nonpositive(double x) {
  if (x < -700.0) return 0.0;
  const double k = nearbyint(x * 1.4426950408889634);
  double r = fma(k, -0.693147180369123816490, x);  // ln 2 in two parts: k * the first is exact
  r = fma(k, -1.90821492927058770002e-10, r);
  double sum = 1.0;  // Taylor series, |r| <= ln(2) / 2
  for (int i = 13; i >= 1; --i) sum = fma(sum, r / i, 1.0);
  return ldexp(sum, static_cast<int>(k));
}

}  // namespace lewm
