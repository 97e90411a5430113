#include "plan/device_module.h"

#include <cstdlib>
#include <filesystem>

#ifndef _WIN32
#include <dlfcn.h>
#endif

namespace lewm {
namespace {

constexpr const char* kFileName = "liblewm_cuda.so";

// Beside the library that this function is in, or - seen from the Python extension - in lib/ beside it.
std::string default_path() {
  if (const char* chosen = std::getenv("LEWM_CUDA_MODULE"); chosen && *chosen) return chosen;
  std::filesystem::path folder = ".";
#ifndef _WIN32
  Dl_info here{};
  if (dladdr(reinterpret_cast<void*>(&load_device_module), &here) && here.dli_fname) {
    folder = std::filesystem::absolute(here.dli_fname).parent_path();
  }
#endif
  std::error_code ignored;
  const std::filesystem::path in_a_wheel = folder / "lib" / kFileName;
  return (std::filesystem::exists(in_a_wheel, ignored) ? in_a_wheel : folder / kFileName).string();
}

// The table of an open library, or why there is none.
std::string find_table([[maybe_unused]] void* library, [[maybe_unused]] const cuda::Table** table) {
#ifndef _WIN32
  const auto get = reinterpret_cast<cuda::GetTable>(dlsym(library, cuda::kTableSymbol));
  if (!get) return "it is not lewm's CUDA module";
  const cuda::Table* found = get();
  if (found->version != cuda::kTableVersion || found->bytes != static_cast<std::int32_t>(sizeof(cuda::Table))) {
    return "its table has version " + std::to_string(found->version) + ", this library reads version " +
           std::to_string(cuda::kTableVersion) + "; install both from the same release";
  }
  *table = found;
#endif
  return {};
}

}  // namespace

DeviceModule load_device_module(const std::string& path) {
  DeviceModule module;
  module.path = path;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    module.reason = "there is no CUDA module at " + path + "; install lewm where CMake finds nvcc (CUDA 12 or newer)";
    return module;
  }
#ifdef _WIN32
  module.reason = "the CUDA module is not available on this platform";
#else
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // stays open: its streams may outlive any owner
  if (!library) {
    const char* error = dlerror();
    module.reason = std::string("the CUDA module could not be loaded: ") + (error ? error : path.c_str());
    return module;
  }
  const cuda::Table* table = nullptr;
  if (const std::string problem = find_table(library, &table); !problem.empty()) {
    module.reason = path + ": " + problem;
    return module;
  }
  cuda::Message message{};
  std::int32_t devices = 0;
  if (table->devices(&devices, &message) != 0) {
    module.reason = std::string(message.text) + "; install an NVIDIA driver that is new enough for the toolkit";
  } else if (devices == 0) {
    module.reason = "the driver shows no NVIDIA GPU";
  } else {
    module.devices = devices;
    module.table = table;
  }
#endif
  return module;
}

const DeviceModule& device_module() {
  static const DeviceModule module = load_device_module(default_path());
  return module;
}

}  // namespace lewm
