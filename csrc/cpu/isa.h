// Which instruction sets this build has, this machine runs, and this process uses.
#pragma once

#include "cpu/kernels.h"

namespace lewm::cpu {

enum class Isa : int { scalar = 0, avx2 = 1, avx512 = 2, amx = 3, neon = 4 };
constexpr int kIsas = 5;

const char* isa_name(Isa isa);
bool isa_built(Isa isa);      // compiled into this library
bool isa_available(Isa isa);  // built, and this CPU and operating system run it

// The table of one instruction set. Throws Error(unsupported) when it is not available.
const Kernels& kernels(Isa isa);

// The one in use: LEWM_ISA (scalar|avx2|avx512|amx|neon) if set, else the best available. Read once per process; an
// unknown or unavailable LEWM_ISA throws Error(invalid_argument) that names it and lists what there is.
Isa active_isa();

// Of the layers of a model of `precision`; fine layers are fp32 where the CPU lacks the table's choice.
LayerPrecisions layer_precisions(const Kernels& kernels, Precision precision);

// A model of this precision can run.
bool has(const Kernels& kernels, Precision precision);

// Of the model that a GPU's weights are read from, which multiplies in bf16: bf16 where the CPU's layers are, else
// fp32.
Precision precision_for_gpu(const Kernels& kernels);

// What precision "auto" means with an available instruction set, in C, C++ and Python: the fastest whose predicted
// latents keep a cosine of 0.999 to fp32 without calibration. That is bf16 where the CPU has bf16 dot products faster
// than fp32 ones, int8 with AVX-512 VNNI otherwise and with AVX2, which computes it in 16-bit integers if it lacks
// AVX-VNNI, else fp32.
Precision auto_precision(Isa isa);

}  // namespace lewm::cpu
