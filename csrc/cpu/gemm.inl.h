// GEMM with register tiles, for every instruction set and precision whose dot product reads 32-bit words of the row
// (one float, two bf16 or int16, four bytes) against a vector of such words of the weights. Include after
// epilogue.inl.h.
//
// The weights lie in panels of kTileColumns columns, [n / columns][words][columns] words. A block of rows, as many as
// stay in the second-level cache, passes one panel after the other, a tile of rows at a time; meanwhile the next panel,
// which comes from further away, is asked for. A tile's sums run over K in order, in registers, so a row's result does
// not depend on its neighbours.
#pragma once

namespace lewm::cpu::LEWM_SIMD {

// Memory to be asked for while a tile is computed: kTileColumns words after every `pace` steps of K.
struct Ahead {
  const char* data;
  std::int64_t pace;
};

// The operands of a tile: rows of `a` (`stride` bytes apart) and `words` steps of a panel.
struct Operands {
  const char* a;
  std::int64_t stride;
  const char* panel;
  std::int64_t words;
  Ahead ahead;
};

// Asks for kTileColumns words, at most two cache lines.
LEWM_INLINE void fetch_weights(const char* p) {
  constexpr int kLine = 64, kSecondLevel = 2;
  __builtin_prefetch(p, 0, kSecondLevel);
  if constexpr (kTileColumns * 4 > kLine) __builtin_prefetch(p + kLine, 0, kSecondLevel);
}

// product: [R, kTileColumns] of rows `product_stride` words apart.
template <class Dot, int R>
static void multiply(const Operands& in, std::uint32_t* product, std::int64_t product_stride) {
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
  const std::int64_t stride = in.stride, words = in.words, pace = in.ahead.pace;
  const char *panel = in.panel, *ahead = in.ahead.data, *base[kBases];
#pragma GCC unroll 16
  for (int i = 0; i < kBases; ++i) base[i] = in.a + 3 * i * stride;
  for (std::int64_t k = 0; k < words;) {
    fetch_weights(ahead);
    ahead += kTileColumns * 4;
    for (const std::int64_t end = words - k < pace ? words : k + pace; k < end; ++k) {
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
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) Dot::store(product + r * product_stride + v * kLanes, sum[r][v]);
  }
}

using Multiply = void (*)(const Operands&, std::uint32_t*, std::int64_t);

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
    multiply_({a, stride, panel, words, {panel, words}}, product, product_stride);
  }

 private:
  Multiply multiply_;
};

// Rows as they pass the panels, in tiles of (nearly) equal height: a last one of few rows would leave most of the
// multipliers waiting.
template <class Dot>
struct Tiles {
  std::int64_t count, height, taller;  // the first `taller` have a row more
  Multiply multiply_tall, multiply_rest;
  explicit Tiles(std::int64_t rows)
      : count((rows + Dot::kRows - 1) / Dot::kRows),
        height(rows / count),
        taller(rows % count),
        multiply_tall(select_multiply<Dot>(taller ? height + 1 : height)),
        multiply_rest(select_multiply<Dot>(height)) {}
  LEWM_METHOD std::int64_t row(std::int64_t tile) const { return tile * height + (tile < taller ? tile : taller); }
};

template <class Dot>
static void run(Rows x, std::int64_t rows, const PackedMatrix& w, const Epilogue& epilogue, void* y,
                std::int64_t y_stride) {
  if (rows == 0) return;
  alignas(64) std::uint32_t product[Dot::kRows * kTileColumns];
  const Finish finish_tile = select_finish<Dot::kPrecision>(epilogue);
  const Tiles<Dot> tiles(rows);
  const std::int64_t words = padded_k<Dot::kPrecision>(w.k) / Dot::kGroup, panel_bytes = words * kTileColumns * 4;
  const std::int64_t stride = x.stride * 4 / Dot::kGroup;  // bytes
  const std::int64_t most = max_of(kBlockBytes / (words * 4 * Dot::kRows), 1);
  const std::int64_t blocks = (tiles.count + most - 1) / most;
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t first = tiles.count * block / blocks, last = tiles.count * (block + 1) / blocks;
    // Together the tiles ask for all of the next panel: what they leave, the few rows of a small plan wait for.
    const std::int64_t pace = last - first, asked = (words + pace - 1) / pace * kTileColumns * 4;
    const char* panel = static_cast<const char*>(w.data);
    for (std::int64_t column = 0; column < w.n; column += kTileColumns, panel += panel_bytes) {
      const std::int64_t columns = w.n - column < kTileColumns ? w.n - column : kTileColumns;
      const char* ahead = column + kTileColumns < w.n ? panel + panel_bytes : static_cast<const char*>(w.data);
      for (std::int64_t t = first; t < last; ++t) {
        const std::int64_t row = tiles.row(t), count = tiles.row(t + 1) - row;
        const Block part{row, count, column, columns};
        const char* a = static_cast<const char*>(x.data) + row * stride;
        fetch_terms(part, epilogue);
        (t < tiles.taller ? tiles.multiply_tall : tiles.multiply_rest)({a, stride, panel, words, {ahead, pace}},
                                                                       product, kTileColumns);
        finish_tile(product, kTileColumns, part, x.scale, w, epilogue, y, y_stride);
        ahead += asked;
      }
    }
  }
}

// The table entry. A row's elements are as wide as a packed weight.
template <class Dot>
static constexpr Gemm make_gemm() {
  constexpr Precision P = Dot::kPrecision;
  return {sizeof(typename Packed<P>::Weight), padded_k_of<P>, padded_n, packed_bytes<P>, pack<P>, convert<P>, run<Dot>};
}

}  // namespace lewm::cpu::LEWM_SIMD
