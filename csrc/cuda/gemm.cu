// A block computes a tile of Y, each of its warps a part of it as products of 16x8. Operands travel in slices of depth
// 64 through three stages of shared memory by asynchronous copies. A row of a slice is 128 bytes, eight chunks of 16;
// chunk c of row r lies at c ^ (r % 8), so that the eight rows that ldmatrix reads at once fall into different banks.
// The sums then go through shared memory, so that what is added to them and what becomes of them is read and written in
// whole rows, several at a time.
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
  static constexpr bool kInTurn = kDeep_ && kDepthWarps == 1;  // the parts of a sum, one after the other
  static constexpr int kThreads = kRowWarps * kColumnWarps * kDepthWarps * kWarp;
  static constexpr int kWarpRows = 16 * kRowTiles, kWarpColumns = 8 * kColumnTiles;
  static constexpr int kRows = kRowWarps * kWarpRows, kColumns = kColumnWarps * kWarpColumns;
  static constexpr int kSliceBytes = (kRows + kColumns) * kRowBytes;  // X and W
  static constexpr int kStageBytes = kDepthWarps * kSliceBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kSumStride = kColumns + 8;  // rows begin eight banks apart
  static_assert(kDepthWarps * kRows * kSumStride * 4 <= kSharedBytes);
  using Accumulators = float[kRowTiles][kColumnTiles][4];
};

using Wide = Tile<2, 2, 4, 4, false>;         // 128 x 128
using Medium = Tile<4, 2, 2, 2, false>;       // 64 x 64
using Small = Tile<8, 2, 1, 1, false>;        // 32 x 32
using DeepMedium = Tile<3, 2, 2, 2, true>;    // 64 x 64
using DeepSmall = Tile<2, 1, 1, 2, true, 4>;  // 32 x 32, a warp a part
using DeepTiny = Tile<3, 1, 1, 1, true, 4>;   // 16 x 32, a warp a part

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
  if (activation == Activation::gelu) return gelu(x);
  if (activation == Activation::silu) return silu(x);
  return x;
}

constexpr int kQuad = 4;  // columns that a thread finishes of a row
using Quad = float[kQuad];

// Four values of a row from `column` on, of which `left` are there.
__device__ __forceinline__ void load_quad(Quad& values, const float* from, int left, bool vectors) {
  if (vectors) {
    const Bytes16 bytes = load16(from);
    LEWM_UNROLL
    for (int i = 0; i < kQuad; ++i) values[i] = __uint_as_float(bytes.word[i]);
    return;
  }
  LEWM_UNROLL
  for (int i = 0; i < kQuad; ++i) values[i] = i < left ? from[i] : 0.0f;
}

__device__ __forceinline__ void store_quad(const Gemm& gemm, std::int64_t at, const Quad& values, int left) {
  if (gemm.epilogue.store_bf16) {
    std::uint16_t* to = static_cast<std::uint16_t*>(gemm.y) + at;
    if (gemm.vectors) return store8(to, {{pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3])}});
    LEWM_UNROLL
    for (int i = 0; i < kQuad; ++i) {
      if (i < left) to[i] = float_to_bf16(values[i]);
    }
    return;
  }
  float* to = static_cast<float*>(gemm.y) + at;
  if (gemm.vectors) {
    return store16(to, {{__float_as_uint(values[0]), __float_as_uint(values[1]), __float_as_uint(values[2]),
                         __float_as_uint(values[3])}});
  }
  LEWM_UNROLL
  for (int i = 0; i < kQuad; ++i) {
    if (i < left) to[i] = values[i];
  }
}

// A tile of sums in shared memory: the rows of kDepthWarps parts, eight banks apart.
template <class T>
__device__ __forceinline__ float* sum_address(unsigned char* shared, int part, int row, int column) {
  return reinterpret_cast<float*>(shared) + (part * T::kRows + row) * T::kSumStride + column;
}

template <class T>
__device__ __forceinline__ void put_sums(unsigned char* shared, int part, int warp_row, int warp_column,
                                         const typename T::Accumulators& sum) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  LEWM_UNROLL
  for (int m = 0; m < T::kRowTiles; ++m) {
    LEWM_UNROLL
    for (int n = 0; n < kColumnTiles; ++n) {
      LEWM_UNROLL
      for (int half = 0; half < 2; ++half) {
        store8(
            sum_address<T>(shared, part, warp_row + 16 * m + lane / 4 + 8 * half, warp_column + 8 * n + lane % 4 * 2),
            {{__float_as_uint(sum[m][n][2 * half]), __float_as_uint(sum[m][n][2 * half + 1])}});
      }
    }
  }
}

