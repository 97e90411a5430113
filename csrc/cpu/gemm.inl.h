// GEMM with register tiles, for every instruction set and precision whose dot product reads 32-bit words of the row
// (one float, two bf16, four bytes) against a vector of such words of the weights. Include after epilogue.inl.h.
//
// The weights lie in panels of kTileColumns columns, [n / columns][words][columns] words. A panel stays in the cache
// while all rows pass it, a tile of rows at a time; the whole of K is summed in registers, in order, so a row's result
// does not depend on its neighbours.
#pragma once

namespace lewm::cpu::LEWM_SIMD {

// product: [R, kTileColumns] (row stride in words) <- R rows of a (row stride in bytes) times one panel.
template <class Dot, int R>
static void multiply(const char* a, std::int64_t stride, const char* panel, std::int64_t words, std::uint32_t* product,
                     std::int64_t product_stride) {
  using Vector = typename Dot::Vector;
  // Every loop here unrolls completely, so that the sums stay in registers.
  Vector sum[R][kTileVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) sum[r][v] = Dot::zero();
  }
  // Every third row has a pointer, the other two are reached by the stride: what the address modes and registers allow.
  constexpr int kBases = (R + 2) / 3;
  const char* base[kBases];
#pragma GCC unroll 16
  for (int i = 0; i < kBases; ++i) base[i] = a + 3 * i * stride;
  for (std::int64_t k = 0; k < words; ++k) {
    Vector weights[kTileVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) weights[v] = Dot::load(panel + v * kLanes * 4);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vector x = Dot::broadcast(base[r / 3] + (r % 3) * stride);
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) sum[r][v] = Dot::dot(sum[r][v], x, weights[v]);
    }
    panel += kTileColumns * 4;
#pragma GCC unroll 16
    for (int i = 0; i < kBases; ++i) {
      base[i] += 4;
      asm volatile("" : "+r"(base[i]));  // keeps the compiler from giving each row a pointer of its own
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) Dot::store(product + r * product_stride + v * kLanes, sum[r][v]);
  }
}

using Multiply = void (*)(const char*, std::int64_t, const char*, std::int64_t, std::uint32_t*, std::int64_t);

// multiply<Dot, rows>, 1 <= rows <= R.
template <class Dot, int R = Dot::kRows>
static Multiply select_multiply(std::int64_t rows) {
  if constexpr (R == 1) {
    return multiply<Dot, 1>;
  } else {
    return rows == R ? multiply<Dot, R> : select_multiply<Dot, R - 1>(rows);
  }
}

// Blocks of full_attention.inl.h.
template <class Dot>
class RegisterBlocks {
 public:
  static constexpr int kRows = Dot::kRows, kGroup = Dot::kGroup, kWords = 1;
  LEWM_METHOD explicit RegisterBlocks(std::int64_t rows) : multiply_(select_multiply<Dot>(rows)) {}
  LEWM_METHOD void operator()(const char* a, std::int64_t stride, const char* panel, std::int64_t words,
                              std::uint32_t* product, std::int64_t product_stride) const {
    multiply_(a, stride, panel, words, product, product_stride);
  }

 private:
  Multiply multiply_;
};

template <class Dot>
static void run(Rows x, std::int64_t rows, const PackedMatrix& w, const Epilogue& epilogue, void* y,
                std::int64_t y_stride) {
  if (rows == 0) return;
  constexpr std::int64_t kRows = Dot::kRows;
  alignas(64) std::uint32_t tile[kRows * kTileColumns];
  const Finish finish_tile = select_finish<Dot::kPrecision>(epilogue);
  const std::int64_t words = padded_k<Dot::kPrecision>(w.k) / Dot::kGroup;
  const std::int64_t stride = x.stride * 4 / Dot::kGroup;  // bytes
  const std::int64_t tiles = (rows + kRows - 1) / kRows;
  // Tiles of (nearly) equal height: a last one of few rows would leave most of the multipliers waiting.
  const std::int64_t height = rows / tiles, taller = rows % tiles;
  const Multiply multiply_tall = select_multiply<Dot>(taller ? height + 1 : height);
  const Multiply multiply_rest = select_multiply<Dot>(height);
  for (std::int64_t column = 0; column < w.n; column += kTileColumns) {
    const char* panel = static_cast<const char*>(w.data) + column * words * 4;
    const std::int64_t columns = w.n - column < kTileColumns ? w.n - column : kTileColumns;
    std::int64_t row = 0;
    for (std::int64_t t = 0; t < tiles; ++t) {
      const std::int64_t count = t < taller ? height + 1 : height;
      const char* a = static_cast<const char*>(x.data) + row * stride;
      (t < taller ? multiply_tall : multiply_rest)(a, stride, panel, words, tile, kTileColumns);
      finish_tile(tile, kTileColumns, {row, count, column, columns}, x.scale, w, epilogue, y, y_stride);
      row += count;
    }
  }
}

// The table entry; T is the element type of packed weights, and as wide as a row's.
template <class Dot, class T>
static constexpr Gemm make_gemm() {
  constexpr Precision P = Dot::kPrecision;
  return {sizeof(T), padded_k_of<P>, padded_n, packed_bytes<P>, pack<P, T>, convert<P>, run<Dot>};
}

}  // namespace lewm::cpu::LEWM_SIMD
