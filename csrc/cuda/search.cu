#include "cuda/search.cuh"
#include "plan/philox.h"

namespace lewm::cuda {
namespace {

constexpr int kThreads = 128;

unsigned blocks_for(std::int64_t items, int per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

__device__ __forceinline__ float clip(float value, const float* low, const float* high, int element) {
  if (low) value = fmaxf(value, low[element]);
  if (high) value = fminf(value, high[element]);
  return value;
}

// A thread a quad of elements: one Philox block.
__global__ void __launch_bounds__(kThreads) sample_kernel(const Sample a) {
  const int quads = (a.elements + 3) / 4;
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= std::int64_t{a.problems} * a.samples * quads) return;
  const int quad = static_cast<int>(index % quads);
  const int sample = static_cast<int>(index / quads % a.samples);
  const int problem = static_cast<int>(index / quads / a.samples);

  float noise[4];
  const philox::Stream stream{a.seed, a.plan, a.iteration, a.problem_ids ? a.problem_ids[problem] : 0};
  philox::normal_quad(stream, static_cast<std::uint32_t>(sample), static_cast<std::uint32_t>(quad), noise);
  float* out = a.candidates + (std::int64_t{problem} * a.samples + sample) * a.elements;
  LEWM_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int element = 4 * quad + i;
    if (element >= a.elements) break;
    const float mean = a.mean[problem * a.elements + element];
    const float drawn = philox::fused(a.std[problem * a.elements + element], noise[i], mean);
    out[element] = sample == 0 ? mean : clip(drawn, a.low, a.high, element);
  }
}

// A warp a candidate.
__global__ void __launch_bounds__(kThreads) squared_distance_kernel(const SquaredDistance a) {
  const std::int64_t row = std::int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= std::int64_t{a.problems} * a.samples) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float* latent = a.latents + row * a.d;
  const float* goal = a.goal + row / a.samples * a.d;
  float sum = 0.0f;
  for (int i = lane; i < a.d; i += kWarp) {
    const float difference = latent[i] - goal[i];
    sum = philox::fused(difference, difference, sum);
  }
  sum = warp_sum(sum);
  if (lane == 0) a.cost[row] = sum;
}

// Sorts after every finite cost, whatever its index.
constexpr std::uint64_t kNever = ~std::uint64_t{0};

// Costs as integers in the same order (-0 equals 0), then the index: ties go to the lower one.
__device__ __forceinline__ std::uint64_t sort_key(float cost, int index) {
  std::uint32_t bits = __float_as_uint(cost + 0.0f);
  if ((bits & 0x7f800000u) == 0x7f800000u) return kNever;  // NaN or infinite
  if (bits == 0x80000000u) bits = 0;
  bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return std::uint64_t{bits} << 32 | static_cast<std::uint32_t>(index);
}

// A block a problem: a bitonic sort of all keys in shared memory, `padded` a power of two.
__global__ void __launch_bounds__(kThreads) select_elites_kernel(const SelectElites a, int padded) {
  LEWM_SHARED(shared);
  auto* keys = reinterpret_cast<std::uint64_t*>(shared);
  const int problem = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const float* cost = a.cost + std::int64_t{problem} * a.samples;
  for (int i = thread; i < padded; i += kThreads) keys[i] = i < a.samples ? sort_key(cost[i], i) : kNever;
  for (int size = 2; size <= padded; size *= 2) {
    for (int stride = size / 2; stride; stride /= 2) {
      sync_block();
      for (int i = thread; i < padded; i += kThreads) {
        const int partner = i ^ stride;
        if (partner < i) continue;
        const bool ascending = (i & size) == 0;
        const std::uint64_t first = keys[i], second = keys[partner];
        if ((first > second) == ascending) {
          keys[i] = second;
          keys[partner] = first;
        }
      }
    }
  }
  sync_block();
  for (int i = thread; i < a.k; i += kThreads) {
    const bool finite = i < padded && keys[i] != kNever;
    a.elites[problem * a.k + i] = finite ? static_cast<std::int32_t>(keys[i] & 0xffffffffu) : -1;
    const bool last = finite && (i + 1 == a.k || i + 1 == padded || keys[i + 1] == kNever);
    if (last) a.found[problem] = i + 1;
    if (i == 0 && !finite) a.found[problem] = 0;
  }
}