// Bias, activation, gate and residual, and the result: a thread has four columns of every kRowsAtOnce-th row, and asks
// for what it needs of kBatch rows before it uses any of it.
template <class T>
__device__ __forceinline__ void finish(const Gemm& gemm, unsigned char* shared, int first_row, int first_column) {
  constexpr int kRowsAtOnce = T::kThreads / (T::kColumns / kQuad), kPasses = T::kRows / kRowsAtOnce;
  constexpr int kBatch = kPasses <= 8 ? kPasses : 4;
  const GemmEpilogue& e = gemm.epilogue;
  const int tile_column = static_cast<int>(threadIdx.x) % (T::kColumns / kQuad) * kQuad;
  const int column = first_column + tile_column, left = gemm.n - column;
  if (left <= 0) return;
  Quad bias = {};
  if (e.bias) load_quad(bias, e.bias + column, left, gemm.vectors);
  const std::int64_t gate_stride = LEWM_FAULT(kGateStride) ? 1 : e.gate_stride;
  LEWM_UNROLL
  for (int pass = 0; pass < kPasses; pass += kBatch) {
    const int tile_row = static_cast<int>(threadIdx.x) / (T::kColumns / kQuad) + pass * kRowsAtOnce;
    Quad gate[kBatch], residual[kBatch];
    LEWM_UNROLL
    for (int i = 0; i < kBatch; ++i) {
      const int row = first_row + tile_row + i * kRowsAtOnce;
      if (!e.gate || row >= gemm.rows) continue;
      load_quad(gate[i], e.gate + (e.gate_row ? e.gate_row[row] : row) * gate_stride + column, left, gemm.vectors);
    }
    LEWM_UNROLL
    for (int i = 0; i < kBatch; ++i) {
      const int row = first_row + tile_row + i * kRowsAtOnce;
      if (!e.residual || row >= gemm.rows) continue;
      load_quad(residual[i], e.residual + row * e.residual_stride + column, left, gemm.vectors);
    }
    LEWM_UNROLL
    for (int i = 0; i < kBatch; ++i) {
      const int row = first_row + tile_row + i * kRowsAtOnce;
      if (row >= gemm.rows) continue;
      Quad value, part;
      load_quad(value, sum_address<T>(shared, 0, tile_row + i * kRowsAtOnce, tile_column), kQuad, true);
      LEWM_UNROLL
      for (int from = 1; from < T::kDepthWarps; ++from) {
        load_quad(part, sum_address<T>(shared, from, tile_row + i * kRowsAtOnce, tile_column), kQuad, true);
        LEWM_UNROLL
        for (int c = 0; c < kQuad; ++c) value[c] += part[c];
      }
      LEWM_UNROLL
      for (int c = 0; c < kQuad; ++c) {
        value[c] = activate(value[c] + bias[c], e.activation);
        if (e.gate) value[c] *= gate[i][c];
        if (e.residual && !LEWM_FAULT(kMissingResidual)) value[c] += residual[i][c];
      }
      store_quad(gemm, row * gemm.y_stride + column, value, left);
    }
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

  const int warp = static_cast<int>(threadIdx.x) / kWarp;
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
    if constexpr (T::kInTurn) {
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
  sync_block();  // everybody has left the slices
  put_sums<T>(shared, depth_warp, warp_row, warp_column, T::kInTurn ? total : sum);
  if (!LEWM_FAULT(kMissingSumBarrier)) sync_block();
  finish<T>(gemm, shared, first_row, first_column);
}

template <class T>
void load() {
  load_kernel(gemm_kernel<T>, T::kSharedBytes);
}

// Whether four columns can be read and written at once.
bool whole_quads(const Gemm& gemm) {
  const auto floats = [](const float* array, std::int64_t stride) { return rows_aligned(array, stride, 4, 16); };
  const GemmEpilogue& e = gemm.epilogue;
  return gemm.n % kQuad == 0 && rows_aligned(gemm.y, gemm.y_stride, e.store_bf16 ? 2 : 4, e.store_bf16 ? 8 : 16) &&
         floats(e.bias, 0) && floats(e.gate, e.gate_stride) && floats(e.residual, e.residual_stride);
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

}  // namespace

void load_gemm_kernels() {
  load<Wide>();
  load<Medium>();
  load<Small>();
  load<DeepMedium>();
  load<DeepSmall>();
  load<DeepTiny>();
}

void launch_gemm(const Gemm& given, cudaStream_t stream, std::int64_t enough_tiles) {
  Gemm gemm = given;
  gemm.vectors = whole_quads(gemm);
  const auto enough = [&](std::int64_t tiles, std::int64_t blocks) { return tiles >= enough_tiles * blocks; };
  if (gemm.k < kDeepFrom) {
    if (enough(tiles<Wide>(gemm), 2)) return launch<Wide>(gemm, stream);
    return enough(tiles<Medium>(gemm), 1) ? launch<Medium>(gemm, stream) : launch<Small>(gemm, stream);
  }
  if (enough(tiles<DeepMedium>(gemm), 1)) return launch<DeepMedium>(gemm, stream);
  return enough(tiles<DeepSmall>(gemm), 1) ? launch<DeepSmall>(gemm, stream) : launch<DeepTiny>(gemm, stream);
}

}  // namespace lewm::cuda
