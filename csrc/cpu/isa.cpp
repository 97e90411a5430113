#include "cpu/isa.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "core/error.h"
#include "cpu/built_tiers.h"
#include "cpu/tables.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__linux__) && defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace lewm::cpu {
namespace {

constexpr const char* kNames[kIsas] = {"scalar", "avx2", "avx512", "amx", "neon"};

// What this CPU has and this operating system saves on a context switch.
struct Features {
  bool avx2 = false;  // AVX2, FMA, F16C
  bool avx_vnni = false;
  bool avx512 = false;  // F, BW, DQ, VL
  bool avx512_bf16 = false;
  bool avx512_vnni = false;
  bool slow_bf16_dot = false;  // vdpbf16ps once in two cycles, where fp32 FMAs start twice a cycle
  bool amx = false;            // tiles, bf16 and int8, and this process may use them
  bool neon = false;
  bool neon_bf16 = false;
  bool neon_dotprod = false;
};

#if defined(__x86_64__)

bool allow_amx() {
#if defined(__linux__)
  // Linux hands the 8 KiB of tile registers only to processes that ask (arch_prctl(2), ARCH_REQ_XCOMP_PERM).
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

// __builtin_cpu_supports also checks that the operating system saves the ymm, zmm and mask registers (XGETBV).
Features detect() {
  Features f;
  __builtin_cpu_init();
  f.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  f.avx512 = f.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  f.avx512_bf16 = f.avx512 && __builtin_cpu_supports("avx512bf16");
  f.avx512_vnni = f.avx512 && __builtin_cpu_supports("avx512vnni");
  f.slow_bf16_dot = __builtin_cpu_is("intel");  // they have AMX for that; a virtual machine may hide it
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kAvxVnni = 1u << 4;  // CPUID 7.1 EAX
  f.avx_vnni = f.avx2 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & kAvxVnni) != 0;
  if (f.avx512_bf16 && f.avx512_vnni) {
    constexpr unsigned kAmx = 1u << 22 | 1u << 24 | 1u << 25;  // CPUID 7.0 EDX: AMX-BF16, AMX-TILE, AMX-INT8
    const bool has_tiles = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & kAmx) == kAmx;
    f.amx = has_tiles && allow_amx();
  }
  return f;
}

#elif defined(__aarch64__)

Features detect() {
  Features f;
  f.neon = true;                                                    // part of the architecture
#if defined(__linux__)
  constexpr unsigned long kDotprod = 1ul << 20, kBf16 = 1ul << 14;  // HWCAP_ASIMDDP, HWCAP2_BF16
  f.neon_dotprod = (getauxval(AT_HWCAP) & kDotprod) != 0;
  f.neon_bf16 = (getauxval(AT_HWCAP2) & kBf16) != 0;
#endif
  return f;
}

#else

Features detect() { return {}; }

#endif

const Features& features() {
  static const Features f = detect();
  return f;
}

#if LEWM_HAVE_AVX2
Kernels make_avx2() {
  Kernels table = avx2_kernels();
#if LEWM_HAVE_AVX2_VNNI
  if (features().avx_vnni) {
    table.int8 = {Precision::int8, Precision::int16};
    table.gemm[static_cast<int>(Precision::int8)] = avx2_vnni_int8();
    table.gemm[static_cast<int>(Precision::int16)].run = avx2_vnni_int16();
  }
#endif
  return table;
}
#endif

#if LEWM_HAVE_AVX512
// The table as this CPU can run it: a precision whose dot products it lacks has no entry.
Kernels make_avx512() {
  Kernels table = avx512_kernels();
  if (!features().avx512_bf16) table.gemm[static_cast<int>(Precision::bf16)] = {};
  if (!features().avx512_vnni) {
    for (Precision p : {Precision::int8, Precision::int16}) table.gemm[static_cast<int>(p)] = {};
  }
  if (features().slow_bf16_dot) table.full_attention = avx512_fp32_attention();
  if (features().avx512_vnni && (features().slow_bf16_dot || !features().avx512_bf16)) table.bf16 = Precision::int16;
  return table;
}
#endif