// A block a problem, a thread an element; the sums run over the elites in the order of their index, in double.
__global__ void __launch_bounds__(kThreads) refit_normal_kernel(const RefitNormal a) {
  LEWM_SHARED(shared);
  auto* order = reinterpret_cast<std::int32_t*>(shared);  // [k], ascending
  const int problem = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  if (a.found[problem] < a.k) return;  // the whole block leaves
  const std::int32_t* elites = a.elites + std::int64_t{problem} * a.k;
  for (int i = thread; i < a.k; i += kThreads) {
    int rank = 0;
    for (int j = 0; j < a.k; ++j) rank += elites[j] < elites[i];
    order[rank] = elites[i];
  }
  sync_block();

  const float* candidates = a.candidates + std::int64_t{problem} * a.samples * a.elements;
  const double keep = a.momentum;
  for (int e = thread; e < a.elements; e += kThreads) {
    double sum = 0;
    for (int i = 0; i < a.k; ++i) sum += static_cast<double>(candidates[std::int64_t{order[i]} * a.elements + e]);
    const double elite_mean = sum / a.k;
    double squares = 0;
    for (int i = 0; i < a.k; ++i) {
      const double value = static_cast<double>(candidates[std::int64_t{order[i]} * a.elements + e]);
      const double deviation = static_cast<double>(static_cast<float>(value - elite_mean));
      squares += deviation * deviation;  // exact product: fusing it changes nothing
    }
    const double elite_std = a.k > 1 ? sqrt(squares / (a.k - 1)) : 0.0;
    float& mean = a.mean[problem * a.elements + e];
    float& std = a.std[problem * a.elements + e];
    mean = clip(static_cast<float>(fma(keep, static_cast<double>(mean) - elite_mean, elite_mean)), a.low, a.high, e);
    std = fmaxf(static_cast<float>(fma(keep, static_cast<double>(std) - elite_std, elite_std)), a.std_min);
  }
}

}  // namespace

void launch_sample(const Sample& args, cudaStream_t stream) {
  const std::int64_t quads = std::int64_t{args.problems} * args.samples * ((args.elements + 3) / 4);
  LEWM_LAUNCH(sample_kernel, dim3(blocks_for(quads, kThreads)), dim3(kThreads), 0, stream, args);
}

void launch_squared_distance(const SquaredDistance& args, cudaStream_t stream) {
  const unsigned blocks = blocks_for(std::int64_t{args.problems} * args.samples, kThreads / kWarp);
  LEWM_LAUNCH(squared_distance_kernel, dim3(blocks), dim3(kThreads), 0, stream, args);
}

void launch_select_elites(const SelectElites& args, cudaStream_t stream) {
  int padded = 2;
  while (padded < args.samples) padded *= 2;
  const std::size_t bytes = static_cast<std::size_t>(padded) * sizeof(std::uint64_t);
#ifndef LEWM_CUDA_HOST_RUN
  if (bytes > 48 * 1024) {
    cudaFuncSetAttribute(select_elites_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  }
#endif
  LEWM_LAUNCH(select_elites_kernel, dim3(static_cast<unsigned>(args.problems)), dim3(kThreads), bytes, stream, args,
              padded);
}

void launch_refit_normal(const RefitNormal& args, cudaStream_t stream) {
  LEWM_LAUNCH(refit_normal_kernel, dim3(static_cast<unsigned>(args.problems)), dim3(kThreads),
              static_cast<std::size_t>(args.k) * sizeof(std::int32_t), stream, args);
}

}  // namespace lewm::cuda
