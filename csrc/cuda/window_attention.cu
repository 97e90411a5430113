// A few lanes of a warp a row and head: each holds eight of the head's dimensions, and the softmax runs along with the
// keys, so that no scores are stored.
#include "cuda/attention.cuh"
#include "cuda/device.cuh"
#include "cuda/launch.h"

namespace lewm::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kPerLane = 8;  // dimensions: 16 bytes

using Eight = float[kPerLane];

// The first `left` of eight elements, zeros after them.
__device__ __forceinline__ void load_eight(Eight& values, const std::uint16_t* from, int left, bool vectors) {
  if (vectors && left > 0) {
    const Bytes16 bytes = load16(from);
    LEWM_UNROLL
    for (int i = 0; i < kPerLane; ++i) {
      values[i] = bf16_to_float(static_cast<std::uint16_t>(bytes.word[i / 2] >> (i % 2 * 16)));
    }
    return;
  }
  LEWM_UNROLL
  for (int i = 0; i < kPerLane; ++i) values[i] = i < left ? bf16_to_float(from[i]) : 0.0f;
}

__device__ __forceinline__ void store_eight(std::uint16_t* to, const Eight& values, int left, bool vectors) {
  if (vectors && left > 0) {
    Bytes16 bytes;
    LEWM_UNROLL
    for (int i = 0; i < kPerLane; i += 2) bytes.word[i / 2] = pack_bf16(values[i], values[i + 1]);
    store16(to, bytes);
    return;
  }
  LEWM_UNROLL
  for (int i = 0; i < kPerLane; ++i) {
    if (i < left) to[i] = float_to_bf16(values[i]);
  }
}

// `lanes`, a power of two, share a head; `vectors`: heads are whole and aligned pieces of 16 bytes.
__global__ void __launch_bounds__(kThreads) window_attention_kernel(const WindowAttention a, int lanes, bool vectors) {
  const std::int64_t thread = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t head_count = std::int64_t{a.rows} * a.heads;
  const bool live = thread / lanes < head_count;  // all lanes of a warp take part in its sums
  const std::int64_t index = live ? thread / lanes : head_count - 1;
  const auto row = static_cast<int>(index / a.heads);
  const int dimension = static_cast<int>(thread % lanes) * kPerLane, left = a.head_dim - dimension;
  const std::int64_t offset = index % a.heads * a.head_dim + dimension;

  Eight query, sum = {};
  load_eight(query, a.query + row * a.query_stride + offset, left, vectors);
  const int keys = a.keys[row];
  float highest = -INFINITY, total = 0.0f;
  for (int j = 0; j < a.max_keys; ++j) {
    Eight key = {}, value = {};
    if (j < keys) {
      const std::uint16_t* from = a.cache + a.key_row[row * a.max_keys + j] * a.cache_stride + offset;
      load_eight(key, from, left, vectors);
      load_eight(value, from + a.value_offset, left, vectors);
    }
    float dot = 0.0f;
    LEWM_UNROLL
    for (int i = 0; i < kPerLane; ++i) dot = fmaf(query[i], key[i], dot);
    for (int mask = lanes / 2; mask; mask /= 2) dot += shuffle_xor(dot, mask);
    if (j >= keys) dot = -INFINITY;
    const float new_highest = fmaxf(highest, dot);  // finite: the first key always exists
    const float keep = LEWM_FAULT(kSoftmaxRescale) ? 1.0f : exp2_approx(kLog2E * (highest - new_highest));
    const float weight = exp2_approx(kLog2E * (dot - new_highest));
    highest = new_highest;
    total = fmaf(total, keep, weight);
    LEWM_UNROLL
    for (int i = 0; i < kPerLane; ++i) sum[i] = fmaf(sum[i], keep, weight * value[i]);
  }

  if (!live) return;
  LEWM_UNROLL
  for (int i = 0; i < kPerLane; ++i) sum[i] /= total;
  store_eight(a.out + row * a.out_stride + offset, sum, left, vectors);
}

bool aligned(const std::uint16_t* rows, std::int64_t stride) { return rows_aligned(rows, stride, 2, 16); }

}  // namespace

void load_window_attention_kernels() { load_kernel(window_attention_kernel); }

void launch_window_attention(const WindowAttention& a, cudaStream_t stream) {
  int lanes = 1;
  while (lanes * kPerLane < a.head_dim) lanes *= 2;
  const bool vectors = a.head_dim % kPerLane == 0 && a.value_offset % kPerLane == 0 &&
                       aligned(a.query, a.query_stride) && aligned(a.cache, a.cache_stride) &&
                       aligned(a.out, a.out_stride);
  const std::int64_t threads = std::int64_t{a.rows} * a.heads * lanes;
  LEWM_LAUNCH(window_attention_kernel, dim3(static_cast<unsigned>((threads + kThreads - 1) / kThreads)), dim3(kThreads),
              0, stream, a, lanes, vectors);
}

}  // namespace lewm::cuda
