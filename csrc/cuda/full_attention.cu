// A block takes 64 queries of one head and walks over the keys in tiles of 64; each of its four warps owns 16 queries.
// Scores live in the accumulators of the first product and become the operand of the second one without leaving the
// registers; the softmax runs along (Dao et al., FlashAttention, 2022). Rows of shared tiles are 16 bytes longer than
// their data, so that the eight rows that ldmatrix reads at once fall into different banks.
#include "cuda/attention.cuh"
#include "cuda/device.cuh"

namespace lewm::cuda {
namespace {

constexpr int kTile = 64;  // queries of a block, keys of a step
constexpr int kThreads = 128;
constexpr int kChunk = 8;  // bf16 elements in 16 bytes

// Copies rows [first, first + 64) of one head's part; rows beyond `tokens` and dimensions beyond head_dim become zeros.
template <int kDim>
__device__ __forceinline__ void copy_tile(unsigned char* tile, const std::uint16_t* part, std::int64_t stride,
                                          int tokens, int head_dim, int first) {
  constexpr int kRowBytes = kDim * 2 + 16;
  for (int i = static_cast<int>(threadIdx.x); i < kTile * (kDim / kChunk); i += kThreads) {
    const int row = i / (kDim / kChunk), column = i % (kDim / kChunk) * kChunk;
    const bool inside = first + row < tokens && column < head_dim;
    cp_async16(tile + row * kRowBytes + column * 2, inside ? part + (first + row) * stride + column : part,
               inside ? 16 : 0);
  }
}

// Sums and maxima over the four lanes that share a row of an accumulator.
__device__ __forceinline__ float row_sum(float value) {
  value += shuffle_xor(value, 1);
  return value + shuffle_xor(value, 2);
}
__device__ __forceinline__ float row_max(float value) {
  value = fmaxf(value, shuffle_xor(value, 1));
  return fmaxf(value, shuffle_xor(value, 2));
}

template <int kDim>
struct Softmax {
  float highest[2] = {-INFINITY, -INFINITY};  // of the lane's two rows
  float total[2] = {0.0f, 0.0f};
  float out[kDim / 8][4] = {};

