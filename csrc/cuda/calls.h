// What calls need around their kernels: an order, and the caller's arrays where the device can read them.
#pragma once

#include <initializer_list>

#include "cuda/runtime.h"

namespace lewm::cuda {

// The order of an engine's calls: each waits for the one before, whatever streams they came on, because they share the
// engine's memory.
class Turn {
 public:
  explicit Turn(int device) : device_(device) {}

  // The stream to work on: `stream`, or the engine's own where that is null. arrays: the caller's, null ones left out.
  cudaStream_t begin(cudaStream_t stream, std::initializer_list<const void*> arrays) {
    waits_ = !stream;
    for (const void* array : arrays) waits_ = waits_ || (array && !on_device(array, device_));
    if (!stream) stream = own_;
    if (!LEWM_FAULT(kMissingDependency)) done_.hold(stream);
    return stream;
  }
  // Returns when everything has happened; with a stream of the caller's and arrays in device memory alone, at once.
  void end(cudaStream_t stream) {
    done_.record(stream);
    if (waits_) synchronise(stream);
  }
  void end_and_wait(cudaStream_t stream) {
    waits_ = true;
    end(stream);
  }
  cudaStream_t own() const { return own_; }

 private:
  const int device_;
  bool waits_ = true;
  Stream own_;
  Event done_;
};

// Device memory that grows when asked for more.
template <class T>
class Growing {
 public:
  explicit Growing(int device) : device_(device) {}

  // Room for `count` numbers; what it held is lost. Waits for `stream`, which may still read it, before it grows.
  T* reserve(std::int64_t count, cudaStream_t stream) {
    if (count > capacity_) {
      synchronise(stream);
      capacity_ = 0;
      buffer_ = Buffer<T>();
      buffer_ = Buffer<T>(count);
      capacity_ = count;
    }
    return buffer_.get();
  }
  // An array of the caller's: itself where it lies in device memory, else a copy.
  const T* input(const T* values, std::int64_t count, cudaStream_t stream) {
    if (on_device(values, device_)) return values;
    T* here = reserve(count, stream);
    copy(here, values, count, stream);
    return here;
  }
  // Where a result of the caller's is made: in place if that is device memory, else here ...
  T* output(T* values, std::int64_t count, cudaStream_t stream) {
    return on_device(values, device_) ? values : reserve(count, stream);
  }
  // ... from where it is then fetched.
  void deliver(T* values, std::int64_t count, cudaStream_t stream) const {
    if (!on_device(values, device_)) copy<T>(values, buffer_.get(), count, stream);
  }

 private:
  const int device_;
  Buffer<T> buffer_;
  std::int64_t capacity_ = 0;
};

}  // namespace lewm::cuda
