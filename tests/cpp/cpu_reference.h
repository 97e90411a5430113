// Helpers of the kernel tests: the tiers to test, aligned buffers, packed weights, random rows.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "check.h"
#include "cpu/bf16.h"
#include "cpu/built_tiers.h"
#include "cpu/isa.h"
#include "cpu/tables.h"

namespace lewm::cpu::testing {

// Every tier that this machine runs, the scalar one included.
inline std::vector<Isa> tiers() {
  std::vector<Isa> available;
  for (int i = 0; i < kIsas; ++i) {
    if (isa_available(static_cast<Isa>(i))) available.push_back(static_cast<Isa>(i));
  }
  return available;
}

// Tables whose full attention is tested: every tier's, and the AVX-512 tier's own where this CPU runs a substitute.
inline std::vector<const Kernels*> attention_tables() {
  std::vector<const Kernels*> tables;
  for (Isa isa : tiers()) tables.push_back(&kernels(isa));
#if LEWM_HAVE_AVX512
  if (isa_available(Isa::avx512) && kernels(Isa::avx512).gemm[static_cast<int>(Precision::bf16)].run &&
      kernels(Isa::avx512).full_attention != avx512_kernels().full_attention) {
    tables.push_back(&avx512_kernels());
  }
#endif
  return tables;
}

inline const char* name(Precision precision) {
  constexpr const char* kNames[] = {"fp32", "bf16", "int8", "int16", "int24"};
  return kNames[static_cast<int>(precision)];
}
constexpr Precision kAllPrecisions[] = {Precision::fp32, Precision::bf16, Precision::int8, Precision::int16,
                                        Precision::int24};

// body(table, precision) for every tier and each precision that it has, and for the AVX2 tier's own GEMMs where this
// CPU runs substitutes.
template <class Body>
void for_tiers(Body body) {
  std::vector<const Kernels*> tables;
  for (Isa isa : tiers()) tables.push_back(&kernels(isa));
#if LEWM_HAVE_AVX2
  if (isa_available(Isa::avx2) && kernels(Isa::avx2).gemm[static_cast<int>(Precision::int8)].run) {
    tables.push_back(&avx2_kernels());
  }
#endif
  for (const Kernels* table : tables) {
    for (Precision p : kAllPrecisions) {
      if (table->gemm[static_cast<int>(p)].run) body(*table, p);
    }
  }
}

// 64-byte aligned memory, filled with 0xff bytes: NaN as float or bf16, so that a read of what nobody wrote shows.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes)
      : bytes_(bytes), data_(std::aligned_alloc(kAlignment, (bytes + 2 * kAlignment - 1) / kAlignment * kAlignment)) {
    std::memset(data_, 0xff, bytes);
  }
  Buffer(Buffer&& other) noexcept : bytes_(other.bytes_), data_(std::exchange(other.data_, nullptr)) {}
  ~Buffer() { std::free(data_); }
  template <class T>
  T* as() {
    return static_cast<T*>(data_);
  }
  std::size_t bytes() const { return bytes_; }
  bool operator==(const Buffer& other) const {
    return bytes_ == other.bytes_ && !std::memcmp(data_, other.data_, bytes_);
  }

 private:
  std::size_t bytes_;
  void* data_;
};

// GEMM input rows of a tier and precision, with `extra` elements between rows.
struct RowsBuffer {
  Precision precision;
  std::int64_t bytes;  // of an element
  std::int64_t rows, k, padded_k;
  Buffer data, scale;
  Rows view;

  RowsBuffer(const Kernels& tier, Precision p, std::int64_t rows_, std::int64_t k_, std::int64_t extra = 0)
      : precision(p),
        bytes(tier.gemm[static_cast<int>(p)].row_bytes),
        rows(rows_),
        k(k_),
        padded_k(tier.gemm[static_cast<int>(p)].padded_k(k_)),
        data(static_cast<std::size_t>(rows_ * (padded_k + extra) * bytes)),
        scale(static_cast<std::size_t>(rows_) * 4),
        view{data.as<void>(), padded_k + extra, scale.as<float>()} {}

  // Element i of row r as the number that it stands for.
  float value(std::int64_t r, std::int64_t i) {
    const std::int64_t at = r * view.stride + i;
    switch (precision) {
      case Precision::fp32:
        return data.as<float>()[at];
      case Precision::bf16:
        return float_from_bf16(data.as<std::uint16_t>()[at]);
      case Precision::int8:
        return static_cast<float>(data.as<std::uint8_t>()[at] - kInt8Zero) * view.scale[r];
      case Precision::int16:
        return static_cast<float>(data.as<std::int16_t>()[at]) * view.scale[r];
      case Precision::int24: {
        const std::int8_t* digits = data.as<std::int8_t>() + r * view.stride * kInt24Digits + i;
        return static_cast<float>((digits[0] * 256 + digits[padded_k]) * 256 + digits[2 * padded_k]) * view.scale[r];
      }
    }
    return 0;
  }
};

struct Weights {
  Buffer data, bias, scale, sum;
  PackedMatrix matrix;

  Weights(const Gemm& gemm, const std::vector<float>& w, const float* b, std::int64_t n, std::int64_t k)
      : data(gemm.packed_bytes(n, k)),
        bias(static_cast<std::size_t>(gemm.padded_n(n)) * 4),
        scale(static_cast<std::size_t>(gemm.padded_n(n)) * 4),
        sum(static_cast<std::size_t>(gemm.padded_n(n)) * 4),
        matrix{0, 0, data.as<void>(), bias.as<float>(), scale.as<float>(), sum.as<std::int32_t>()} {
    gemm.pack(w.data(), b, n, k, &matrix);
  }
};

class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_(seed) {}
  std::vector<float> normal(std::int64_t count, float std = 1.0f, float mean = 0.0f) {
    std::normal_distribution<float> draw(mean, std);
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = draw(engine_);
    return values;
  }
  std::int64_t integer(std::int64_t first, std::int64_t last) {
    return std::uniform_int_distribution<std::int64_t>(first, last)(engine_);
  }

 private:
  std::mt19937 engine_;
};

}  // namespace lewm::cpu::testing