  // Turns scores [key tile of 8][register] into weights, and rescales what has been summed so far.
  __device__ __forceinline__ void absorb(float (&score)[kTile / 8][4], int first_key, int tokens) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    LEWM_UNROLL
    for (int half = 0; half < 2; ++half) {
      float new_highest = highest[half];
      LEWM_UNROLL
      for (int n = 0; n < kTile / 8; ++n) {
        LEWM_UNROLL
        for (int i = 0; i < 2; ++i) {
          float& s = score[n][2 * half + i];
          if (first_key + 8 * n + lane % 4 * 2 + i >= tokens + (LEWM_FAULT(kKeyBeyondEnd) ? 1 : 0)) s = -INFINITY;
          new_highest = fmaxf(new_highest, s);
        }
      }
      new_highest = row_max(new_highest);  // finite: the first key of a tile always exists
      const float keep = exp2_approx(kLog2E * (highest[half] - new_highest));
      float sum = 0.0f;
      LEWM_UNROLL
      for (int n = 0; n < kTile / 8; ++n) {
        LEWM_UNROLL
        for (int i = 0; i < 2; ++i) {
          float& s = score[n][2 * half + i];
          s = exp2_approx(kLog2E * (s - new_highest));
          sum += s;
        }
      }
      highest[half] = new_highest;
      total[half] = total[half] * keep + row_sum(sum);
      LEWM_UNROLL
      for (int d = 0; d < kDim / 8; ++d) {
        out[d][2 * half] *= keep;
        out[d][2 * half + 1] *= keep;
      }
    }
  }
};

template <int kDim>
__global__ void __launch_bounds__(kThreads) full_attention_kernel(const FullAttention a) {
  constexpr int kRowBytes = kDim * 2 + 16, kTileBytes = kTile * kRowBytes;
  LEWM_SHARED(shared);
  unsigned char* const q_tile = shared;
  unsigned char* const k_tile = shared + kTileBytes;
  unsigned char* const v_tile = shared + 2 * kTileBytes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int first_query = static_cast<int>(blockIdx.x) * kTile;
  const std::int64_t sequence_row = std::int64_t{blockIdx.z} * a.tokens;
  const int head_offset = static_cast<int>(blockIdx.y) * a.head_dim;
  const std::uint16_t* part = a.qkv + sequence_row * a.stride + head_offset;

  copy_tile<kDim>(q_tile, part, a.stride, a.queries, a.head_dim, first_query);
  std::uint32_t query[kDim / 16][4];
  Softmax<kDim> softmax;
  for (int first_key = 0; first_key < a.tokens; first_key += kTile) {
    sync_block();  // everybody has left the tiles of the step before
    copy_tile<kDim>(k_tile, part + a.k_offset, a.stride, a.tokens, a.head_dim, first_key);
    copy_tile<kDim>(v_tile, part + a.v_offset, a.stride, a.tokens, a.head_dim, first_key);
    cp_async_commit();
    cp_async_wait<0>();
    sync_block();
    if (first_key == 0) {
      LEWM_UNROLL
      for (int k = 0; k < kDim / 16; ++k) {
        ldmatrix_x4(query[k], q_tile + (warp * 16 + lane % 16) * kRowBytes + (16 * k + lane / 16 * 8) * 2);
      }
    }

    float score[kTile / 8][4] = {};
    LEWM_UNROLL
    for (int k = 0; k < kDim / 16; ++k) {
      LEWM_UNROLL
      for (int n = 0; n < kTile / 16; ++n) {  // 16 keys at once
        std::uint32_t keys[4];
        ldmatrix_x4(keys, k_tile + (16 * n + lane % 8 + lane / 16 * 8) * kRowBytes + (16 * k + lane / 8 % 2 * 8) * 2);
        mma_bf16(score[2 * n], query[k], keys[0], keys[1]);
        mma_bf16(score[2 * n + 1], query[k], keys[2], keys[3]);
      }
    }
    softmax.absorb(score, first_key, a.tokens);

    LEWM_UNROLL
    for (int n = 0; n < kTile / 16; ++n) {  // 16 keys: the weights of two score tiles are one operand
      const std::uint32_t weight[4] = {
          pack_bf16(score[2 * n][0], score[2 * n][1]), pack_bf16(score[2 * n][2], score[2 * n][3]),
          pack_bf16(score[2 * n + 1][0], score[2 * n + 1][1]), pack_bf16(score[2 * n + 1][2], score[2 * n + 1][3])};
      LEWM_UNROLL
      for (int d = 0; d < kDim / 16; ++d) {
        std::uint32_t values[4];
        ldmatrix_x4_transposed(values, v_tile + (16 * n + lane % 16) * kRowBytes + (16 * d + lane / 16 * 8) * 2);
        mma_bf16(softmax.out[2 * d], weight, values[0], values[1]);
        mma_bf16(softmax.out[2 * d + 1], weight, values[2], values[3]);
      }
    }
  }

  LEWM_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int token = first_query + warp * 16 + lane / 4 + 8 * half;
    if (token >= a.queries) continue;
    std::uint16_t* out = a.out + (std::int64_t{blockIdx.z} * a.queries + token) * a.out_stride + head_offset;
    LEWM_UNROLL
    for (int d = 0; d < kDim / 8; ++d) {
      const int column = 8 * d + lane % 4 * 2;
      if (column >= a.head_dim) continue;
      store4(out + column, pack_bf16(softmax.out[d][2 * half] / softmax.total[half],
                                     softmax.out[d][2 * half + 1] / softmax.total[half]));
    }
  }
}

template <int kDim>
constexpr std::size_t kSharedBytes = 3 * kTile*(kDim * 2 + 16);

template <int kDim>
void launch(const FullAttention& a, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((a.queries + kTile - 1) / kTile), static_cast<unsigned>(a.heads),
                  static_cast<unsigned>(a.sequences));
  LEWM_LAUNCH(full_attention_kernel<kDim>, grid, dim3(kThreads), kSharedBytes<kDim>, stream, a);
}

}  // namespace

void load_full_attention_kernels() {
  load_kernel(full_attention_kernel<32>, kSharedBytes<32>);
  load_kernel(full_attention_kernel<64>, kSharedBytes<64>);
  load_kernel(full_attention_kernel<128>, kSharedBytes<128>);
}

void launch_full_attention(const FullAttention& attention, cudaStream_t stream) {
  if (attention.head_dim <= 32) return launch<32>(attention, stream);
  if (attention.head_dim <= 64) return launch<64>(attention, stream);
  return launch<128>(attention, stream);
}

}  // namespace lewm::cuda
