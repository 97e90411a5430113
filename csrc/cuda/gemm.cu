// A block computes a tile of Y, each of its warps a part of it as products of 16x8. Operands travel in slices of depth
// 64 through three stages of shared memory by asynchronous copies. A row of a slice is 128 bytes, eight chunks of 16;
// chunk c of row r lies at c ^ (r % 8), so that the eight rows that ldmatrix reads at once fall into different banks.
//
// A depth of 512 and more is summed in four parts, which are then added in order: either one after the other by the
// same warps, or side by side by the four warps of a small tile, where there are too few tiles to fill a GPU. So the
// tile, which depends on the number of rows, decides how fast a result comes and never which bits it has.
#include "cuda/device.cuh"
#include "cuda/gemm.cuh"

namespace lewm::cuda {
namespace {

constexpr int kSlice = 64;  // depth of a stage
constexpr int kStages = 3;
constexpr int kChunk = 8;                       // bf16 elements in 16 bytes
constexpr int kChunksPerRow = kSlice / kChunk;  // 8
constexpr int kRowBytes = kSlice * 2;
constexpr int kParts = 4;        // of a deep sum
constexpr int kDeepFrom = 512;   // depth
constexpr int kColumnTiles = 4;  // of 8 columns, of a warp

// kRowWarps x kColumnWarps warps side by side, each with 16 * kRowTiles rows and 32 columns; kDepthWarps of them for
// the parts of a deep sum. At least kBlocks blocks find room on a multiprocessor of 228 KiB.
template <int kBlocks_, int kRowWarps_, int kColumnWarps_, int kRowTiles_, bool kDeep_, int kDepthWarps_ = 1>
struct Tile {
  static constexpr int kBlocks = kBlocks_;
  static constexpr int kRowWarps = kRowWarps_, kColumnWarps = kColumnWarps_, kRowTiles = kRowTiles_;
  static constexpr int kDepthWarps = kDepthWarps_;
  static constexpr bool kDeep = kDeep_;
  static constexpr int kThreads = kRowWarps * kColumnWarps * kDepthWarps * kWarp;
  static constexpr int kWarpRows = 16 * kRowTiles, kWarpColumns = 8 * kColumnTiles;
  static constexpr int kRows = kRowWarps * kWarpRows, kColumns = kColumnWarps * kWarpColumns;
  static constexpr int kSliceBytes = (kRows + kColumns) * kRowBytes;  // X and W
  static constexpr int kStageBytes = kDepthWarps * kSliceBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  using Accumulators = float[kRowTiles][kColumnTiles][4];
};

using Wide = Tile<2, 2, 4, 4, false>;         // 128 x 128
using Medium = Tile<4, 2, 2, 2, false>;       // 64 x 64
using DeepWide = Tile<2, 2, 2, 4, true>;      // 128 x 64
using DeepMedium = Tile<3, 2, 2, 2, true>;    // 64 x 64
using DeepSmall = Tile<2, 1, 1, 2, true, 4>;  // 32 x 32, a warp a part

__device__ __forceinline__ unsigned char* chunk_address(unsigned char* slice, int row, int chunk) {
  return slice + row * kRowBytes + (chunk ^ (row % kChunksPerRow)) * 16;
}

// Starts the copy of rows [first_row, first_row + kRows) and depths [first_k, first_k + 64) of a matrix; what lies
// outside arrives as zeros. A thread's chunks lie in one column, a multiple of eight rows apart.
template <int kRows, int kThreads>
__device__ __forceinline__ void copy_slice(unsigned char* slice, const std::uint16_t* matrix, std::int64_t stride,
                                           int rows, int k, int first_row, int first_k) {
  constexpr int kRowsAtOnce = kThreads / kChunksPerRow;
  static_assert(kRows % kRowsAtOnce == 0 && kRowsAtOnce % kChunksPerRow == 0);
  const int row = static_cast<int>(threadIdx.x) / kChunksPerRow, chunk = static_cast<int>(threadIdx.x) % kChunksPerRow;
  const int depth = first_k + chunk * kChunk;
  const int left = (k - depth) * 2;
  const int bytes = left < 0 ? 0 : left > 16 ? 16 : left;
  const std::uint16_t* from = matrix + (first_row + row) * stride + depth;
  unsigned char* to = chunk_address(slice, row, chunk);
  LEWM_UNROLL
  for (int i = 0; i < kRows; i += kRowsAtOnce) {
    const bool inside = LEWM_FAULT(kRaggedEdge) ? first_row + row + i <= rows : first_row + row + i < rows;
    const int valid = inside ? bytes : 0;
    cp_async16(to + i * kRowBytes, valid ? from + i * stride : matrix, valid);
  }
}

// sum += X slice * W slice, in four products of depth 16.
template <class T>
__device__ __forceinline__ void multiply_slice(unsigned char* x_slice, unsigned char* w_slice, int warp_row,
                                               int warp_column, typename T::Accumulators& sum) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  LEWM_UNROLL
  for (int step = 0; step < kSlice / 16; ++step) {
    std::uint32_t a[T::kRowTiles][4], b[kColumnTiles / 2][4];
    LEWM_UNROLL
    for (int m = 0; m < T::kRowTiles; ++m) {
      const int row = warp_row + 16 * m + lane % 16;
      ldmatrix_x4(a[m], chunk_address(x_slice, row, 2 * step + lane / 16));
    }
    LEWM_UNROLL
    for (int pair = 0; pair < kColumnTiles / 2; ++pair) {  // two tiles of 8 columns at once
      const int row = warp_column + 16 * pair + lane % 8 + lane / 16 * 8;
      ldmatrix_x4(b[pair], chunk_address(w_slice, row, 2 * step + lane / 8 % 2));
    }
    LEWM_UNROLL
    for (int m = 0; m < T::kRowTiles; ++m) {
      LEWM_UNROLL
      for (int n = 0; n < kColumnTiles; ++n) {
        const int low = n % 2 * 2 + (LEWM_FAULT(kFragmentIndex) ? 1 : 0);
        mma_bf16(sum[m][n], a[m], b[n / 2][low], b[n / 2][low ^ 1]);
      }
    }
  }
}

__device__ __forceinline__ float activate(float x, Activation activation) {
  if (activation == Activation::gelu) return 0.5f * x * (1.0f + erff(x * 0.70710678f));
  if (activation == Activation::silu) return x / (1.0f + expf(-x));
  return x;
}

// Where a row of Y and of what is added to it begins.
struct OutputRow {
  const float *bias, *gate, *residual;
  float* y;
  std::uint16_t* y_bf16;
};

__device__ __forceinline__ OutputRow output_row(const Gemm& gemm, int row) {
  const GemmEpilogue& e = gemm.epilogue;
  OutputRow out{e.bias, nullptr, nullptr, nullptr, nullptr};
  const std::int64_t gate_stride = LEWM_FAULT(kGateStride) ? 1 : e.gate_stride;
  if (e.gate) out.gate = e.gate + (e.gate_row ? e.gate_row[row] : row) * gate_stride;
  if (e.residual && !LEWM_FAULT(kMissingResidual)) out.residual = e.residual + row * e.residual_stride;
  if (e.store_bf16) {
    out.y_bf16 = static_cast<std::uint16_t*>(gemm.y) + row * gemm.y_stride;
  } else {
    out.y = static_cast<float*>(gemm.y) + row * gemm.y_stride;
  }
  return out;
}

__device__ __forceinline__ void finish(const OutputRow& out, Activation activation, int column, float value) {
  if (out.bias) value += out.bias[column];
  value = activate(value, activation);
  if (out.gate) value *= out.gate[column];
  if (out.residual) value += out.residual[column];
  if (out.y_bf16) {
    out.y_bf16[column] = float_to_bf16(value);
  } else {
    out.y[column] = value;
  }
}

// The same for an even column and the next, in one access each.
__device__ __forceinline__ void finish_pair(const OutputRow& out, Activation activation, int column, Floats2 value) {
  if (out.bias) {
    const Floats2 bias = load8(out.bias + column);
    value = {value.x + bias.x, value.y + bias.y};
  }
  value = {activate(value.x, activation), activate(value.y, activation)};
  if (out.gate) {
    const Floats2 gate = load8(out.gate + column);
    value = {value.x * gate.x, value.y * gate.y};
  }
  if (out.residual) {
    const Floats2 residual = load8(out.residual + column);
    value = {value.x + residual.x, value.y + residual.y};
  }
  if (out.y_bf16) {
    store4(out.y_bf16 + column, pack_bf16(value.x, value.y));
  } else {
    store8(out.y + column, value);
  }
}

// The sums of the four warps of a tile, each of a part of the depth, added in order: a warp finishes one of the four
// tiles of 8 columns, `n`, and holds its sums afterwards.
template <class T>
__device__ __forceinline__ void add_parts(unsigned char* shared, int part, typename T::Accumulators& sum) {
  static_assert(T::kDepthWarps == kColumnTiles);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto place = [&](int from, int m, int n) {
    return shared + (((from * T::kRowTiles + m) * kColumnTiles + n) * kWarp + lane) * 16;
  };
  sync_block();  // everybody has left the slices
  LEWM_UNROLL
  for (int m = 0; m < T::kRowTiles; ++m) {
    LEWM_UNROLL
    for (int n = 0; n < kColumnTiles; ++n) {
      store16(place(part, m, n), {{__float_as_uint(sum[m][n][0]), __float_as_uint(sum[m][n][1]),
                                   __float_as_uint(sum[m][n][2]), __float_as_uint(sum[m][n][3])}});
    }
  }
  if (!LEWM_FAULT(kMissingPartBarrier)) sync_block();
  LEWM_UNROLL
  for (int m = 0; m < T::kRowTiles; ++m) {
    float total[4] = {};
    LEWM_UNROLL
    for (int from = 0; from < kParts; ++from) {
      const Bytes16 partial = load16(place(from, m, part));
      LEWM_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float value = __uint_as_float(partial.word[i]);
        total[i] = from == 0 ? value : total[i] + value;
      }
    }
    LEWM_UNROLL
    for (int i = 0; i < 4; ++i) sum[m][0][i] = total[i];
  }
}

