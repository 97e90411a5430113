// The CUDA runtime - or, in the tests, a recorder with the same functions (tests/cuda/host_runtime.h).
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef LEWM_CUDA_HOST_RUN
#include "host_runtime.h"
#else
#include <cuda_runtime_api.h>

// A mistake that a test plants (tests/cuda/faults.h) to see that it is caught; never in a real build.
#define LEWM_FAULT(name) false
#endif
