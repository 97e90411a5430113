#include "model/linear.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace lewm {
namespace {

constexpr std::size_t kSlabBytes = std::size_t{4} << 20;

// to: as many as `values`. Throws Error(bad_file) where one is no finite float.
void round_to(float* to, std::span<const double> values, const std::string& name) {
  for (std::size_t i = 0; i < values.size(); ++i) to[i] = static_cast<float>(values[i]);
  if (!all_finite({to, values.size()})) {
    throw Error(Status::bad_file, name + ": too large to be folded into its neighbour's weights");
  }
}

// One of the rows of `inputs` weights has a weight above kMostUneven times its root mean square.
bool is_uneven(std::span<const float> weight, std::size_t inputs) {
  for (std::size_t first = 0; first < weight.size(); first += inputs) {
    double squares = 0, largest = 0;
    for (const float w : weight.subspan(first, inputs)) {
      const double square = static_cast<double>(w) * static_cast<double>(w);
      squares += square;
      largest = std::max(largest, square);
    }
    if (largest * static_cast<double>(inputs) > kMostUneven * kMostUneven * squares) return true;
  }
  return false;
}

}  // namespace

void* WeightMemory::take(std::size_t bytes) {
  bytes = static_cast<std::size_t>(round_up(static_cast<std::int64_t>(bytes), kAlignment));
  if (slabs_.empty() || slabs_.back().bytes() - used_ < bytes) {
    slabs_.emplace_back(std::max(bytes, kSlabBytes));
    used_ = 0;
  }
  std::byte* data = slabs_.back().data() + used_;
  used_ += bytes;
  bytes_ += bytes;
  return data;
}

Linear WeightMemory::pack(const Affine& layer, std::int64_t first, std::int64_t last, Precision precision) {
  const cpu::Gemm& gemm = kernels_.gemm[static_cast<int>(precision)];
  const std::int64_t out = last - first;
  const auto outputs = static_cast<std::size_t>(out), inputs = static_cast<std::size_t>(layer.in);
  std::pmr::memory_resource* memory = layer.weight.get_allocator().resource();
  std::pmr::vector<float> weight(outputs * inputs, memory), bias(outputs, memory);
  const auto begin = static_cast<std::size_t>(first);
  round_to(weight.data(), std::span(layer.weight).subspan(begin * inputs, outputs * inputs), layer.name);
  round_to(bias.data(), std::span(layer.bias).subspan(begin, outputs), layer.name);
  if (precision == Precision::int24 || precision == Precision::int16) uneven_ = uneven_ || is_uneven(weight, inputs);
  const auto columns = static_cast<std::size_t>(gemm.padded_n(out));
  Linear packed;
  packed.precision = precision;
  packed.matrix.n = out;
  packed.matrix.k = layer.in;
  packed.matrix.data = take(gemm.packed_bytes(out, layer.in));
  packed.matrix.bias = static_cast<float*>(take(columns * sizeof(float)));
  if (is_integer(precision)) {
    packed.matrix.scale = static_cast<float*>(take(columns * sizeof(float)));
    packed.matrix.sum = static_cast<std::int32_t*>(take(columns * sizeof(std::int32_t)));
  }
  gemm.pack(weight.data(), bias.data(), out, layer.in, &packed.matrix);
  return packed;
}

Linear WeightMemory::without_bias(const Linear& layer) {
  const auto columns = static_cast<std::size_t>(kernels_.gemm[static_cast<int>(layer.precision)].padded_n(layer.out()));
  Linear rest = layer;
  rest.matrix.bias = static_cast<float*>(take(columns * sizeof(float)));
  std::fill_n(rest.matrix.bias, columns, 0.0f);
  return rest;
}

const float* WeightMemory::keep(std::span<const double> values) {
  auto* kept = static_cast<float*>(take(values.size() * sizeof(float)));
  round_to(kept, values, "weights");
  return kept;
}

float* take_staging(Arena& arena, std::int64_t width) {
  return arena.take<float>(kStagingRows * padded_stride(width, sizeof(float)));
}

std::int64_t padded_stride(std::int64_t width, std::int64_t bytes) {
  const std::int64_t unit = std::lcm(std::int64_t{kAlignment}, bytes);
  const std::int64_t stride = round_up(width * bytes, unit);
  return (stride % 1024 ? stride : stride + unit) / bytes;
}

cpu::Rows take_rows(Arena& arena, const cpu::Kernels& kernels, Precision precision, std::int64_t rows, std::int64_t k) {
  const std::int64_t bytes = kernels.gemm[static_cast<int>(precision)].row_bytes;
  cpu::Rows out;
  out.stride = padded_stride(kernels.gemm[static_cast<int>(precision)].padded_k(k), bytes);
  out.data = arena.take<std::byte>(rows * out.stride * bytes);
  if (is_integer(precision)) out.scale = arena.take<float>(rows);
  return out;
}

cpu::Rows rows_from(const cpu::Kernels& kernels, cpu::Rows rows, Precision precision, std::int64_t row) {
  rows.data =
      static_cast<std::byte*>(rows.data) + row * rows.stride * kernels.gemm[static_cast<int>(precision)].row_bytes;
  if (rows.scale) rows.scale += row;
  return rows;
}

void run_linear_to_rows(const cpu::Kernels& kernels, const Linear& layer, cpu::Rows x, std::int64_t rows,
                        cpu::Activation activation, Precision next, float* staging, cpu::Rows out) {
  cpu::Epilogue epilogue;
  epilogue.activation = activation;
  if (is_integer(next)) {
    const std::int64_t stride = padded_stride(layer.out(), sizeof(float));
    for (std::int64_t row = 0; row < rows; row += kStagingRows) {
      const std::int64_t n = std::min(kStagingRows, rows - row);
      run_linear(kernels, layer, rows_from(kernels, x, layer.precision, row), n, epilogue, staging, stride);
      convert_rows(kernels, next, staging, stride, n, layer.out(), rows_from(kernels, out, next, row));
    }
    return;
  }
  epilogue.store = next == Precision::bf16 ? cpu::Store::bf16 : cpu::Store::f32;
  run_linear(kernels, layer, x, rows, epilogue, out.data, out.stride);
}

}  // namespace lewm