template <class T>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks) gemm_kernel(const Gemm gemm) {
  LEWM_SHARED(shared);
  const int first_row = static_cast<int>(blockIdx.y) * T::kRows;
  const int first_column = static_cast<int>(blockIdx.x) * T::kColumns;
  const int slices = (gemm.k + kSlice - 1) / kSlice;
  // Depth warp d sums the slices [part_begin(d), part_begin(d + 1)); all of them without depth warps.
  const auto part_begin = [&](int part) { return slices * part / kParts; };
  const auto first_of = [&](int depth_warp) { return T::kDepthWarps == 1 ? 0 : part_begin(depth_warp); };
  const auto end_of = [&](int depth_warp) { return T::kDepthWarps == 1 ? slices : part_begin(depth_warp + 1); };
  const int steps = T::kDepthWarps == 1 ? slices : (slices + kParts - 1) / kParts;

  const auto start_copy = [&](int step) {
    unsigned char* stage = shared + step % kStages * T::kStageBytes;
    LEWM_UNROLL
    for (int d = 0; d < T::kDepthWarps; ++d) {
      const int slice = first_of(d) + step;
      if (slice >= end_of(d)) continue;
      unsigned char* x_slice = stage + d * T::kSliceBytes;
      copy_slice<T::kRows, T::kThreads>(x_slice, gemm.x, gemm.x_stride, gemm.rows, gemm.k, first_row, slice * kSlice);
      copy_slice<T::kColumns, T::kThreads>(x_slice + T::kRows * kRowBytes, gemm.w, gemm.w_stride, gemm.n, gemm.k,
                                           first_column, slice * kSlice);
    }
    cp_async_commit();  // an empty group keeps the count of groups in step with the stages
  };

  for (int step = 0; step < kStages - 1; ++step) start_copy(step);

  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int depth_warp = warp / (T::kRowWarps * T::kColumnWarps);
  const int warp_row = warp / T::kColumnWarps % T::kRowWarps * T::kWarpRows;
  const int warp_column = warp % T::kColumnWarps * T::kWarpColumns;
  typename T::Accumulators sum = {}, total = {};
  int part = 0;
  for (int step = 0; step < steps; ++step) {
    if (!LEWM_FAULT(kStaleStage)) cp_async_wait<kStages - 2>();  // this thread's part of `step` is there
    if (!LEWM_FAULT(kMissingStageBarrier)) sync_block();         // and everybody's; the stage overwritten next is left
    start_copy(step + kStages - 1);
    if (first_of(depth_warp) + step >= end_of(depth_warp)) continue;
    unsigned char* x_slice = shared + step % kStages * T::kStageBytes + depth_warp * T::kSliceBytes;
    multiply_slice<T>(x_slice, x_slice + T::kRows * kRowBytes, warp_row, warp_column, sum);
    if constexpr (T::kDeep && T::kDepthWarps == 1) {
      if (step + 1 < part_begin(part + 1)) continue;
      LEWM_UNROLL
      for (int m = 0; m < T::kRowTiles; ++m) {
        LEWM_UNROLL
        for (int n = 0; n < kColumnTiles; ++n) {
          LEWM_UNROLL
          for (int i = 0; i < 4; ++i) {
            total[m][n][i] = part == 0 ? sum[m][n][i] : total[m][n][i] + sum[m][n][i];
            sum[m][n][i] = 0.0f;
          }
        }
      }
      ++part;
    }
  }
  cp_async_wait<0>();
  if constexpr (T::kDepthWarps > 1) add_parts<T>(shared, depth_warp, sum);
  const auto& result = T::kDeep && T::kDepthWarps == 1 ? total : sum;

  constexpr int kTilesLeft = T::kDepthWarps > 1 ? 1 : kColumnTiles;  // of this warp's columns
  const int column_offset = first_column + warp_column + (T::kDepthWarps > 1 ? 8 * depth_warp : 0) + lane % 4 * 2;
  LEWM_UNROLL
  for (int m = 0; m < T::kRowTiles; ++m) {
    LEWM_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + warp_row + 16 * m + lane / 4 + 8 * half;
      if (row >= gemm.rows) continue;
      const OutputRow out = output_row(gemm, row);
      LEWM_UNROLL
      for (int n = 0; n < kTilesLeft; ++n) {
        const int column = column_offset + 8 * n;
        const Floats2 value{result[m][n][2 * half], result[m][n][2 * half + 1]};
        if (gemm.paired) {
          if (column < gemm.n) finish_pair(out, gemm.epilogue.activation, column, value);
        } else {
          if (column < gemm.n) finish(out, gemm.epilogue.activation, column, value.x);
          if (column + 1 < gemm.n) finish(out, gemm.epilogue.activation, column + 1, value.y);
        }
      }
    }
  }
}

