// A stand-in for the CUDA runtime, for tests: it records what an engine asks for and executes it as late, or in as
// unexpected an order, as the streams' dependencies allow (host_cuda.h's Schedule chooses).
//
// Device memory is heap memory full of NaN that AddressSanitizer forbids to touch outside of operations; the target of
// a copy to the host is garbage until the copy's turn; what must not happen while a graph is captured is an error; so
// is a stream, kernel or memory of another device than the current one. A failed call's error, "not ready" too, stays
// for cudaGetLastError() as CUDA's does.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "faults.h"

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorNotReady = 600
};
enum cudaMemcpyKind { cudaMemcpyDefault = 4 };
enum cudaMemoryType { cudaMemoryTypeUnregistered = 0, cudaMemoryTypeDevice = 2, cudaMemoryTypeManaged = 3 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76 };
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;

struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};

namespace lewm::cuda::host {
struct HostStream;
struct HostEvent;
struct HostGraph;
}  // namespace lewm::cuda::host
using cudaStream_t = lewm::cuda::host::HostStream*;  // null, or CUDA's 1 and 2: everything before, and this at once
using cudaEvent_t = lewm::cuda::host::HostEvent*;
using cudaGraph_t = lewm::cuda::host::HostGraph*;
using cudaGraphExec_t = lewm::cuda::host::HostGraph*;

const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaMalloc(void** pointer, std::size_t bytes);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);

namespace lewm::cuda::host {

// Appends an operation to a stream, or to the graph that the stream captures.
void enqueue(cudaStream_t stream, std::function<void()> operation);

// What has been asked for since the last reset.
struct Counts {
  int kernels = 0;     // launched or captured
  int graphs = 0;      // launched
  int operations = 0;  // of streams, executed: kernels, copies and fills
  int synchronisations = 0;
};
Counts& counts();

// What the machine is like: cudaMalloc refuses allocations of more bytes; how many GPUs there are, and of what kind.
struct Device {
  std::size_t most_bytes = ~std::size_t{0};
  int count = 1;
  int capability = 8;
};
Device& device();
int current_device();

// Whether a graph is captured from the stream; throws where any is.
bool captures(cudaStream_t stream);
void refuse_in_capture(const char* what);

}  // namespace lewm::cuda::host
