#include "model/folding.h"

#include <cmath>

namespace lewm {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

double* row(Affine& layer, std::int64_t i) { return layer.weight.data() + i * layer.in; }
const double* row(const Affine& layer, std::int64_t i) { return layer.weight.data() + i * layer.in; }

}  // namespace

std::vector<double> apply(const Affine& layer, const double* x) {
  std::vector<double> y = layer.bias;
  for (std::int64_t i = 0; i < layer.out; ++i) {
    for (std::int64_t k = 0; k < layer.in; ++k) y[index(i)] += row(layer, i)[k] * x[k];
  }
  return y;
}

void fold_input_norm(Affine& layer, const NormAffine& norm) {
  for (std::int64_t i = 0; i < layer.out; ++i) {
    double* w = row(layer, i);
    double shift = 0;
    for (std::int64_t k = 0; k < layer.in; ++k) {
      shift += w[k] * norm.beta[index(k)];
      w[k] *= norm.gamma[index(k)];
    }
    layer.bias[index(i)] += shift;
  }
}

void fold_output_norm(Affine& layer, const BatchNorm& norm) {
  for (std::int64_t i = 0; i < layer.out; ++i) {
    const double factor = norm.gamma[index(i)] / std::sqrt(norm.variance[index(i)] + kBatchNormEps);
    scale_outputs(layer, i, i + 1, factor);
    layer.bias[index(i)] += norm.beta[index(i)] - norm.mean[index(i)] * factor;
  }
}

void scale_outputs(Affine& layer, std::int64_t first, std::int64_t last, double factor) {
  for (std::int64_t i = first; i < last; ++i) {
    for (std::int64_t k = 0; k < layer.in; ++k) row(layer, i)[k] *= factor;
    layer.bias[index(i)] *= factor;
  }
}

Affine compose(const Affine& outer, const Affine& inner) {
  Affine both{outer.name, outer.out, inner.in, std::vector<double>(index(outer.out * inner.in)), outer.bias};
  for (std::int64_t i = 0; i < outer.out; ++i) {
    double* y = row(both, i);
    for (std::int64_t j = 0; j < outer.in; ++j) {
      const double factor = row(outer, i)[j];
      const double* w = row(inner, j);
      for (std::int64_t k = 0; k < inner.in; ++k) y[k] += factor * w[k];
      both.bias[index(i)] += factor * inner.bias[index(j)];
    }
  }
  return both;
}

Affine stack(const std::vector<Affine>& layers) {
  Affine all = layers.front();
  for (std::size_t i = 1; i < layers.size(); ++i) {
    all.out += layers[i].out;
    all.weight.insert(all.weight.end(), layers[i].weight.begin(), layers[i].weight.end());
    all.bias.insert(all.bias.end(), layers[i].bias.begin(), layers[i].bias.end());
  }
  return all;
}

Affine slice(const Affine& layer, std::int64_t first, std::int64_t last) {
  return {layer.name, last - first, layer.in, std::vector<double>(row(layer, first), row(layer, last)),
          std::vector<double>(layer.bias.begin() + first, layer.bias.begin() + last)};
}

Affine identity(std::int64_t size) {
  Affine layer{"identity", size, size, std::vector<double>(index(size * size)), std::vector<double>(index(size))};
  for (std::int64_t i = 0; i < size; ++i) row(layer, i)[i] = 1;
  return layer;
}

}  // namespace lewm
