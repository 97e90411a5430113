#include "cuda/device.cuh"
#include "cuda/launch.h"
#include "cuda/sigreg.cuh"

namespace lewm::cuda {
namespace {

constexpr int kSide = 16;   // threads of a block of a matrix product, each way
constexpr int kDepth = 16;  // of a step
constexpr int kThreads = kSide * kSide;
constexpr int kKnotsAtOnce = 17;  // all of them by default

unsigned blocks_for(std::int64_t items, int per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

// --- projections: a plain fp32 product; tensor cores would cost more accuracy than the statistic has to give ---

// A thread computes kPer x kPer results, kSide apart. The next step's operands are on their way while one is computed.
template <int kPer>
__global__ void __launch_bounds__(kThreads) matrix_product_kernel(const MatrixProduct g) {
  constexpr int kTile = kPer * kSide, kRow = kTile + 1;
  LEWM_SHARED(shared);
  auto* a_tile = reinterpret_cast<float*>(shared);  // [kDepth, kRow]
  auto* b_tile = a_tile + kDepth * kRow;            // [kDepth, kRow]
  const int thread = static_cast<int>(threadIdx.x);
  const int first_row = static_cast<int>(blockIdx.y) * kTile, first_column = static_cast<int>(blockIdx.x) * kTile;
  const int row = thread / kSide, column = thread % kSide;  // and every kSide-th after

  float a_next[kPer], b_next[kPer];  // element thread + kThreads * i of either tile
  const auto a_place = [&](int i) { return (thread + kThreads * i) / kDepth; };  // depth: thread % kDepth
  const auto b_column = [&](int i) {
    return g.b_transposed ? (thread + kThreads * i) / kDepth : (thread + kThreads * i) % kTile;
  };
  const auto b_depth = [&](int i) { return g.b_transposed ? thread % kDepth : (thread + kThreads * i) / kTile; };
  const auto fetch = [&](int first) {
    LEWM_UNROLL
    for (int i = 0; i < kPer; ++i) {
      const int r = first_row + a_place(i), a_k = first + thread % kDepth;
      a_next[i] = r < g.m && a_k < g.k ? g.a[r * g.a_stride + a_k] : 0.0f;
      const int c = first_column + b_column(i), b_k = first + b_depth(i);
      const std::int64_t at = g.b_transposed ? c * g.b_stride + b_k : b_k * g.b_stride + c;
      b_next[i] = c < g.n && b_k < g.k ? g.b[at] : 0.0f;
    }
  };

  float sum[kPer][kPer] = {};
  fetch(0);
  for (int first = 0; first < g.k; first += kDepth) {
    LEWM_UNROLL
    for (int i = 0; i < kPer; ++i) {
      a_tile[thread % kDepth * kRow + a_place(i)] = a_next[i];
      b_tile[b_depth(i) * kRow + b_column(i)] = b_next[i];
    }
    sync_block();
    if (first + kDepth < g.k) fetch(first + kDepth);
    LEWM_UNROLL
    for (int depth = 0; depth < kDepth; ++depth) {
      float a[kPer], b[kPer];
      LEWM_UNROLL
      for (int i = 0; i < kPer; ++i) {
        a[i] = a_tile[depth * kRow + row + kSide * i];
        b[i] = b_tile[depth * kRow + column + kSide * i];
      }
      LEWM_UNROLL
      for (int i = 0; i < kPer; ++i) {
        LEWM_UNROLL
        for (int j = 0; j < kPer; ++j) sum[i][j] = fmaf(a[i], b[j], sum[i][j]);
      }
    }
    sync_block();
  }
  LEWM_UNROLL
  for (int i = 0; i < kPer; ++i) {
    LEWM_UNROLL
    for (int j = 0; j < kPer; ++j) {
      const int r = first_row + row + kSide * i, c = first_column + column + kSide * j;
      if (r < g.m && c < g.n) g.c[r * g.c_stride + c] = sum[i][j];
    }
  }
}

template <int kPer>
unsigned product_blocks(int items) {
  return blocks_for(items, kPer * kSide);
}

template <int kPer>
void launch_product(const MatrixProduct& args, cudaStream_t stream) {
  const dim3 grid(product_blocks<kPer>(args.n), product_blocks<kPer>(args.m));
  LEWM_LAUNCH(matrix_product_kernel<kPer>, grid, dim3(kThreads), 2 * kDepth * (kPer * kSide + 1) * sizeof(float),
              stream, args);
}

// --- characteristic functions ---

// A thread a projection, a share of the rows and up to 17 knots: their running sums in registers.
__global__ void __launch_bounds__(kThreads) partial_sums_kernel(const CharacteristicSums a) {
  const int m = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (m >= a.projections) return;
  const int split = static_cast<int>(blockIdx.y);
  const int step = static_cast<int>(blockIdx.z) % a.steps;
  const int first_knot = static_cast<int>(blockIdx.z) / a.steps * kKnotsAtOnce;
  const float* p = a.p + std::int64_t{step} * a.rows * a.projections;
  const int first = static_cast<int>(std::int64_t{a.rows} * split / a.splits);
  const int last = static_cast<int>(std::int64_t{a.rows} * (split + 1) / a.splits);
  float cosines[kKnotsAtOnce] = {}, sines[kKnotsAtOnce] = {};
  for (int row = first; row < last; ++row) {
    const float x = a.knots.delta * p[std::int64_t{row} * a.projections + m];
    float step_sin, step_cos, sin_now = 0.0f, cos_now = 1.0f;
    sincosf(x, &step_sin, &step_cos);
    if (first_knot > 0) sincosf(static_cast<float>(first_knot) * x, &sin_now, &cos_now);
    LEWM_UNROLL
    for (int k = 0; k < kKnotsAtOnce; ++k) {
      cosines[k] += cos_now;
      sines[k] += sin_now;
      const float next_cos = fmaf(cos_now, step_cos, -sin_now * step_sin);
      sin_now = fmaf(sin_now, step_cos, cos_now * step_sin);
      cos_now = next_cos;
    }
  }
  float* out =
      a.partial + ((std::int64_t{split} * a.steps + step) * a.projections + m) * 2 * a.knots.count + first_knot;
  LEWM_UNROLL
  for (int k = 0; k < kKnotsAtOnce; ++k) {
    if (first_knot + k >= a.knots.count) break;
    out[k] = cosines[k];
    out[a.knots.count + k] = sines[k];
  }
}

__global__ void __launch_bounds__(kThreads) add_partial_sums_kernel(const CharacteristicSums a) {
  const std::int64_t count = std::int64_t{a.steps} * a.projections * a.knots.count * 2;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  double sum = a.sums[i];
  for (int split = 0; split < a.splits; ++split) sum += static_cast<double>(a.partial[split * count + i]);
  a.sums[i] = sum;
}

// Trapezoid weight of knot k times the window phi_k, and phi_k.
struct Weight {
  double weight, phi;
};
__device__ __forceinline__ Weight weight_of(const Knots& knots, int k) {
  const double s = static_cast<double>(knots.delta) * k;
  const double phi = exp(-0.5 * s * s);
  const bool end = k == 0 || (k == knots.count - 1 && !LEWM_FAULT(kLastKnotWeight));
  return {(end ? 1.0 : 2.0) * static_cast<double>(knots.delta) * phi, phi};
}

__global__ void __launch_bounds__(kThreads) statistic_kernel(const Statistic a) {
  const int m = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (m >= a.projections) return;
  double total = 0.0;
  for (int k = 0; k < a.knots.count; ++k) {
    const double* sums = a.sums + std::int64_t{m} * 2 * a.knots.count + k;
    const Weight w = weight_of(a.knots, k);
    const double real = sums[0] / a.batch - w.phi, imaginary = sums[a.knots.count] / a.batch;
    total += w.weight * (real * real + imaginary * imaginary);
  }
  a.statistic[m] = a.batch * total;
}

// dT/dp = 2 sum_k w_k s_k (S_k cos(k x) - (C_k - phi_k) sin(k x)), x = delta p: the real part of a polynomial in
// e^(ix), by Horner. A block handles kThreads projections and a share of the rows; the coefficients of a projection are
// computed by its thread and wait in shared memory.
__global__ void __launch_bounds__(kThreads) gradient_kernel(const ProjectionGradient a, int rows_per_block) {
  LEWM_SHARED(shared);
  auto* coefficients = reinterpret_cast<float*>(shared);  // [K, 2, threads of the block]
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int m = static_cast<int>(blockIdx.x) * threads + thread;
  if (m >= a.projections) return;
  const int step = static_cast<int>(blockIdx.z);
  float* projections = a.p + std::int64_t{step} * a.rows * a.projections + m;
  for (int k = 0; k < a.knots.count; ++k) {
    const double* sums = a.sums + (std::int64_t{step} * a.projections + m) * 2 * a.knots.count + k;
    const Weight w = weight_of(a.knots, k);
    const double factor = 2.0 * w.weight * static_cast<double>(a.knots.delta) * k * static_cast<double>(a.scale);
    coefficients[(2 * k) * threads + thread] = static_cast<float>(factor * (sums[a.knots.count] / a.batch));
    coefficients[(2 * k + 1) * threads + thread] = static_cast<float>(factor * (sums[0] / a.batch - w.phi));
  }
  const int first = static_cast<int>(blockIdx.y) * rows_per_block;
  const int last = first + rows_per_block < a.rows ? first + rows_per_block : a.rows;
  for (int row = first; row < last; ++row) {
    float& p = projections[std::int64_t{row} * a.projections];
    float sine, cosine;
    sincosf(a.knots.delta * p, &sine, &cosine);
    float real = 0.0f, imaginary = 0.0f;  // sum_k (alpha_k + i beta_k) e^(ikx); its real part is alpha cos - beta sin
    for (int k = a.knots.count - 1; k >= 0; --k) {
      const float next = fmaf(real, cosine, fmaf(-imaginary, sine, coefficients[(2 * k) * threads + thread]));
      imaginary = fmaf(real, sine, fmaf(imaginary, cosine, coefficients[(2 * k + 1) * threads + thread]));
      real = next;
    }
    p = real;
  }
}

}  // namespace

// Small tiles where large ones would leave most of a GPU idle.
void launch_matrix_product(const MatrixProduct& args, cudaStream_t stream) {
  if (std::int64_t{product_blocks<4>(args.n)} * product_blocks<4>(args.m) >= kEnoughTiles)
    return launch_product<4>(args, stream);
  launch_product<2>(args, stream);
}

void launch_characteristic_sums(const CharacteristicSums& args, cudaStream_t stream) {
  const dim3 grid(blocks_for(args.projections, kThreads), static_cast<unsigned>(args.splits),
                  blocks_for(args.knots.count, kKnotsAtOnce) * static_cast<unsigned>(args.steps));
  LEWM_LAUNCH(partial_sums_kernel, grid, dim3(kThreads), 0, stream, args);
  const std::int64_t sums = std::int64_t{args.steps} * args.projections * args.knots.count * 2;
  LEWM_LAUNCH(add_partial_sums_kernel, dim3(blocks_for(sums, kThreads)), dim3(kThreads), 0, stream, args);
}

void launch_statistic(const Statistic& args, cudaStream_t stream) {
  LEWM_LAUNCH(statistic_kernel, dim3(blocks_for(args.projections, kThreads)), dim3(kThreads), 0, stream, args);
}

void launch_projection_gradient(const ProjectionGradient& args, cudaStream_t stream) {
  // As many threads as find room for their coefficients in 48 KiB: 256 up to 24 knots, one warp up to 192.
  constexpr std::size_t kSharedBytes = 48 * 1024;
  const std::size_t bytes_per_thread = static_cast<std::size_t>(args.knots.count) * 2 * sizeof(float);
  int threads = kThreads;
  while (threads > 1 && static_cast<std::size_t>(threads) * bytes_per_thread > kSharedBytes) threads /= 2;
  constexpr int kRowsPerBlock = 16;
  const dim3 grid(blocks_for(args.projections, threads), blocks_for(args.rows, kRowsPerBlock),
                  static_cast<unsigned>(args.steps));
  LEWM_LAUNCH(gradient_kernel, grid, dim3(static_cast<unsigned>(threads)),
              static_cast<std::size_t>(threads) * bytes_per_thread, stream, args, kRowsPerBlock);
}

}  // namespace lewm::cuda
