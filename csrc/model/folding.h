// Exact algebra on linear layers, done in double before weights are rounded and packed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lewm {

// y = W x + b
struct Affine {
  std::string name;  // for messages
  std::int64_t out = 0, in = 0;
  std::vector<double> weight;  // [out, in]
  std::vector<double> bias;    // [out]
};

// The affine part of a LayerNorm: gamma * n + beta.
struct NormAffine {
  std::vector<double> gamma, beta;
};

struct BatchNorm {
  std::vector<double> gamma, beta, mean, variance;
};

constexpr double kBatchNormEps = 1e-5;

// layer(x).  x: [in]
std::vector<double> apply(const Affine& layer, const double* x);

// Layer over gamma * n + beta -> layer over n.
void fold_input_norm(Affine& layer, const NormAffine& norm);

// BatchNorm in evaluation over the layer's output -> the layer alone. Variances must be at least 0.
void fold_output_norm(Affine& layer, const BatchNorm& norm);

// Multiplies rows [first, last) of the output.
void scale_outputs(Affine& layer, std::int64_t first, std::int64_t last, double factor);

// outer(inner(x)) as one layer.
Affine compose(const Affine& outer, const Affine& inner);

// The layers' outputs one after the other; all have the same input.
Affine stack(const std::vector<Affine>& layers);

// Outputs [first, last) of a layer.
Affine slice(const Affine& layer, std::int64_t first, std::int64_t last);

Affine identity(std::int64_t size);

}  // namespace lewm