template <class T>
void load() {
  load_kernel(gemm_kernel<T>, T::kSharedBytes);
}

template <class T>
void launch(const Gemm& gemm, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((gemm.n + T::kColumns - 1) / T::kColumns),
                  static_cast<unsigned>((gemm.rows + T::kRows - 1) / T::kRows));
  LEWM_LAUNCH(gemm_kernel<T>, grid, dim3(T::kThreads), T::kSharedBytes, stream, gemm);
}

template <class T>
std::int64_t tiles(const Gemm& gemm) {
  return std::int64_t{(gemm.n + T::kColumns - 1) / T::kColumns} * ((gemm.rows + T::kRows - 1) / T::kRows);
}

bool aligned8(const void* pointer, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 8 == 0 && stride % 2 == 0;
}

// Whether finish_pair may be used.
bool paired(const Gemm& gemm) {
  const GemmEpilogue& e = gemm.epilogue;
  return gemm.n % 2 == 0 && aligned8(gemm.y, gemm.y_stride) && aligned8(e.bias, 0) && aligned8(e.gate, e.gate_stride) &&
         aligned8(e.residual, e.residual_stride);
}

}  // namespace

void load_gemm_kernels() {
  load<Wide>();
  load<Medium>();
  load<DeepWide>();
  load<DeepMedium>();
  load<DeepSmall>();
}

void launch_gemm(const Gemm& given, cudaStream_t stream, std::int64_t enough_tiles) {
  Gemm gemm = given;
  gemm.paired = paired(gemm);
  if (gemm.k < kDeepFrom) {
    if (tiles<Wide>(gemm) >= enough_tiles) return launch<Wide>(gemm, stream);
    return launch<Medium>(gemm, stream);
  }
  if (tiles<DeepWide>(gemm) >= enough_tiles) return launch<DeepWide>(gemm, stream);
  if (tiles<DeepMedium>(gemm) >= enough_tiles) return launch<DeepMedium>(gemm, stream);
  launch<DeepSmall>(gemm, stream);
}

}  // namespace lewm::cuda
