// Noise of whole samples: white standard normals, and their colouring over the horizon.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/philox.h"

namespace lewm {

// out[e] = element e of the sample's noise, e < n. n <= 4 * philox::kMaxQuads.
void fill_normals(const philox::Stream& stream, std::uint32_t sample, std::int64_t n, float* out);

// The same without the machine's vector units, for the tests: equal bits.
void fill_normals_portable(const philox::Stream& stream, std::uint32_t sample, std::int64_t n, float* out);

// Zero-order hold: every `hold` steps of a block share the first one's draw.  noise: [n], whole blocks.
void hold_noise(float* noise, std::int64_t n, std::int64_t block_dim, std::int64_t action_dim, std::int64_t hold);

// Noise with power spectrum 1/f^exponent over the horizon, per block dimension, as iCEM uses it (Pinneri et al., CoRL
// 2020): the spectrum of white noise is scaled by f^(-exponent/2), the zero frequency like the lowest other one, and
// each series is divided by its own unbiased standard deviation. Scaling a spectrum is a circular convolution, done
// here directly.
class ColouredNoise {
 public:
  ColouredNoise(std::int64_t horizon, float exponent);

  // noise: [H, A], white in, coloured out. scratch: [H].
  void apply(float* noise, std::int64_t block_dim, float* scratch) const;

  const std::vector<float>& kernel() const { return kernel_; }  // [H] of the convolution, empty: white

 private:
  std::vector<float> kernel_;  // [H], empty when the noise stays white
};

}  // namespace lewm
