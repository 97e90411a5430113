// A warp a row, four rows a block; a row (768 bytes at the published width) stays in L1 between the passes.
#include "cuda/device.cuh"
#include "cuda/norm.cuh"

namespace lewm::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kShort = 256;  // values of a row that registers hold, an AdaLN's modulation beside them
constexpr float kOuterEps = 1e-6f, kInnerEps = 1e-5f;

struct Moments {
  float mean, scale;  // scale = 1 / sqrt(variance + eps)
};

// body(i, slot) for this lane's part of 0..d, counted by slot; unrolled where it is known to be at most kMost.
template <int kMost, class Body>
__device__ __forceinline__ void for_lane(int d, const Body& body) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if constexpr (kMost == 0) {
    for (int slot = 0; slot * kWarp + lane < d; ++slot) body(slot * kWarp + lane, slot);
  } else {
    LEWM_UNROLL
    for (int slot = 0; slot < kMost; ++slot) {
      if (slot * kWarp + lane < d) body(slot * kWarp + lane, slot);
    }
  }
}

// Of value(i, slot) of 0..d, spread over the lanes of a warp; two passes, so that a large mean costs no accuracy.
template <int kMost = 0, class Value>
__device__ __forceinline__ Moments moments(int d, float eps, Value value) {
  float sum = 0.0f, squares = 0.0f;
  for_lane<kMost>(d, [&](int i, int slot) { sum += value(i, slot); });
  const float mean = warp_sum(sum) / static_cast<float>(d);
  for_lane<kMost>(d, [&](int i, int slot) {
    const float difference = value(i, slot) - mean;
    squares += difference * difference;
  });
  return {mean, rsqrtf(warp_sum(squares) / static_cast<float>(d) + eps)};
}

__device__ __forceinline__ int warp_row() {
  return static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
}

// A row is held in registers where a lane has at most kMost of its values, and read again otherwise.
template <int kMost>
__global__ void __launch_bounds__(kWarps* kWarp) layer_norm_kernel(const LayerNorm norm) {
  const int row = warp_row();
  if (row >= norm.rows) return;
  const float* x = norm.x + row * norm.x_stride;
  float held[kMost ? kMost : 1] = {};
  if constexpr (kMost > 0) for_lane<kMost>(norm.d, [&](int i, int slot) { held[slot] = x[i]; });
  const auto value = [&](int i, int slot) { return kMost ? held[kMost ? slot : 0] : x[i]; };
  const Moments m = moments<kMost>(norm.d, norm.eps, value);
  const auto normed = [&](int i, int slot) {
    float y = (value(i, slot) - m.mean) * m.scale;
    if (norm.gamma) y = y * norm.gamma[i] + norm.beta[i];
    return norm.gelu ? gelu(y) : y;
  };
  if (norm.y_float) {
    float* y = norm.y_float + row * norm.y_stride;
    for_lane<kMost>(norm.d, [&](int i, int slot) { y[i] = normed(i, slot); });
  } else {
    std::uint16_t* y = norm.y + row * norm.y_stride;
    for_lane<kMost>(static_cast<int>(norm.y_stride),
                    [&](int i, int slot) { y[i] = i < norm.d ? float_to_bf16(normed(i, slot)) : 0; });
  }
}

// A row is held in registers, kMost of its values a lane.
template <int kMost>
__global__ void __launch_bounds__(kWarps* kWarp) ada_ln_kernel(const AdaLN norm) {
  const int row = warp_row();
  if (row >= norm.rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float* x = norm.x + row * norm.x_stride;
  const float* modulation = norm.modulation + (norm.row ? norm.row[row] : row) * norm.stride;
  const auto load = [&](const float* from, int slot) {
    const int i = slot * kWarp + lane;
    return i < norm.d ? from[i] : 0.0f;
  };
  constexpr bool kAhead = kMost <= kShort / kWarp;  // the modulation is asked for together with the row
  float value[kMost], shift[kAhead ? kMost : 1], scale[kAhead ? kMost : 1];
  LEWM_UNROLL
  for (int slot = 0; slot < kMost; ++slot) {
    value[slot] = load(x, slot);
    if constexpr (kAhead) {
      shift[slot] = load(modulation + norm.shift_offset, slot);
      scale[slot] = load(modulation + norm.scale_offset, slot);
    }
  }
  const auto held = [&](int, int slot) { return value[slot]; };
  const Moments outer = moments<kMost>(norm.d, kOuterEps, held);
  LEWM_UNROLL
  for (int slot = 0; slot < kMost; ++slot) {
    const float add = kAhead ? shift[kAhead ? slot : 0] : load(modulation + norm.shift_offset, slot);
    const float times = kAhead ? scale[kAhead ? slot : 0] : load(modulation + norm.scale_offset, slot);
    value[slot] = (value[slot] - outer.mean) * outer.scale * (1.0f + times) + add;
  }
  const Moments inner = moments<kMost>(norm.d, kInnerEps, held);
  LEWM_UNROLL
  for (int slot = 0; slot < kMost; ++slot) {
    const int i = slot * kWarp + lane;
    if (i >= norm.y_stride) break;
    norm.y[row * norm.y_stride + i] = i < norm.d ? float_to_bf16((value[slot] - inner.mean) * inner.scale) : 0;
  }
}

dim3 grid_of(int rows) { return dim3(static_cast<unsigned>((rows + kWarps - 1) / kWarps)); }

}  // namespace

void load_norm_kernels() {
  load_kernel(layer_norm_kernel<0>);
  load_kernel(layer_norm_kernel<kShort / kWarp>);
  load_kernel(ada_ln_kernel<kShort / kWarp>);
  load_kernel(ada_ln_kernel<kMostAdaLN / kWarp>);
}

void launch_layer_norm(const LayerNorm& norm, cudaStream_t stream) {
  if (norm.y_stride <= kShort) {
    LEWM_LAUNCH(layer_norm_kernel<kShort / kWarp>, grid_of(norm.rows), dim3(kWarps * kWarp), 0, stream, norm);
  } else {
    LEWM_LAUNCH(layer_norm_kernel<0>, grid_of(norm.rows), dim3(kWarps * kWarp), 0, stream, norm);
  }
}
void launch_ada_ln(const AdaLN& norm, cudaStream_t stream) {
  if (norm.y_stride <= kShort) {
    LEWM_LAUNCH(ada_ln_kernel<kShort / kWarp>, grid_of(norm.rows), dim3(kWarps * kWarp), 0, stream, norm);
  } else {
    LEWM_LAUNCH(ada_ln_kernel<kMostAdaLN / kWarp>, grid_of(norm.rows), dim3(kWarps * kWarp), 0, stream, norm);
  }
}

}  // namespace lewm::cuda
