// A CPU that behaves like a GPU, for tests: kernels compile unchanged, every block runs with one fiber per thread.
//
// It is adversarial. Threads and blocks run forward, backward or shuffled; shared memory starts as NaN; data of an
// asynchronous copy arrives only at the wait, and its destination is poison until then; and what hardware leaves
// undefined is an error here: barriers that not all threads reach, collectives that lanes call apart, misaligned
// 16-byte accesses, ragged fragments. Out-of-bounds accesses are left to AddressSanitizer: global and shared memory are
// exact heap allocations.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>

#include "host_runtime.h"

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Of the fiber that is running.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

inline float __uint_as_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline std::uint32_t __float_as_uint(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

namespace lewm::cuda::host {

// A kernel did what hardware leaves undefined.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};
[[noreturn]] void fault(const std::string& what);

enum class Order { forward, backward, shuffled };
struct Schedule {
  Order threads = Order::forward;
  Order blocks = Order::forward;
  std::uint32_t seed = 0;
};
Schedule& schedule();

// Remembers that a kernel is on the current device, and how much shared memory it may have.
void loaded(const void* kernel, std::size_t shared_bytes);

// Runs a grid to its end. Throws Fault.
void launch(const char* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body);
// The same when the stream's turn has come. Throws at once where `address` has not been loaded and a graph is captured,
// or where more than 48 KiB of shared memory have not been asked for.
void enqueue_launch(cudaStream_t stream, const char* kernel, const void* address, dim3 grid, dim3 block,
                    std::size_t shared_bytes, std::function<void()> body);

unsigned char* shared_memory();
std::size_t shared_bytes();

void check_aligned(const void* pointer, std::size_t alignment, const char* what);
void check_shared(const void* pointer, std::size_t bytes, const char* what);

// All lanes of the warp meet here with `bytes` of input each; the last one runs `combine` over the 32 inputs and fills
// the 32 outputs. `what` must be the same for all.
using Combine = void (*)(const void* const inputs[32], void* const outputs[32]);
void warp_collective(const char* what, const void* input, std::size_t bytes, void* output, Combine combine);

}  // namespace lewm::cuda::host

#define LEWM_SHARED(name) unsigned char* const name = ::lewm::cuda::host::shared_memory()
#define LEWM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                               \
  (::lewm::cuda::host::enqueue_launch((stream), #kernel, reinterpret_cast<const void*>(&kernel), (grid), (block), \
                                      (shared_bytes), [=] { kernel(__VA_ARGS__); }),                              \
   ::lewm::cuda::check(cudaGetLastError(), "launching " #kernel))

namespace lewm::cuda {

template <class Kernel>
void load_kernel(Kernel* kernel, std::size_t shared_bytes = 0) {
  host::loaded(reinterpret_cast<const void*>(kernel), shared_bytes);
}

struct alignas(16) Bytes16 {
  std::uint32_t word[4];
};
inline Bytes16 load16(const void* from) {
  host::check_aligned(from, 16, "load16");
  Bytes16 value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
inline void store16(void* to, const Bytes16& value) {
  host::check_aligned(to, 16, "store16");
  std::memcpy(to, &value, sizeof value);
}
struct alignas(8) Bytes8 {
  std::uint32_t word[2];
};
inline void store8(void* to, const Bytes8& value) {
  host::check_aligned(to, 8, "store8");
  std::memcpy(to, &value, sizeof value);
}
inline void store4(std::uint16_t* to, std::uint32_t value) {
  host::check_aligned(to, 4, "store4");
  std::memcpy(to, &value, sizeof value);
}

void sync_block();
void sync_warp();

namespace host {
template <class T>
struct ShuffleArgument {
  T value;
  int source;
};
template <class T>
void combine_shuffle(const void* const inputs[32], void* const outputs[32]) {
  for (int lane = 0; lane < 32; ++lane) {
    const int source = static_cast<const ShuffleArgument<T>*>(inputs[lane])->source;
    if (source < 0 || source > 31) fault("shuffle: lane " + std::to_string(source));
    *static_cast<T*>(outputs[lane]) = static_cast<const ShuffleArgument<T>*>(inputs[source])->value;
  }
}
int lane();
}  // namespace host

template <class T>
T shuffle(T value, int lane) {
  const host::ShuffleArgument<T> input{value, lane};
  T output;
  host::warp_collective("shuffle", &input, sizeof input, &output, host::combine_shuffle<T>);
  return output;
}
template <class T>
T shuffle_xor(T value, int lane_mask) {
  const host::ShuffleArgument<T> input{value, host::lane() ^ lane_mask};
  T output;
  host::warp_collective("shuffle_xor", &input, sizeof input, &output, host::combine_shuffle<T>);
  return output;
}
std::uint32_t ballot(bool vote);

void cp_async16(void* shared, const void* global, int valid);
void cp_async_commit();
void cp_async_wait_for(int pending);
template <int pending>
void cp_async_wait() {
  cp_async_wait_for(pending);
}
void ldmatrix_x4(std::uint32_t (&r)[4], const void* row);
void ldmatrix_x4_transposed(std::uint32_t (&r)[4], const void* row);
std::uint32_t pack_bf16(float low, float high);
inline float exp2_approx(float x) { return std::exp2(x); }
inline float reciprocal_approx(float x) { return 1.0f / x; }
void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1);

}  // namespace lewm::cuda
