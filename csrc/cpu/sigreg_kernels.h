// Kernels of SIGReg: one table per instruction set; sigreg.cpp drives them.
//
// Directions are handled in strips of `columns` of them, stored [k][columns]: the B operand of a small matrix product.
// A projection p = z u is kept as the angle between two knots, delta p, in turns: `turns` = delta p / 2 pi less the
// nearest integer, in [-1/2, 1/2], so that knot k is cos and sin of 2 pi k turns. NaN and infinity in z become NaN in
// `turns` and pass through.
//
// Every kernel is single-threaded and allocates nothing; an output row depends on that row's inputs alone. Per-ISA
// files include no STL header (see kernels.h).
#pragma once

#include "cpu/isa.h"
#include "cpu/kernels.h"

namespace lewm::cpu {

// turns[r, c] = fraction of (z_r . u_c) * turns_per_unit.
struct SigregProjection {
  const void* z;  // [rows, dim] contiguous
  Store storage;  // element type of z
  std::int64_t rows, dim;
  const float* strip;                 // [dim, columns]
  double turns_per_unit;              // delta / 2 pi
  bool wide;                          // multiply and add in double
  void* scratch;                      // scratch_rows * dim doubles, 64-byte aligned
  float* turns;                       // [rows, columns]
  const std::uint16_t* packed_rows;   // z in kSigregProjectParts parts, and
  const std::uint16_t* packed_strip;  // the strip, for tables that pack; kSigregRowPadding rows past the last are read
};

// out[r, :n] (+)= x_r strip
struct SigregProduct {
  const float* x;  // [rows, x_stride]
  std::int64_t x_stride;
  std::int64_t rows, k;
  const float* strip;  // [k, columns]
  std::int64_t n;      // columns to write, 1..columns
  bool accumulate;
  float* out;  // [rows, out_stride]
  std::int64_t out_stride;
  const std::uint16_t* packed_x;      // x and
  const std::uint16_t* packed_strip;  // strip in kSigregSlopeParts parts, from tables that pack
};

// Tables that pack split each float into bf16 parts, the largest first.
constexpr int kSigregProjectParts = 3;
constexpr int kSigregSlopeParts = 2;
constexpr std::int64_t kSigregRowPadding = 31;  // packed rows come in blocks of 32
constexpr std::int64_t sigreg_packed_k(std::int64_t k) { return round_up(k, 32); }

struct SigregKernels {
  std::int64_t columns;       // of a strip
  std::int64_t scratch_rows;  // see SigregProjection

  // Directions first..first + columns - 1 that `seed` stands for, the same bits from every table.   strip: [dim,
  // columns]
  void (*draw)(std::uint64_t seed, std::int64_t first, std::int64_t dim, float* strip);

  void (*project)(const SigregProjection& args);

  // sums[0, k, c] += sum_r cos(2 pi k turns[r, c]), sums[1, k, c] += the same of sin; k < knots. Sums of at most
  // kSigregRows terms are float, the rest double.
  //   turns: [rows, columns]   scratch: [2, knots, columns]   sums: [2, knots, columns]
  void (*add_sums)(const float* turns, std::int64_t rows, std::int64_t knots, float* scratch, double* sums);

  // slope[r, c] = sum_k coefficients[0, k, c] cos(2 pi k turns[r, c]) + coefficients[1, k, c] sin(2 pi k turns[r, c]),
  // 1 <= k < knots
  //   turns: [rows, columns]   coefficients: [2, knots, columns]   slope: [rows, stride]
  void (*slope)(const float* turns, std::int64_t rows, std::int64_t knots, const float* coefficients, float* slope,
                std::int64_t stride);

  void (*multiply)(const SigregProduct& args);

  // Null in tables that take rows and strips as they are; strips of 32 columns in tables that pack.
  //   x: [rows, x_stride] -> out [rows, parts, packed k]     strip: [k, columns] -> out, parts * packed k * columns
  //   elements
  void (*pack_rows)(const void* x, Store storage, std::int64_t x_stride, std::int64_t rows, std::int64_t k, int parts,
                    std::uint16_t* out);
  void (*pack_strip)(const float* strip, std::int64_t k, int parts, std::uint16_t* out);
};

// Rows that one call of add_sums may have.
constexpr std::int64_t kSigregRows = 96;

// That of `isa`, or of the next lower tier that has one. Throws Error(unsupported) if this machine lacks `isa`.
const SigregKernels& sigreg_kernels(Isa isa);

const SigregKernels& sigreg_scalar();
const SigregKernels& sigreg_avx2();
const SigregKernels& sigreg_avx512();
const SigregKernels& sigreg_amx();

}  // namespace lewm::cpu
