// The device memory and streams of the module that the library has loaded (host_module.cpp).
#pragma once

#include <dlfcn.h>

#include <cstdlib>
#include <stdexcept>
#include <vector>

namespace device_session {

struct Module {
  Module() : library(dlopen(std::getenv("LEWM_CUDA_MODULE"), RTLD_NOW | RTLD_LOCAL)) {
    if (!library) throw std::runtime_error("LEWM_CUDA_MODULE: expected the module of the host run");
    get("lewm_host_malloc", malloc);
    get("lewm_host_free", free);
    get("lewm_host_stream", stream);
    get("lewm_host_copy", copy);
    get("lewm_host_devices", devices);
    get("lewm_host_use", use);
    get("lewm_host_counts", counts);
  }
  template <class Function>
  void get(const char* name, Function*& function) {
    function = reinterpret_cast<Function*>(dlsym(library, name));
    if (!function) throw std::runtime_error(name);
  }
  void* library;
  void* (*malloc)(std::size_t);
  void (*free)(void*);
  void* (*stream)();
  void (*copy)(void* to, const void* from, std::size_t bytes, void* stream, int wait);
  void (*devices)(int);
  void (*use)(int);
  void (*counts)(int* graphs, int* synchronisations);
};

inline const Module& module() {
  static const Module loaded;
  return loaded;
}

// Numbers in device memory.
template <class T>
class Array {
 public:
  explicit Array(std::size_t n) : n_(n), data_(static_cast<T*>(module().malloc(n * sizeof(T)))) {}
  // Arrives when `stream` comes to it; `values` live until then.
  Array(const std::vector<T>& values, void* stream) : Array(values.size()) {
    module().copy(data_, values.data(), n_ * sizeof(T), stream, 0);
  }
  ~Array() { module().free(data_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  T* data() const { return data_; }
  std::size_t size() const { return n_; }
  std::vector<T> fetch(void* stream) const {
    std::vector<T> values(n_);
    module().copy(values.data(), data_, n_ * sizeof(T), stream, 1);
    return values;
  }

 private:
  std::size_t n_;
  T* data_;
};

}  // namespace device_session
