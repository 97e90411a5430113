#include "host_runtime.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "host_cuda.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

namespace lewm::cuda::host {

struct HostEvent {
  int recorded = 0;  // how often a stream was asked to record it
  int reached = 0;   // which of those have come to pass
};

// Either work, or something about an event.
struct Operation {
  std::function<void()> work;
  std::shared_ptr<HostEvent> record, wait;
  int version = 0;
};

struct HostGraph {
  std::vector<std::function<void()>> operations;
};

struct HostStream {
  int device = 0;
  std::deque<Operation> queue;
  bool capturing = false;
  std::vector<std::function<void()>> captured;
};

namespace {

struct Allocation {
  std::size_t bytes;
  int device;
};
std::map<const unsigned char*, Allocation> allocations;
std::vector<HostStream*> streams;
std::map<HostEvent*, std::shared_ptr<HostEvent>> events;
std::mt19937 random_order(1);
bool operating = false;
int current = 0;  // device
cudaError_t last_error = cudaSuccess;

cudaError_t failed(cudaError_t error) { return last_error = error; }

// Null for the default stream under all of its names.
HostStream* queued(cudaStream_t stream) { return reinterpret_cast<std::uintptr_t>(stream) <= 2 ? nullptr : stream; }

HostStream* checked(cudaStream_t stream, const char* what) {
  HostStream* found = queued(stream);
  if (found && found->device != current) fault(std::string(what) + ": a stream of another device");
  return found;
}

void forbid_device_memory() {
  for (const auto& [data, allocation] : allocations) ASAN_POISON_MEMORY_REGION(data, allocation.bytes);
}
void allow_device_memory() {
  for (const auto& [data, allocation] : allocations) ASAN_UNPOISON_MEMORY_REGION(data, allocation.bytes);
}

void operate(const std::function<void()>& work) {
  struct Guard {
    Guard() {
      allow_device_memory();
      operating = true;
    }
    ~Guard() {
      forbid_device_memory();
      operating = false;
    }
  } guard;
  work();
}

bool can_run(const HostStream& stream) {
  if (stream.queue.empty()) return false;
  const Operation& next = stream.queue.front();
  return !next.wait || next.wait->reached >= next.version;
}

void run_next(HostStream& stream) {
  const Operation next = std::move(stream.queue.front());
  stream.queue.pop_front();
  if (next.record) next.record->reached = next.version;
  if (!next.work) return;
  ++counts().operations;
  operate(next.work);
}

// Runs one operation somewhere: of `wanted` first and of the others when it waits for them, or the other way round, or
// at random. False: nothing can run.
bool advance(HostStream* wanted) {
  std::vector<HostStream*> ready;
  for (HostStream* stream : streams) {
    if (stream != wanted && can_run(*stream)) ready.push_back(stream);
  }
  if (wanted && can_run(*wanted)) {
    ready.insert(schedule().threads == Order::forward ? ready.begin() : ready.end(), wanted);
  }
  if (ready.empty()) return false;
  const std::size_t chosen = schedule().threads == Order::shuffled ? random_order() % ready.size() : 0;
  run_next(*ready[chosen]);
  return true;
}

void drain(HostStream* stream) {
  while (!stream->queue.empty()) {
    if (!advance(stream)) fault("a stream waits for an event that will never come");
  }
}

void drain_all() {
  for (HostStream* stream : streams) drain(stream);
}

const Allocation* allocation_of(const void* pointer) {
  const auto* p = static_cast<const unsigned char*>(pointer);
  auto after = allocations.upper_bound(p);
  if (after == allocations.begin()) return nullptr;
  --after;
  return p < after->first + after->second.bytes ? &after->second : nullptr;
}

}  // namespace

int current_device() { return current; }

bool captures(cudaStream_t stream) { return queued(stream) && stream->capturing; }

void refuse_in_capture(const char* what) {
  for (const HostStream* stream : streams) {
    if (stream->capturing) fault(std::string(what) + " while a graph is captured");
  }
}

Counts& counts() {
  static Counts all;
  return all;
}

Device& device() {
  static Device settings;
  return settings;
}

PlantedFault planted_fault() {
  static const PlantedFault planted = [] {
    const char* name = std::getenv("LEWM_CUDA_FAULT");
    if (!name) return PlantedFault::none;
#define LEWM_MATCH(fault_name) \
  if (!std::strcmp(name, #fault_name)) return PlantedFault::fault_name;
    LEWM_CUDA_FAULTS(LEWM_MATCH)
#undef LEWM_MATCH
    std::fprintf(stderr, "LEWM_CUDA_FAULT: no fault %s\n", name);
    std::exit(0);  // tests of faults expect a failure: this is none
  }();
  return planted;
}

void enqueue(cudaStream_t stream, std::function<void()> operation) {
  if (operating) fault("a launch inside of an operation");
  stream = checked(stream, "a launch or copy");
  if (!stream) {
    refuse_in_capture("work on the default stream");
    drain_all();
    operate(operation);
  } else if (stream->capturing) {
    stream->captured.push_back(std::move(operation));
  } else {
    stream->queue.push_back({std::move(operation), nullptr, nullptr, 0});
  }
}

}  // namespace lewm::cuda::host

using namespace lewm::cuda::host;

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    default:
      return "an error of the host run";
  }
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = device().count;
  return device().count ? cudaSuccess : failed(cudaErrorNoDevice);
}
cudaError_t cudaGetDevice(int* device_index) {
  *device_index = current;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device_index) {
  if (device_index < 0 || device_index >= device().count) return failed(cudaErrorInvalidDevice);
  current = device_index;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device_index) {
  if (device_index < 0 || device_index >= device().count) return failed(cudaErrorInvalidDevice);
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? device().capability : 0;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  refuse_in_capture("cudaMalloc");
  if (bytes > device().most_bytes) return failed(cudaErrorMemoryAllocation);
  void* data = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (!data) return failed(cudaErrorMemoryAllocation);
  std::memset(data, 0xff, bytes);
  ASAN_POISON_MEMORY_REGION(data, (bytes + 255) / 256 * 256);  // and what alignment adds stays forbidden
  allocations[static_cast<unsigned char*>(data)] = {bytes, current};
  *pointer = data;
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  refuse_in_capture("cudaFree");
  drain_all();
  const auto found = allocations.find(static_cast<unsigned char*>(pointer));
  if (found == allocations.end()) fault("cudaFree: not an allocation");
  if (found->second.device != current) fault("cudaFree: memory of another device");
  ASAN_UNPOISON_MEMORY_REGION(pointer, (found->second.bytes + 255) / 256 * 256);
  allocations.erase(found);
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  const Allocation* found = allocation_of(pointer);
  *attributes = {found ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered, found ? found->device : -1};
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind, cudaStream_t stream) {
  const bool to_host = !allocation_of(to), from_host = !allocation_of(from);
  if (captures(stream) && (to_host || from_host)) fault("a copy of pageable memory inside of a graph");
  auto* out = static_cast<unsigned char*>(to);
  const auto* in = static_cast<const unsigned char*>(from);
  if (to_host && to != from) {
    for (std::size_t row = 0; row < height; ++row) std::memset(out + row * to_pitch, 0xff, width);
  }
  enqueue(stream, [=] {
    for (std::size_t row = 0; row < height; ++row) std::memcpy(out + row * to_pitch, in + row * from_pitch, width);
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t stream) {
  enqueue(stream, [=] { std::memset(pointer, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new HostStream;
  (*stream)->device = current;
  streams.push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  checked(stream, "cudaStreamDestroy");
  drain(stream);
  std::erase(streams, stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  refuse_in_capture("cudaStreamSynchronize");
  ++counts().synchronisations;
  if (HostStream* const found = checked(stream, "cudaStreamSynchronize")) {
    drain(found);
  } else {
    drain_all();
  }
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  stream = checked(stream, "cudaStreamWaitEvent");
  if (!stream) {
    drain_all();
    return cudaSuccess;
  }
  if (stream->capturing) fault("cudaStreamWaitEvent while a graph is captured");
  stream->queue.push_back({nullptr, nullptr, events.at(event), event->recorded});
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  refuse_in_capture("cudaStreamBeginCapture");
  if (!checked(stream, "cudaStreamBeginCapture")) fault("cudaStreamBeginCapture: the default stream");
  stream->capturing = true;
  stream->captured.clear();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!stream->capturing) fault("cudaStreamEndCapture: no graph is captured");
  stream->capturing = false;
  *graph = new HostGraph{std::move(stream->captured)};
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new HostGraph(*graph);
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  ++counts().graphs;
  for (const auto& operation : executable->operations) enqueue(stream, operation);
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  const auto made = std::make_shared<HostEvent>();
  events[made.get()] = made;
  *event = made.get();
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  events.erase(event);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  stream = checked(stream, "cudaEventRecord");
  if (!stream) {
    drain_all();
    event->reached = ++event->recorded;
    return cudaSuccess;
  }
  if (stream->capturing) fault("cudaEventRecord while a graph is captured");
  stream->queue.push_back({nullptr, events.at(event), nullptr, ++event->recorded});
  return cudaSuccess;
}

// Time passes while somebody polls: one operation.
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (event->reached == event->recorded) return cudaSuccess;
  if (!advance(nullptr)) fault("an event that will never come");
  return failed(cudaErrorNotReady);
}
