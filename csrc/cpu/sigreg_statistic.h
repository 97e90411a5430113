// The statistic of SIGReg: its knots, its value from sums, and the checks of what is asked for.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/sigreg.h"

namespace lewm::cpu {

// Throw Error(invalid_argument) that names the value.
void check_sigreg(const SigregInput& in, std::int64_t least_batch);
void check_sigreg_total(double total);

struct SigregKnot {
  double s, phi, weight;  // weight: of the trapezoid, window included
};

std::vector<SigregKnot> sigreg_knots(const SigregInput& in);

// The sums of one time step along one direction: cos[k * stride], sin[k * stride].
struct SigregSums {
  const double* cos;
  const double* sin;
  std::int64_t stride;
};

// T(t, m) over a batch of `total` samples.
double sigreg_statistic(SigregSums sums, const std::vector<SigregKnot>& knots, double total);

}  // namespace lewm::cpu
