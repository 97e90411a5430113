// A packed linear layer, and how its rows are produced.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/arena.h"
#include "cpu/kernels.h"
#include "model/folding.h"

namespace lewm {

// Read-only weights in the model's memory. An optional layer that the model does not have has no data.
struct Linear {
  cpu::PackedMatrix matrix;
  Precision precision = Precision::fp32;

  explicit operator bool() const { return matrix.data != nullptr; }
  std::int64_t in() const { return matrix.k; }
  std::int64_t out() const { return matrix.n; }
};

using cpu::LayerPrecisions;

// The error of a sum in int24, relative to what such sums come to, is about 3e-8 times the unevenness of the row
// times that of the weights, which is largest / root mean square. With this for the weights it stays below 2e-5 for any
// row of 2048 elements, whose own is at most 45. Weights in int16 are then off by at most 0.5% of their root mean
// square (K = 2048; 0.14% for K = 192).
constexpr double kMostUneven = 16;

// Rounds, packs and keeps weights.
class WeightMemory {
 public:
  explicit WeightMemory(const cpu::Kernels& kernels) : kernels_(kernels) {}

  // Throws Error(bad_file) when folding has left a value that is not a finite float.
  Linear pack(const Affine& layer, Precision precision) { return pack(layer, 0, layer.out, precision); }
  // Outputs [first, last) alone.
  Linear pack(const Affine& layer, std::int64_t first, std::int64_t last, Precision precision);
  // The same packed weights, W x alone.
  Linear without_bias(const Linear& layer);
  const float* keep(std::span<const double> values);

  std::size_t bytes() const { return bytes_; }
  // A layer was packed in int24 or int16 although an output's largest weight is more than kMostUneven times their root
  // mean square: digits are lost that floats keep.
  bool uneven() const { return uneven_; }

 private:
  void* take(std::size_t bytes);

  const cpu::Kernels& kernels_;
  std::vector<AlignedBlock> slabs_;
  std::size_t used_ = 0;  // of the last slab
  std::size_t bytes_ = 0;
  bool uneven_ = false;
};

// GEMM input for up to `rows` rows of k elements, zeroed. The stride keeps rows out of each other's cache sets.
cpu::Rows take_rows(Arena& arena, const cpu::Kernels& kernels, Precision precision, std::int64_t rows, std::int64_t k);

// The stride in elements of `width` elements of `bytes` each, whole cache lines and off multiples of 1 KiB.
std::int64_t padded_stride(std::int64_t width, std::int64_t bytes);

// Rows from `row` on.
cpu::Rows rows_from(const cpu::Kernels& kernels, cpu::Rows rows, Precision precision, std::int64_t row);

// y = epilogue(layer(x)).  x: [rows, in] in the layer's precision; y: [rows, y_stride] of epilogue.store.
inline void run_linear(const cpu::Kernels& kernels, const Linear& layer, cpu::Rows x, std::int64_t rows,
                       const cpu::Epilogue& epilogue, void* y, std::int64_t y_stride) {
  kernels.gemm[static_cast<int>(layer.precision)].run(x, rows, layer.matrix, epilogue, y, y_stride);
}

// Rows of floats that wait for their quantisation at once: they stay in the second-level cache.
constexpr std::int64_t kStagingRows = 64;
float* take_staging(Arena& arena, std::int64_t width);

// out = activation(layer(x)) as the input of a layer of precision `next`. staging: from take_staging, used only when
// next is of integers.
void run_linear_to_rows(const cpu::Kernels& kernels, const Linear& layer, cpu::Rows x, std::int64_t rows,
                        cpu::Activation activation, Precision next, float* staging, cpu::Rows out);

inline void convert_rows(const cpu::Kernels& kernels, Precision precision, const float* x, std::int64_t x_stride,
                         std::int64_t rows, std::int64_t k, cpu::Rows out) {
  kernels.gemm[static_cast<int>(precision)].convert(x, x_stride, rows, k, out);
}

}  // namespace lewm
