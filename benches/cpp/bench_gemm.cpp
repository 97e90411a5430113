// Single-thread GEMM throughput at the shapes of the published model, each with its real epilogue, beside the peak of
// the same instruction measured in the same process (registers only, no memory).
//
//   bench_gemm [isa] [precision] [rows ...]      for example: bench_gemm amx bf16 75 150
//
// Time is this thread's CPU time, so other processes disturb it less. A shape's figure is the best of its repetitions.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "cpu/isa.h"
#include "model/linear.h"

using namespace lewm;
using namespace lewm::cpu;

namespace {

double seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

#if defined(__x86_64__)

#define REPEAT_12(op) op("0") op("1") op("2") op("3") op("4") op("5") op("6") op("7") op("8") op("9") op("10") op("11")
#define VECTOR_CLOBBERS                                                                                               \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", \
      "xmm14"
#define FMA_YMM(r) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" r "\n"
// int16 of the AVX2 tier: products of int16 pairs, and the additions that no instruction does along with them.
#define INT16_YMM(r) "vpmaddwd %%ymm12, %%ymm13, %%ymm14\n vpaddd %%ymm13, %%ymm" r ", %%ymm" r "\n"
// With AVX-VNNI one does.
#define INT16_VNNI_YMM(r) "%{vex%} vpdpwssd %%ymm12, %%ymm13, %%ymm" r "\n"
#define INT8_VNNI_YMM(r) "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm" r "\n"
#define FMA_ZMM(r) "vfmadd231ps %%zmm12, %%zmm13, %%zmm" r "\n"
#define BF16_ZMM(r) "vdpbf16ps %%zmm12, %%zmm13, %%zmm" r "\n"
#define INT16_ZMM(r) "vpdpwssd %%zmm12, %%zmm13, %%zmm" r "\n"
#define INT8_ZMM(r) "vpdpbusd %%zmm12, %%zmm13, %%zmm" r "\n"
#define PEAK_LOOP(op) \
  for (int i = 0; i < kIterations; ++i) asm volatile(REPEAT_12(op)::: VECTOR_CLOBBERS)

constexpr int kIterations = 20000;  // 0.1 ms: the clock's own time does not count

struct alignas(64) TileConfig {
  unsigned char palette = 1, start_row = 0, reserved[14] = {};
  unsigned short row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  unsigned char rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// GFLOP/s (or GOP/s) of independent multiply-adds, the widest that this tier uses for this precision.
double peak(Isa isa, Precision precision) {
  const TileConfig config;
  const bool tiles = isa == Isa::amx && precision != Precision::fp32 && precision != Precision::int16;
  if (tiles) {
    // Tiles that were loaded: those that were only zeroed multiply faster when the CPU slows its tile unit down.
    alignas(64) static const unsigned char zeros[1024] = {};
    asm volatile(
        "ldtilecfg %0\n tileloadd (%1,%2), %%tmm4\n tileloadd (%1,%2), %%tmm5\n tileloadd (%1,%2), %%tmm6\n"
        "tileloadd (%1,%2), %%tmm7\n" ::"m"(config),
        "r"(zeros), "r"(std::int64_t{64})
        : "memory");
  }
  const bool avx_vnni = isa == Isa::avx2 && kernels(isa).gemm[static_cast<int>(Precision::int8)].run;
  const double start = seconds();
  double operations = 0;
  if (precision == Precision::int16 && isa != Isa::avx2) {
    PEAK_LOOP(INT16_ZMM);
    operations = 12.0 * 64;
  } else if (precision == Precision::int8 && avx_vnni) {
    PEAK_LOOP(INT8_VNNI_YMM);
    operations = 12.0 * 64;
  } else if (precision == Precision::int16 && avx_vnni) {
    PEAK_LOOP(INT16_VNNI_YMM);
    operations = 12.0 * 32;
  } else if (precision == Precision::int16) {
    PEAK_LOOP(INT16_YMM);
    operations = 12.0 * 32;
  } else if (isa == Isa::avx2) {
    PEAK_LOOP(FMA_YMM);
    operations = 12.0 * 16;
  } else if (precision == Precision::fp32) {
    PEAK_LOOP(FMA_ZMM);
    operations = 12.0 * 32;
  } else if (tiles && precision == Precision::bf16) {
    for (int i = 0; i < kIterations; ++i) {
      asm volatile(
          "tdpbf16ps %tmm6, %tmm4, %tmm0\n tdpbf16ps %tmm7, %tmm4, %tmm1\n"
          "tdpbf16ps %tmm6, %tmm5, %tmm2\n tdpbf16ps %tmm7, %tmm5, %tmm3\n");
    }
    operations = 4.0 * 16 * 16 * 64;
  } else if (tiles) {
    for (int i = 0; i < kIterations; ++i) {
      asm volatile(
          "tdpbusd %tmm6, %tmm4, %tmm0\n tdpbusd %tmm7, %tmm4, %tmm1\n"
          "tdpbusd %tmm6, %tmm5, %tmm2\n tdpbusd %tmm7, %tmm5, %tmm3\n");
    }
    operations = 4.0 * 16 * 16 * 128;
    if (precision == Precision::int24) operations /= 6;  // products of digits for one of numbers
  } else if (precision == Precision::bf16) {
    PEAK_LOOP(BF16_ZMM);
    operations = 12.0 * 64;
  } else {
    PEAK_LOOP(INT8_ZMM);
    operations = 12.0 * 128;
  }
  const double elapsed = seconds() - start;
  if (tiles) asm volatile("tilerelease");
  return operations * kIterations / elapsed / 1e9;
}

bool has_peak(Isa isa) { return isa != Isa::scalar; }

#else

double peak(Isa, Precision) { return 0; }
bool has_peak(Isa) { return false; }

#endif

struct Shape {
  const char* use;
  std::int64_t k, n;
  Activation activation;
  bool gate, residual;
  bool low_precision_output;  // stored as bf16 in bf16; int8 quantises a float row
};

constexpr Shape kShapes[] = {
    {"predictor qkv", 192, 3072, Activation::none, false, false, true},
    {"predictor out", 1024, 192, Activation::none, true, true, false},
    {"predictor fc1", 192, 2048, Activation::gelu, false, false, true},
    {"predictor fc2", 2048, 192, Activation::none, true, true, false},
    {"adaLN modulation", 192, 1152, Activation::none, false, false, false},
    {"encoder qkv", 192, 576, Activation::none, false, false, true},
    {"encoder fc1", 192, 768, Activation::gelu, false, false, true},
    {"encoder fc2", 768, 192, Activation::none, false, true, false},
};

struct Free {
  void operator()(void* p) const { std::free(p); }
};
using Memory = std::unique_ptr<void, Free>;

Memory allocate(std::int64_t bytes) {
  return Memory(std::aligned_alloc(kAlignment, static_cast<std::size_t>(round_up(bytes + 1, kAlignment))));
}

std::vector<float> random_values(std::int64_t count) {
  static std::mt19937 engine(1);
  std::uniform_real_distribution<float> draw(-1, 1);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = draw(engine);
  return values;
}

struct Result {
  double rate, peak;  // GFLOP/s
};

Result measure(const Kernels& tier, Isa isa, Precision precision, const Shape& shape, std::int64_t rows) {
  const Gemm& gemm = tier.gemm[static_cast<int>(precision)];
  const std::int64_t columns = gemm.padded_n(shape.n);
  const Memory data = allocate(static_cast<std::int64_t>(gemm.packed_bytes(shape.n, shape.k)));
  const Memory bias = allocate(columns * 4), scale = allocate(columns * 4), sum = allocate(columns * 4);
  PackedMatrix w = {0,
                    0,
                    data.get(),
                    static_cast<float*>(bias.get()),
                    static_cast<float*>(scale.get()),
                    static_cast<std::int32_t*>(sum.get())};
  const std::vector<float> weights = random_values(shape.n * shape.k), offsets = random_values(shape.n);
  gemm.pack(weights.data(), offsets.data(), shape.n, shape.k, &w);

  const std::int64_t element = gemm.row_bytes, stride = padded_stride(gemm.padded_k(shape.k), element);
  const Memory x = allocate(rows * stride * element), x_scale = allocate(rows * 4), y = allocate(rows * shape.n * 4);
  const Rows input = {x.get(), stride, static_cast<float*>(x_scale.get())};
  gemm.convert(random_values(rows * shape.k).data(), shape.k, rows, shape.k, input);

  const std::vector<float> gate = random_values(shape.n), residual = random_values(rows * shape.n);
  const std::vector<const void*> gates(static_cast<std::size_t>(rows), gate.data());
  Epilogue epilogue;
  epilogue.activation = shape.activation;
  if (shape.gate) epilogue.gate = gates.data();
  if (shape.residual) epilogue.residual = residual.data(), epilogue.residual_stride = shape.n;
  if (shape.low_precision_output && precision == Precision::bf16) epilogue.store = Store::bf16;

  const double operations =
      2.0 * static_cast<double>(rows) * static_cast<double>(shape.n) * static_cast<double>(shape.k);
  const int calls = std::max(1, static_cast<int>(4e7 / operations));
  Result best = {0, 0};
  for (int repetition = 0; repetition < 40; ++repetition) {
    if (has_peak(isa)) best.peak = std::max(best.peak, peak(isa, precision));
    const double start = seconds();
    for (int call = 0; call < calls; ++call) gemm.run(input, rows, w, epilogue, y.get(), shape.n);
    best.rate = std::max(best.rate, operations * calls / (seconds() - start) / 1e9);
  }
  return best;
}

void run(Isa isa, const char* only_precision, const std::vector<std::int64_t>& rows) {
  constexpr const char* kPrecisionNames[] = {"fp32", "bf16", "int8", "int16", "int24"};
  const Kernels& tier = kernels(isa);
  for (int p = 0; p < kLayerPrecisions; ++p) {
    if (!tier.gemm[p].run || (only_precision && std::strcmp(only_precision, kPrecisionNames[p]))) continue;
    std::printf("\n%s %s: GFLOP/s (share of the peak)\n%-24s", tier.isa, kPrecisionNames[p], "K x N");
    for (std::int64_t m : rows) std::printf("%10s M=%-4lld", "", static_cast<long long>(m));
    std::printf("\n");
    double highest = 0;
    for (const Shape& shape : kShapes) {
      std::printf("%-16s %4lld x %-4lld", shape.use, static_cast<long long>(shape.k), static_cast<long long>(shape.n));
      for (std::int64_t m : rows) {
        const Result result = measure(tier, isa, static_cast<Precision>(p), shape, m);
        highest = std::max(highest, result.peak);
        std::printf("%8.0f (%3.0f%%)", result.rate, result.peak > 0 ? 100 * result.rate / result.peak : 0.0);
        std::fflush(stdout);
      }
      std::printf("\n");
    }
    if (has_peak(isa)) std::printf("measured peak %.0f GFLOP/s\n", highest);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const char* only_isa = argc > 1 && std::strcmp(argv[1], "all") ? argv[1] : nullptr;
    std::vector<std::int64_t> rows;
    for (int i = 3; i < argc; ++i) rows.push_back(std::max(1L, std::strtol(argv[i], nullptr, 10)));
    if (rows.empty()) rows = {1, 16, 75, 150, 225, 257, 450};
    bool ran = false;
    for (int i = 0; i < kIsas; ++i) {
      const Isa isa = static_cast<Isa>(i);
      if (!isa_available(isa) || (only_isa ? std::string(only_isa) != isa_name(isa) : isa == Isa::scalar)) continue;
      run(isa, argc > 2 ? argv[2] : nullptr, rows);
      ran = true;
    }
    if (!ran) std::printf("isa: nothing to run for \"%s\" on this machine\n", only_isa ? only_isa : "all");
    return ran ? 0 : 1;
  } catch (const Error& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
}
