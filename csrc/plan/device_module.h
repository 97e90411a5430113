// The CUDA module, loaded at run time: the core does not need it, and does not link it.
#pragma once

#include <string>

#include "cuda/table.h"

namespace lewm {

struct DeviceModule {
  std::string path;                    // where it was looked for
  const cuda::Table* table = nullptr;  // null when it cannot be used
  std::string reason;                  // why not, and what to do; empty when it can
  int devices = 0;                     // GPUs
};

// Loads the module when first called: from the environment variable LEWM_CUDA_MODULE, else liblewm_cuda.so beside the
// library that this function is in, or in lib/ beside it.
const DeviceModule& device_module();

// As device_module(), from a given file.
DeviceModule load_device_module(const std::string& path);

}  // namespace lewm
