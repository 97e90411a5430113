// What kernel sources may use: CUDA itself, the PTX wrappers, or - in the tests - a CPU that behaves like a GPU.
//
// The same .cu files are compiled twice: by nvcc, and by the host compiler with LEWM_CUDA_HOST_RUN, where every thread
// of a block is a fiber and the wrappers below check what hardware would silently accept. To keep that possible,
// kernels
//   - take shared memory from LEWM_SHARED only (dynamic, sized at launch),
//   - move more than an element at once only through load16/store16, store8, store4 and cp_async16,
//   - use warp collectives and tensor cores only through the functions named here,
//   - are loaded with load_kernel() when a model is made (kernels.h), and launched with LEWM_LAUNCH.
#pragma once

#include <cstdint>

#include "cuda/kernels.h"
#include "cuda/runtime.h"

#ifdef LEWM_CUDA_HOST_RUN
#include "host_cuda.h"
#else
#include <cuda_runtime.h>

#include "cuda/ptx.cuh"

// The block's dynamic shared memory, 128-byte aligned.
#define LEWM_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#define LEWM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)    \
  (kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__), \
   ::lewm::cuda::check(cudaGetLastError(), "launching " #kernel))

namespace lewm::cuda {

// Brings a kernel to the current device, which CUDA does at its first launch otherwise: that may be while a graph is
// captured, where nothing may be loaded. `shared_bytes`: the most that it is launched with, beyond the 48 KiB that
// every kernel may have.
template <class Kernel>
void load_kernel(Kernel* kernel, std::size_t shared_bytes = 0) {
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, kernel), "loading a kernel");
  if (shared_bytes <= 48 * 1024) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
        "shared memory of a kernel");
}

struct alignas(16) Bytes16 {
  std::uint32_t word[4];
};
__device__ __forceinline__ Bytes16 load16(const void* from) { return *static_cast<const Bytes16*>(from); }
__device__ __forceinline__ void store16(void* to, const Bytes16& value) { *static_cast<Bytes16*>(to) = value; }
struct alignas(8) Bytes8 {
  std::uint32_t word[2];
};
__device__ __forceinline__ void store8(void* to, const Bytes8& value) { *static_cast<Bytes8*>(to) = value; }
__device__ __forceinline__ void store4(std::uint16_t* to, std::uint32_t value) {
  *reinterpret_cast<std::uint32_t*>(to) = value;
}

__device__ __forceinline__ void sync_block() { __syncthreads(); }
__device__ __forceinline__ void sync_warp() { __syncwarp(); }
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int lane_mask) {
  return __shfl_xor_sync(0xffffffffu, value, lane_mask);
}
template <class T>
__device__ __forceinline__ T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
__device__ __forceinline__ std::uint32_t ballot(bool vote) { return __ballot_sync(0xffffffffu, vote); }

}  // namespace lewm::cuda
#endif

#ifdef __CUDACC__
#define LEWM_UNROLL _Pragma("unroll")
#else
#define LEWM_UNROLL
#endif

namespace lewm::cuda {

constexpr int kWarp = 32;
constexpr float kLog2E = 1.44269504f;

__device__ __forceinline__ float bf16_to_float(std::uint16_t bits) {
  return __uint_as_float(std::uint32_t{bits} << 16);
}

// Round to nearest even; NaN stays NaN.
__device__ __forceinline__ std::uint16_t float_to_bf16(float value) {
  const std::uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// x times the normal distribution function, by Abramowitz and Stegun 7.1.26: within 1e-7 |x|.
__device__ __forceinline__ float gelu(float x) {
  const float size = fabsf(x);
  const float t = reciprocal_approx(fmaf(0.3275911f * 0.70710678f, size, 1.0f));
  float tail = fmaf(t, 1.061405429f, -1.453152027f);
  tail = fmaf(t, tail, 1.421413741f);
  tail = fmaf(t, tail, -0.284496736f);
  tail = fmaf(t, tail, 0.254829592f) * t;
  tail *= exp2_approx(-0.5f * kLog2E * x * x);  // erfc(|x| / sqrt 2)
  return fmaxf(x, 0.0f) - 0.5f * size * tail;
}
__device__ __forceinline__ float silu(float x) { return x * reciprocal_approx(1.0f + exp2_approx(-kLog2E * x)); }

// Sums and maxima over a warp, in an order that does not depend on the launch; every lane gets the result.
__device__ __forceinline__ float warp_sum(float value) {
  for (int mask = kWarp / (LEWM_FAULT(kShuffleMask) ? 4 : 2); mask; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
__device__ __forceinline__ float warp_max(float value) {
  for (int mask = kWarp / 2; mask; mask /= 2) value = fmaxf(value, shuffle_xor(value, mask));
  return value;
}

}  // namespace lewm::cuda
