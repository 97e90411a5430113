// A warp a row, four rows a block; a row (768 bytes at the published width) stays in L1 between the passes.
#include "cuda/device.cuh"
#include "cuda/norm.cuh"

namespace lewm::cuda {
namespace {

constexpr int kWarps = 4;
constexpr float kOuterEps = 1e-6f, kInnerEps = 1e-5f;

struct Moments {
  float mean, scale;  // scale = 1 / sqrt(variance + eps)
};

// Of value(0..d), spread over the lanes of a warp; two passes, so that a large mean costs no accuracy.
template <class Value>
__device__ __forceinline__ Moments moments(int d, float eps, Value value) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float sum = 0.0f;
  for (int i = lane; i < d; i += kWarp) sum += value(i);
  const float mean = warp_sum(sum) / static_cast<float>(d);
  float squares = 0.0f;
  for (int i = lane; i < d; i += kWarp) squares += (value(i) - mean) * (value(i) - mean);
  return {mean, rsqrtf(warp_sum(squares) / static_cast<float>(d) + eps)};
}

__device__ __forceinline__ int warp_row() {
  return static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
}

template <class Value>
__device__ __forceinline__ void write_row(std::uint16_t* y, std::int64_t stride, int d, Value value) {
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < stride; i += kWarp)
    y[i] = i < d ? float_to_bf16(value(i)) : 0;
}

__global__ void __launch_bounds__(kWarps* kWarp) layer_norm_kernel(const LayerNorm norm) {
  const int row = warp_row();
  if (row >= norm.rows) return;
  const float* x = norm.x + row * norm.x_stride;
  const Moments m = moments(norm.d, norm.eps, [&](int i) { return x[i]; });
  const auto value = [&](int i) {
    float y = (x[i] - m.mean) * m.scale;
    if (norm.gamma) y = y * norm.gamma[i] + norm.beta[i];
    return norm.gelu ? 0.5f * y * (1.0f + erff(y * 0.70710678f)) : y;
  };
  if (norm.y_float) {
    float* y = norm.y_float + row * norm.y_stride;
    for (int i = static_cast<int>(threadIdx.x) % kWarp; i < norm.d; i += kWarp) y[i] = value(i);
  } else {
    write_row(norm.y + row * norm.y_stride, norm.y_stride, norm.d, value);
  }
}

__global__ void __launch_bounds__(kWarps* kWarp) ada_ln_kernel(const AdaLN norm) {
  const int row = warp_row();
  if (row >= norm.rows) return;
  const float* x = norm.x + row * norm.x_stride;
  const float* modulation = norm.modulation + (norm.row ? norm.row[row] : row) * norm.stride;
  const float* shift = modulation + norm.shift_offset;
  const float* scale = modulation + norm.scale_offset;
  const Moments outer = moments(norm.d, kOuterEps, [&](int i) { return x[i]; });
  const auto modulated = [&](int i) { return (x[i] - outer.mean) * outer.scale * (1.0f + scale[i]) + shift[i]; };
  const Moments inner = moments(norm.d, kInnerEps, modulated);
  write_row(norm.y + row * norm.y_stride, norm.y_stride, norm.d,
            [&](int i) { return (modulated(i) - inner.mean) * inner.scale; });
}

dim3 grid_of(int rows) { return dim3(static_cast<unsigned>((rows + kWarps - 1) / kWarps)); }

}  // namespace

void load_norm_kernels() {
  load_kernel(layer_norm_kernel);
  load_kernel(ada_ln_kernel);
}

void launch_layer_norm(const LayerNorm& norm, cudaStream_t stream) {
  LEWM_LAUNCH(layer_norm_kernel, grid_of(norm.rows), dim3(kWarps * kWarp), 0, stream, norm);
}
void launch_ada_ln(const AdaLN& norm, cudaStream_t stream) {
  LEWM_LAUNCH(ada_ln_kernel, grid_of(norm.rows), dim3(kWarps * kWarp), 0, stream, norm);
}

}  // namespace lewm::cuda
