// The Python extension: checks shapes, releases the GIL, calls the core. It computes nothing itself.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "core/error.h"
#include "core/thread_pool.h"
#include "core/types.h"
#include "model/model.h"

namespace lewm::python {

namespace nb = nanobind;

// What lewm's Python modules pass: contiguous arrays on the CPU, results as arrays to fill.
template <class T>
using Input = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T>
using Output = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

// A thread that takes the GIL when the interpreter has ended is unwound (Python < 3.14), which no frame here survives:
// it waits for the end of the process instead.
template <class Take>
auto take_gil(const Take& take) noexcept {
  try {
    return take();
  } catch (...) {
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
  }
}

// nanobind's gil_scoped_release and gil_scoped_acquire for threads that may outlive the interpreter.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) {}
  ~ReleasedGil() {
    take_gil([this] { PyEval_RestoreThread(state_); });
  }
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;

 private:
  PyThreadState* state_;
};

class AcquiredGil {
 public:
  AcquiredGil() : state_(take_gil([] { return PyGILState_Ensure(); })) {}
  ~AcquiredGil() { PyGILState_Release(state_); }
  AcquiredGil(const AcquiredGil&) = delete;
  AcquiredGil& operator=(const AcquiredGil&) = delete;

 private:
  PyGILState_STATE state_;
};

// Threads and the right to use them: whoever computes holds the mutex. Taken after the GIL is released, never before.
struct Workers {
  explicit Workers(int threads) : pool(threads) {}
  ThreadPool pool;
  std::mutex mutex;

  // `work(seconds that it waited for others)` without the GIL.
  template <class Work>
  void run(const Work& work) {
    const ReleasedGil released;
    const auto asked = std::chrono::steady_clock::now();
    const std::lock_guard lock(mutex);
    work(std::chrono::duration<double>(std::chrono::steady_clock::now() - asked).count());
  }
};

// Throws Error(invalid_argument) unless the array has this shape.
template <class Array>
void check_shape(const char* name, const Array& array, std::initializer_list<std::int64_t> shape) {
  bool equal = array.ndim() == shape.size();
  std::size_t axis = 0;
  std::string expected, got;
  for (const std::int64_t size : shape) {
    equal = equal && static_cast<std::int64_t>(array.shape(axis++)) == size;
    expected += (expected.empty() ? "" : ", ") + std::to_string(size);
  }
  if (equal) return;
  for (std::size_t i = 0; i < array.ndim(); ++i) got += (i ? ", " : "") + std::to_string(array.shape(i));
  throw Error(Status::invalid_argument, std::string(name) + ": expected (" + expected + "), got (" + got + ")");
}

// Throws Error(invalid_argument) unless the array has this many dimensions.
template <class Array>
void check_rank(const char* name, const Array& array, std::size_t rank) {
  if (array.ndim() == rank) return;
  throw Error(Status::invalid_argument, std::string(name) + ": expected " + std::to_string(rank) + " dimensions, got " +
                                            std::to_string(array.ndim()));
}

template <class Array>
std::int64_t size_of(const Array& array, std::size_t axis) {
  return static_cast<std::int64_t>(array.shape(axis));
}

// "fp32", "bf16", "int8"; "scalar", "avx2", ... ("" is the active one). Throw Error(invalid_argument).
Precision precision_from_name(std::string_view name);
const char* precision_name(Precision precision);
cpu::Isa isa_from_name(std::string_view name);

void bind_build(nb::module_& module);
void bind_model(nb::module_& module);
void bind_planner(nb::module_& module);
void bind_peak(nb::module_& module);
void bind_sigreg(nb::module_& module);
void bind_cuda_sigreg(nb::module_& module);

}  // namespace lewm::python
