// A block of four warps computes a 64x64 tile of Y; each warp 32x32 of it as 2x4 products of 16x8. Operand tiles of
// depth 64 travel through three stages of shared memory by asynchronous copies. A row of a tile is 128 bytes, eight
// chunks of 16; chunk c of row r lies at c ^ (r % 8), so that the eight rows that ldmatrix reads at once fall into
// different banks.
#include "cuda/device.cuh"
#include "cuda/gemm.cuh"

namespace lewm::cuda {
namespace {

constexpr int kTile = 64;  // rows, columns and depth
constexpr int kStages = 3;
constexpr int kThreads = 128;
constexpr int kChunk = 8;                      // bf16 elements in 16 bytes
constexpr int kChunksPerRow = kTile / kChunk;  // 8
constexpr int kTileBytes = kTile * kTile * 2;
constexpr int kStageBytes = 2 * kTileBytes;  // X and W
constexpr int kSharedBytes = kStages * kStageBytes;

__device__ __forceinline__ unsigned char* chunk_address(unsigned char* tile, int row, int chunk) {
  return tile + (row * kChunksPerRow + (chunk ^ (row % kChunksPerRow))) * 16;
}

// Starts the copy of rows [first_row, first_row + 64) and depths [first_k, first_k + 64) of a matrix; what lies outside
// arrives as zeros.
__device__ __forceinline__ void copy_tile(unsigned char* tile, const std::uint16_t* matrix, std::int64_t stride,
                                          int rows, int k, int first_row, int first_k) {
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kChunksPerRow; i += kThreads) {
    const int row = i / kChunksPerRow, chunk = i % kChunksPerRow;
    const int depth = first_k + chunk * kChunk;
    const bool inside = LEWM_FAULT(kRaggedEdge) ? first_row + row <= rows : first_row + row < rows;
    const int left = inside ? (k - depth) * 2 : 0;
    const int valid = left < 0 ? 0 : left > 16 ? 16 : left;
    const std::uint16_t* from = valid ? matrix + (first_row + row) * stride + depth : matrix;
    cp_async16(chunk_address(tile, row, chunk), from, valid);
  }
}

__device__ __forceinline__ float activate(float x, Activation activation) {
  if (activation == Activation::gelu) return 0.5f * x * (1.0f + erff(x * 0.70710678f));
  if (activation == Activation::silu) return x / (1.0f + expf(-x));
  return x;
}

// The warp's 32x32 accumulators: [m tile of 16][n tile of 8][register].
using Accumulators = float[2][4][4];

// One stage: four products of depth 16.
__device__ __forceinline__ void multiply_stage(unsigned char* x_tile, unsigned char* w_tile, int warp_row,
                                               int warp_column, Accumulators& sum) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  LEWM_UNROLL
  for (int step = 0; step < kTile / 16; ++step) {
    std::uint32_t a[2][4], b[2][4];
    LEWM_UNROLL
    for (int m = 0; m < 2; ++m) {
      const int row = warp_row + 16 * m + lane % 16;
      ldmatrix_x4(a[m], chunk_address(x_tile, row, 2 * step + lane / 16));
    }
    LEWM_UNROLL
    for (int pair = 0; pair < 2; ++pair) {  // two n tiles of 8 at once
      const int row = warp_column + 16 * pair + lane % 8 + lane / 16 * 8;
      ldmatrix_x4(b[pair], chunk_address(w_tile, row, 2 * step + lane / 8 % 2));
    }
    LEWM_UNROLL
    for (int m = 0; m < 2; ++m) {
      LEWM_UNROLL
      for (int n = 0; n < 4; ++n) {
        const int low = n % 2 * 2 + (LEWM_FAULT(kFragmentIndex) ? 1 : 0);
        mma_bf16(sum[m][n], a[m], b[n / 2][low], b[n / 2][low ^ 1]);
      }
    }
  }
}

__device__ __forceinline__ void finish(const Gemm& gemm, int row, int column, float value) {
  if (row >= gemm.rows || column >= gemm.n) return;
  const GemmEpilogue& e = gemm.epilogue;
  if (e.bias) value += e.bias[column];
  value = activate(value, e.activation);
  const std::int64_t gate_stride = LEWM_FAULT(kGateStride) ? 1 : e.gate_stride;
  if (e.gate) value *= e.gate[(e.gate_row ? e.gate_row[row] : row) * gate_stride + column];
  if (e.residual && !LEWM_FAULT(kMissingResidual)) value += e.residual[row * e.residual_stride + column];
  if (e.store_bf16) {
    static_cast<std::uint16_t*>(gemm.y)[row * gemm.y_stride + column] = float_to_bf16(value);
  } else {
    static_cast<float*>(gemm.y)[row * gemm.y_stride + column] = value;
  }
}

__global__ void __launch_bounds__(kThreads) gemm_kernel(const Gemm gemm) {
  LEWM_SHARED(shared);
  const int first_row = static_cast<int>(blockIdx.y) * kTile, first_column = static_cast<int>(blockIdx.x) * kTile;
  const int stages = (gemm.k + kTile - 1) / kTile;
  const auto start_copy = [&](int stage) {
    unsigned char* tile = shared + stage % kStages * kStageBytes;
    if (stage < stages) {
      copy_tile(tile, gemm.x, gemm.x_stride, gemm.rows, gemm.k, first_row, stage * kTile);
      copy_tile(tile + kTileBytes, gemm.w, gemm.w_stride, gemm.n, gemm.k, first_column, stage * kTile);
    }
    cp_async_commit();  // an empty group keeps the count of groups in step with the stages
  };

  for (int stage = 0; stage < kStages - 1; ++stage) start_copy(stage);

  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
  Accumulators sum = {};
  for (int stage = 0; stage < stages; ++stage) {
    if (!LEWM_FAULT(kStaleStage)) cp_async_wait<kStages - 2>();  // this thread's part of `stage` is there
    if (!LEWM_FAULT(kMissingStageBarrier)) sync_block();         // and everybody's; the stage overwritten next is left
    start_copy(stage + kStages - 1);
    unsigned char* tile = shared + stage % kStages * kStageBytes;
    multiply_stage(tile, tile + kTileBytes, warp_row, warp_column, sum);
  }
  cp_async_wait<0>();

  LEWM_UNROLL
  for (int m = 0; m < 2; ++m) {
    LEWM_UNROLL
    for (int n = 0; n < 4; ++n) {
      LEWM_UNROLL
      for (int i = 0; i < 4; ++i) {
        finish(gemm, first_row + warp_row + 16 * m + lane / 4 + 8 * (i / 2),
               first_column + warp_column + 8 * n + lane % 4 * 2 + i % 2, sum[m][n][i]);
      }
    }
  }
}

}  // namespace

void load_gemm_kernels() { load_kernel(gemm_kernel, kSharedBytes); }

void launch_gemm(const Gemm& gemm, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((gemm.n + kTile - 1) / kTile),
                  static_cast<unsigned>((gemm.rows + kTile - 1) / kTile));
  LEWM_LAUNCH(gemm_kernel, grid, dim3(kThreads), kSharedBytes, stream, gemm);
}

}  // namespace lewm::cuda
