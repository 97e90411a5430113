// Exact algebra on linear layers, done in double before weights are rounded and packed.
#pragma once

#include <cstdint>
#include <memory_resource>
#include <span>
#include <string>
#include <vector>

namespace lewm {

// Keeps what is given back for the next one who asks, until its own end. While a model is loaded every tensor passes
// through arrays of megabytes; from the heap, they would cost more in page faults than in arithmetic.
class ReusedMemory : public std::pmr::memory_resource {
 public:
  ReusedMemory() = default;
  ReusedMemory(const ReusedMemory&) = delete;
  ReusedMemory& operator=(const ReusedMemory&) = delete;
  ~ReusedMemory() override;

 private:
  struct Block {
    void* data;
    std::size_t bytes;
  };
  void* do_allocate(std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(void* data, std::size_t bytes, std::size_t alignment) override;
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override { return this == &other; }

  std::vector<Block> spare_;
  std::size_t lent_ = 0;  // blocks that are in use
};

using Values = std::pmr::vector<double>;

// Whether none is NaN or infinite.
bool all_finite(std::span<const float> values);

// y = W x + b
struct Affine {
  std::string name;  // for messages
  std::int64_t out = 0, in = 0;
  Values weight;  // [out, in]
  Values bias;    // [out]
};

// The affine part of a LayerNorm: gamma * n + beta.
struct NormAffine {
  Values gamma, beta;
};

struct BatchNorm {
  Values gamma, beta, mean, variance;
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

// outer(inner(x)) as one layer, of the inner layer's outputs [first, last) alone.
Affine compose(const Affine& outer, const Affine& inner, std::int64_t first, std::int64_t last);
inline Affine compose(const Affine& outer, const Affine& inner) { return compose(outer, inner, 0, inner.out); }

// Appends another layer's outputs; both have the same input.
void append(Affine& layer, const Affine& other);

Affine identity(std::int64_t size);

}  // namespace lewm
