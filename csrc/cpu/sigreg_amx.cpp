// SIGReg for AMX-BF16: the products run on tiles, the rest as for AVX-512.
//
// A float is the exact sum of three bf16 numbers of 8 bits each. Projections multiply all parts whose product exceeds
// the rounding of a float sum (six of nine), so they are as good as float ones; the gradient's product takes three of
// four parts, about 1e-5 of its norm.
#include <immintrin.h>

#include "cpu/bf16.h"
#include "cpu/sigreg_kernels.h"

// GCC 12 takes the deliberately undefined operand inside its own AVX-512 intrinsics for a mistake (bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace lewm::cpu {
namespace {

constexpr int kColumns = 32;             // of a strip: two tiles
constexpr int kBlock = 32;               // rows of a block: two tiles
constexpr std::int64_t kStep = 32;       // of k in a tile
constexpr std::int64_t kTile = 16 * 32;  // bf16 elements of a tile

struct TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
alignas(64) constexpr TileConfig kConfig;

// Takes the part of x that bf16 holds out of it.
inline __m256i take_part(__m512& x) {
  const __m256i part = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x));
  x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(part), 16)));
  return part;
}

// Sixteen elements from `first` on, zero from k on.
inline __m512 load_row(const void* x, Store storage, std::int64_t first, std::int64_t k, std::int64_t offset) {
  const std::int64_t left = k - first;
  const __mmask16 mask = static_cast<__mmask16>(left >= 16 ? 0xFFFF : left <= 0 ? 0 : (1 << left) - 1);
  if (storage == Store::f32) return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(x) + offset + first);
  const __m256i half = _mm256_maskz_loadu_epi16(mask, static_cast<const std::uint16_t*>(x) + offset + first);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// out: [rows, parts, padded k]
void pack_rows(const void* x, Store storage, std::int64_t x_stride, std::int64_t rows, std::int64_t k, int parts,
               std::uint16_t* out) {
  const std::int64_t padded = round_up(k, kStep);
  for (std::int64_t row = 0; row < rows; ++row, out += parts * padded) {
    for (std::int64_t i = 0; i < padded; i += 16) {
      __m512 rest = load_row(x, storage, i, k, row * x_stride);
      for (int part = 0; part < parts; ++part) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + part * padded + i), take_part(rest));
      }
    }
  }
}

// out: [padded k / 32, parts, 2 tiles of 16 columns, 16 pairs of k, 16 columns, 2]
void pack_strip(const float* strip, std::int64_t k, int parts, std::uint16_t* out) {
  for (std::int64_t pair = 0; pair < round_up(k, kStep) / 2; ++pair) {
    std::uint16_t* to = out + pair / 16 * parts * 2 * kTile + pair % 16 * 32;
    for (int half = 0; half < 2; ++half) {
      const float* from = strip + 2 * pair * kColumns + half * 16;
      __m512 even = 2 * pair < k ? _mm512_loadu_ps(from) : _mm512_setzero_ps();
      __m512 odd = 2 * pair + 1 < k ? _mm512_loadu_ps(from + kColumns) : _mm512_setzero_ps();
      for (int part = 0; part < parts; ++part) {
        const __m512i low = _mm512_cvtepu16_epi32(take_part(even));
        const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(take_part(odd)), 16);
        _mm512_storeu_si512(to + (2 * part + half) * kTile, _mm512_or_si512(low, high));
      }
    }
  }
}

// product[32, 32] = x strip for 32 packed rows; of the parts' products those with part + part < kParts.
template <int kParts>
inline void multiply_block(const std::uint16_t* x, const std::uint16_t* strip, std::int64_t k, float* product) {
  const std::int64_t padded = round_up(k, kStep), stride = 2 * kParts * padded;  // in bytes
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (std::int64_t i = 0; i < padded; i += kStep, strip += 2 * kParts * kTile) {
    for (int b = 0; b < kParts; ++b) {
      _tile_loadd(6, strip + 2 * b * kTile, 64);
      _tile_loadd(7, strip + (2 * b + 1) * kTile, 64);
      for (int a = 0; a + b < kParts; ++a) {
        _tile_loadd(4, x + a * padded + i, stride);
        _tile_loadd(5, x + 16 * kParts * padded + a * padded + i, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  constexpr std::int64_t kRowBytes = kColumns * 4;
  _tile_stored(0, product, kRowBytes);
  _tile_stored(1, product + 16, kRowBytes);
  _tile_stored(2, product + 16 * kColumns, kRowBytes);
  _tile_stored(3, product + 16 * kColumns + 16, kRowBytes);
}

void project(const SigregProjection& args) {
  if (args.wide) return sigreg_avx512().project(args);
  const float high = static_cast<float>(args.turns_per_unit);
  const __m512 factor = _mm512_set1_ps(high);
  const __m512 rest = _mm512_set1_ps(static_cast<float>(args.turns_per_unit - static_cast<double>(high)));
  const std::int64_t row_size = kSigregProjectParts * round_up(args.dim, kStep);
  alignas(64) float product[kBlock * kColumns];
  _tile_loadconfig(&kConfig);
  for (std::int64_t row = 0; row < args.rows; row += kBlock) {
    multiply_block<kSigregProjectParts>(args.packed_rows + row * row_size, args.packed_strip, args.dim, product);
    const std::int64_t rows = args.rows - row < kBlock ? args.rows - row : kBlock;
    for (std::int64_t i = 0; i < rows * kColumns; i += 16) {
      const __m512 p = _mm512_load_ps(product + i);
      const __m512 whole =
          _mm512_roundscale_ps(_mm512_mul_ps(p, factor), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      _mm512_storeu_ps(args.turns + row * kColumns + i, _mm512_fmadd_ps(p, rest, _mm512_fmsub_ps(p, factor, whole)));
    }
  }
  _tile_release();
}

void multiply(const SigregProduct& args) {
  const std::int64_t row_size = kSigregSlopeParts * round_up(args.k, kStep);
  const auto mask = [&](int half) {
    const std::int64_t n = args.n - 16 * half;
    return static_cast<__mmask16>(n >= 16 ? 0xFFFF : n <= 0 ? 0 : (1 << n) - 1);
  };
  const __mmask16 masks[2] = {mask(0), mask(1)};
  alignas(64) float product[kBlock * kColumns];
  _tile_loadconfig(&kConfig);
  for (std::int64_t row = 0; row < args.rows; row += kBlock) {
    multiply_block<kSigregSlopeParts>(args.packed_x + row * row_size, args.packed_strip, args.k, product);
    for (std::int64_t r = row; r < args.rows && r < row + kBlock; ++r) {
      for (int half = 0; half < 2; ++half) {
        float* out = args.out + r * args.out_stride + 16 * half;
        __m512 y = _mm512_load_ps(product + (r - row) * kColumns + 16 * half);
        if (args.accumulate) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(masks[half], out));
        _mm512_mask_storeu_ps(out, masks[half], y);
      }
    }
  }
  _tile_release();
}

SigregKernels make_table() {
  SigregKernels table = sigreg_avx512();
  table.project = project;
  table.multiply = multiply;
  table.pack_rows = pack_rows;
  table.pack_strip = pack_strip;
  return table;
}

}  // namespace

const SigregKernels& sigreg_amx() {
  static const SigregKernels table = make_table();
  return table;
}

}  // namespace lewm::cpu
