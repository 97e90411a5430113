// Owners of what the CUDA runtime hands out. Everything throws Error: out_of_memory where memory ran out, else
// unsupported with CUDA's own words.
#pragma once

#include <cstdint>
#include <new>
#include <string>
#include <utility>

#include "core/error.h"
#include "cuda/api.h"

namespace lewm::cuda {

// A failed call also leaves its error behind for cudaGetLastError(), where the next launch would find it: forget it.
inline void forget_error() { cudaGetLastError(); }

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  forget_error();
  const Status status = error == cudaErrorMemoryAllocation ? Status::out_of_memory : Status::unsupported;
  throw Error(status, std::string("CUDA: ") + what + ": " + cudaGetErrorString(error));
}

// Makes `device` the calling thread's for a scope: handles remember their device, threads come as they are.
class OnDevice {
 public:
  explicit OnDevice(int device) : device_(device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (before_ != device_) check(cudaSetDevice(device_), "cudaSetDevice");
  }
  // Of destructors, which also run when the driver has gone or a kernel has broken the device.
  OnDevice(int device, std::nothrow_t) noexcept : device_(device) {
    if (cudaGetDevice(&before_) != cudaSuccess) before_ = device_;
    if (before_ != device_) cudaSetDevice(device_);
  }
  ~OnDevice() {
    if (before_ != device_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  const int device_;
  int before_ = 0;
};

// `count` elements in device memory, uninitialised.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::int64_t count) {
    if (count == 0) return;
    void* data = nullptr;
    check(cudaMalloc(&data, static_cast<std::size_t>(count) * sizeof(T)), "device memory");
    data_ = static_cast<T*>(data);
  }
  ~Buffer() {
    if (data_) cudaFree(data_);
  }
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }

  T* get() const { return data_; }

 private:
  T* data_ = nullptr;
};

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  // What `stream` gets from now on waits for what was recorded; nothing recorded: at once.
  void hold(cudaStream_t stream) const { check(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent"); }
  bool reached() const {
    const cudaError_t state = cudaEventQuery(event_);
    if (state == cudaErrorNotReady) {
      if (!LEWM_FAULT(kErrorLeftBehind)) forget_error();
      return false;
    }
    check(state, "a kernel");
    return true;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// What a function enqueues, recorded once and launched at will.
class Graph {
 public:
  Graph() = default;
  template <class Enqueue>
  Graph(cudaStream_t stream, const Enqueue& enqueue) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    try {
      enqueue(stream);
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      forget_error();
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    const cudaError_t made = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check(made, "cudaGraphInstantiate");
  }
  ~Graph() {
    if (executable_) cudaGraphExecDestroy(executable_);
  }
  Graph(Graph&& other) noexcept : executable_(std::exchange(other.executable_, nullptr)) {}
  Graph& operator=(Graph&& other) noexcept {
    std::swap(executable_, other.executable_);
    return *this;
  }

  void launch(cudaStream_t stream) const { check(cudaGraphLaunch(executable_, stream), "cudaGraphLaunch"); }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

// Between host and device, whichever side each pointer is on.
template <class T>
void copy(T* to, const T* from, std::int64_t count, cudaStream_t stream) {
  check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(count) * sizeof(T), cudaMemcpyDefault, stream),
        "cudaMemcpyAsync");
}

inline void synchronise(cudaStream_t stream) { check(cudaStreamSynchronize(stream), "a kernel"); }

// Whether a pointer is to be followed on `device` alone. Throws Error(invalid_argument) for another device's memory.
inline bool on_device(const void* pointer, int device) {
  cudaPointerAttributes attributes{};
  if (cudaPointerGetAttributes(&attributes, pointer) != cudaSuccess) {
    forget_error();  // an address that CUDA does not know is the host's
    return false;
  }
  if (attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged) return false;
  if (attributes.type == cudaMemoryTypeDevice && attributes.device != device) {
    throw Error(Status::invalid_argument, "expected host memory or that of GPU " + std::to_string(device) +
                                              ", where the model is, got memory of GPU " +
                                              std::to_string(attributes.device));
  }
  return true;
}

}  // namespace lewm::cuda
