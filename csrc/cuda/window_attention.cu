// A warp a row and head: the lanes share the head's dimensions, and the softmax runs along with the keys, so that no
// scores are stored.
#include "cuda/attention.cuh"
#include "cuda/device.cuh"

namespace lewm::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxPerLane = 8;  // head_dim <= 256

__global__ void __launch_bounds__(kWarps* kWarp) window_attention_kernel(const WindowAttention a) {
  const int index = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (index >= a.rows * a.heads) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row = index / a.heads;
  const int head_offset = index % a.heads * a.head_dim;

  float query[kMaxPerLane], sum[kMaxPerLane];
  LEWM_UNROLL
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int d = i * kWarp + lane;
    query[i] = d < a.head_dim ? bf16_to_float(a.query[row * a.query_stride + head_offset + d]) : 0.0f;
    sum[i] = 0.0f;
  }

  float highest = -INFINITY, total = 0.0f;
  for (int j = 0; j < a.keys[row]; ++j) {
    const std::uint16_t* key = a.cache + a.key_row[row * a.max_keys + j] * a.cache_stride + head_offset;
    float dot = 0.0f;
    LEWM_UNROLL
    for (int i = 0; i < kMaxPerLane; ++i) {
      const int d = i * kWarp + lane;
      if (d < a.head_dim) dot += query[i] * bf16_to_float(key[d]);
    }
    dot = warp_sum(dot);
    const float new_highest = fmaxf(highest, dot);
    const float keep = LEWM_FAULT(kSoftmaxRescale) ? 1.0f : expf(highest - new_highest);
    const float weight = expf(dot - new_highest);
    highest = new_highest;
    total = total * keep + weight;
    LEWM_UNROLL
    for (int i = 0; i < kMaxPerLane; ++i) {
      const int d = i * kWarp + lane;
      if (d < a.head_dim) sum[i] = sum[i] * keep + weight * bf16_to_float(key[a.value_offset + d]);
    }
  }

  LEWM_UNROLL
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int d = i * kWarp + lane;
    if (d < a.head_dim) a.out[row * a.out_stride + head_offset + d] = float_to_bf16(sum[i] / total);
  }
}

}  // namespace

void load_window_attention_kernels() { load_kernel(window_attention_kernel); }

void launch_window_attention(const WindowAttention& attention, cudaStream_t stream) {
  const int warps = attention.rows * attention.heads;
  LEWM_LAUNCH(window_attention_kernel, dim3(static_cast<unsigned>((warps + kWarps - 1) / kWarps)), dim3(kWarps * kWarp),
              0, stream, attention);
}

}  // namespace lewm::cuda