#if LEWM_HAVE_NEON
Kernels make_neon() {
  Kernels table = neon_kernels();
#if LEWM_HAVE_NEON_DOT
  if (features().neon_bf16) table.gemm[static_cast<int>(Precision::bf16)].run = neon_dot_bf16();
  if (features().neon_dotprod) table.gemm[static_cast<int>(Precision::int8)].run = neon_dot_int8();
#endif
  return table;
}
#endif

std::string available_names() {
  std::string names;
  for (int i = 0; i < kIsas; ++i) {
    if (!isa_available(static_cast<Isa>(i))) continue;
    if (!names.empty()) names += ", ";
    names += kNames[i];
  }
  return names;
}

Isa choose() {
  const char* wanted = std::getenv("LEWM_ISA");
  if (wanted && *wanted) {
    for (int i = 0; i < kIsas; ++i) {
      if (!std::strcmp(wanted, kNames[i]) && isa_available(static_cast<Isa>(i))) return static_cast<Isa>(i);
    }
    throw Error(Status::invalid_argument,
                std::string("LEWM_ISA: expected one of ") + available_names() + ", got \"" + wanted + "\"");
  }
  for (Isa isa : {Isa::amx, Isa::avx512, Isa::avx2, Isa::neon}) {
    if (isa_available(isa)) return isa;
  }
  return Isa::scalar;
}

}  // namespace

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

bool isa_built(Isa isa) {
  constexpr bool kBuilt[] = {true, LEWM_HAVE_AVX2, LEWM_HAVE_AVX512, LEWM_HAVE_AMX, LEWM_HAVE_NEON};
  return kBuilt[static_cast<int>(isa)];
}

bool isa_available(Isa isa) {
  if (!isa_built(isa)) return false;
  switch (isa) {
    case Isa::scalar:
      return true;
    case Isa::avx2:
      return features().avx2;
    case Isa::avx512:
      return features().avx512;
    case Isa::amx:
      return features().amx;
    case Isa::neon:
      return features().neon;
  }
  return false;
}

const Kernels& kernels(Isa isa) {
  if (!isa_available(isa)) {
    throw Error(Status::unsupported, std::string("isa: expected one of ") + available_names() + ", got \"" +
                                         isa_name(isa) + "\", which this " + (isa_built(isa) ? "CPU" : "build") +
                                         " does not have");
  }
  switch (isa) {
#if LEWM_HAVE_AVX2
    case Isa::avx2: {
      static const Kernels table = make_avx2();
      return table;
    }
#endif
#if LEWM_HAVE_AVX512
    case Isa::avx512: {
      static const Kernels table = make_avx512();
      return table;
    }
#endif
#if LEWM_HAVE_AMX
    case Isa::amx:
      return amx_kernels();
#endif
#if LEWM_HAVE_NEON
    case Isa::neon: {
      static const Kernels table = make_neon();
      return table;
    }
#endif
    default:
      return scalar_kernels();
  }
}

Isa active_isa() {
  static const Isa isa = choose();
  return isa;
}

LayerPrecisions layer_precisions(const Kernels& kernels, Precision precision) {
  if (precision == Precision::fp32) return {kernels.fp32, kernels.fp32};
  if (precision == Precision::bf16) return {kernels.bf16, kernels.bf16};
  const bool has_fine = kernels.gemm[static_cast<int>(kernels.int8.fine)].run;
  return {kernels.int8.main, has_fine ? kernels.int8.fine : Precision::fp32};
}

bool has(const Kernels& kernels, Precision precision) {
  return kernels.gemm[static_cast<int>(layer_precisions(kernels, precision).main)].run;
}

Precision precision_for_gpu(const Kernels& kernels) {
  return has(kernels, Precision::bf16) && kernels.bf16 == Precision::bf16 ? Precision::bf16 : Precision::fp32;
}

Precision auto_precision(Isa isa) {
  if (isa == Isa::amx) return Precision::bf16;
  if (isa == Isa::avx2) return Precision::int8;  // with AVX-VNNI, or in 16-bit integers: 1.5 times fp32's speed
  if (isa == Isa::avx512) {
    if (has(kernels(isa), Precision::bf16) && !features().slow_bf16_dot) return Precision::bf16;
    if (has(kernels(isa), Precision::int8)) return Precision::int8;
  }
  return Precision::fp32;  // elsewhere bf16 is widened and multiplied as fp32
}

}  // namespace lewm::cpu
