#include "model/folding.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <new>

namespace lewm {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

double* row(Affine& layer, std::int64_t i) { return layer.weight.data() + i * layer.in; }
const double* row(const Affine& layer, std::int64_t i) { return layer.weight.data() + i * layer.in; }

// Blocks come in sizes a quarter of a power of two apart, so that tensors of about the same size share them.
std::size_t block_bytes(std::size_t bytes) {
  constexpr std::size_t kLeast = 4096;
  const std::size_t step = std::bit_floor(std::max(bytes, kLeast)) / 4;
  return (std::max(bytes, kLeast) + step - 1) / step * step;
}
constexpr std::align_val_t kBlockAlignment{64};

// Two rows of a product, kPanel columns (a cache line) at a time: y[r][c] = sum_j x[r][j] * panel[j][c]. Written in
// pairs, the vectors of every x86-64 and aarch64: the compiler leaves the sums of the plain loop in memory.
constexpr std::int64_t kPanel = 8;
typedef double Pair [[gnu::vector_size(16)]];
void multiply_panel(const double* x0, const double* x1, const double* panel, std::int64_t depth,
                    double (&y)[2][kPanel]) {
  constexpr int kPairs = kPanel / 2;
  Pair sum0[kPairs] = {}, sum1[kPairs] = {};
  for (std::int64_t j = 0; j < depth; ++j) {
    const Pair both0 = {x0[j], x0[j]}, both1 = {x1[j], x1[j]};
#pragma GCC unroll 4
    for (int p = 0; p < kPairs; ++p) {
      Pair w;
      std::memcpy(&w, panel + j * kPanel + 2 * p, sizeof w);
      sum0[p] += both0 * w;
      sum1[p] += both1 * w;
    }
  }
  std::memcpy(y[0], sum0, sizeof sum0);
  std::memcpy(y[1], sum1, sizeof sum1);
}

}  // namespace

ReusedMemory::~ReusedMemory() {
  for (const Block& block : spare_) ::operator delete(block.data, kBlockAlignment);
}

void* ReusedMemory::do_allocate(std::size_t bytes, std::size_t) {
  spare_.reserve(spare_.size() + lent_ + 1);  // giving back must not fail
  const std::size_t wanted = block_bytes(bytes);
  const auto same = std::find_if(spare_.begin(), spare_.end(), [&](const Block& b) { return b.bytes == wanted; });
  void* data = nullptr;
  if (same == spare_.end()) {
    data = ::operator new(wanted, kBlockAlignment);
  } else {
    data = same->data;
    *same = spare_.back();
    spare_.pop_back();
  }
  ++lent_;
  return data;
}

void ReusedMemory::do_deallocate(void* data, std::size_t bytes, std::size_t) {
  spare_.push_back({data, block_bytes(bytes)});
  --lent_;
}

bool all_finite(std::span<const float> values) {
  // The exponent of NaN and infinity is all ones: one more and it carries into the sign. Integers, so that the loop is
  // vectorised.
  std::uint32_t carries = 0;
  for (const float value : values) carries |= (std::bit_cast<std::uint32_t>(value) & 0x7f800000u) + 0x00800000u;
  return !(carries & 0x80000000u);
}

std::vector<double> apply(const Affine& layer, const double* x) {
  std::vector<double> y(layer.bias.begin(), layer.bias.end());
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

Affine compose(const Affine& outer, const Affine& inner, std::int64_t first, std::int64_t last) {
  std::pmr::memory_resource* memory = outer.weight.get_allocator().resource();
  Affine both{outer.name, outer.out, inner.in, Values(index(outer.out * inner.in), memory), Values(outer.bias, memory)};
  for (std::int64_t i = 0; i < outer.out; ++i) {
    for (std::int64_t j = first; j < last; ++j) {
      both.bias[index(i)] += row(outer, i)[j - first] * inner.bias[index(j)];
    }
  }
  Values panel(index((last - first) * kPanel), memory);  // [last - first, kPanel]: some columns of the inner layer
  for (std::int64_t k = 0; k < inner.in; k += kPanel) {
    const std::int64_t columns = std::min(kPanel, inner.in - k);
    for (std::int64_t j = first; j < last; ++j) {
      std::copy_n(row(inner, j) + k, columns, panel.data() + (j - first) * kPanel);
    }
    for (std::int64_t i = 0; i < outer.out; i += 2) {
      const std::int64_t second = std::min(i + 1, outer.out - 1);
      double y[2][kPanel];
      multiply_panel(row(outer, i), row(outer, second), panel.data(), last - first, y);
      std::copy_n(y[0], columns, row(both, i) + k);
      std::copy_n(y[1], columns, row(both, second) + k);
    }
  }
  return both;
}

void append(Affine& layer, const Affine& other) {
  layer.out += other.out;
  layer.weight.insert(layer.weight.end(), other.weight.begin(), other.weight.end());
  layer.bias.insert(layer.bias.end(), other.bias.begin(), other.bias.end());
}

Affine identity(std::int64_t size) {
  Affine layer{"identity", size, size, Values(index(size * size)), Values(index(size))};
  for (std::int64_t i = 0; i < size; ++i) row(layer, i)[i] = 1;
  return layer;
}

}  // namespace lewm
