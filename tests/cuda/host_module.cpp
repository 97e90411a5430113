// What a module of the host run offers beside its table: device memory and streams for tests outside of it.
#include <vector>

#include "host_runtime.h"

#define LEWM_EXPORT extern "C" __attribute__((visibility("default")))

namespace lewm::cuda {
struct Table;
}
extern "C" const lewm::cuda::Table* lewm_cuda_table();

LEWM_EXPORT void* lewm_host_malloc(std::size_t bytes) {
  void* pointer = nullptr;
  return cudaMalloc(&pointer, bytes) == cudaSuccess ? pointer : nullptr;
}
LEWM_EXPORT void lewm_host_free(void* pointer) { cudaFree(pointer); }

// A stream that lives as long as the module.
LEWM_EXPORT void* lewm_host_stream() {
  struct Streams {
    std::vector<cudaStream_t> made;
    ~Streams() {
      for (cudaStream_t stream : made) cudaStreamDestroy(stream);
    }
  };
  static Streams streams;
  cudaStream_t stream = nullptr;
  if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess) streams.made.push_back(stream);
  return stream;
}

// Copies on a stream; `wait`: until it has happened.
LEWM_EXPORT void lewm_host_copy(void* to, const void* from, std::size_t bytes, void* stream, int wait) {
  const auto on = static_cast<cudaStream_t>(stream);
  cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, on);
  if (wait) cudaStreamSynchronize(on);
}

// How many GPUs the machine has.
LEWM_EXPORT void lewm_host_devices(int count) { lewm::cuda::host::device().count = count; }
LEWM_EXPORT void lewm_host_use(int device) { cudaSetDevice(device); }
// Launches of graphs, and waits, since the last call.
LEWM_EXPORT void lewm_host_counts(int* graphs, int* synchronisations) {
  auto& counts = lewm::cuda::host::counts();
  *graphs = counts.graphs;
  *synchronisations = counts.synchronisations;
  counts = {};
}
