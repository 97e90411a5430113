// GEMM on AMX tiles, with the packed weights of gemm.inl.h: a panel's 16 words
// x 16 columns are one tile of weights, and 64 bytes of 16 rows one tile of
// input. Include after epilogue.inl.h.
//
// The tile unit multiplies beside the vector units, so the epilogue of a block
// is spread over the steps of the next one.
#pragma once

#include <immintrin.h>

namespace lewm::cpu::LEWM_SIMD {

constexpr std::int64_t kTileHeight = 16;                // rows of a tile
constexpr std::int64_t kBlockHeight = 2 * kTileHeight;  // rows of a block: two tiles of input, two of weights,
                                                        // four of sums
static_assert(kTileColumns == 32);

// Tiles 0, 1 and 2, 3 are the sums of the upper and lower rows, 4 and 5 the
// input's upper and lower rows, 6 and 7 weights.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {};

  TileConfig(std::int64_t upper, std::int64_t lower) {
    // A tile that is not used must still have a row.
    const std::uint8_t u = static_cast<std::uint8_t>(upper), l = static_cast<std::uint8_t>(lower ? lower : 1);
    rows[0] = rows[1] = rows[4] = u;
    rows[2] = rows[3] = rows[5] = l;
    rows[6] = rows[7] = kTileHeight;
  }
};

struct TileBf16 {
  static constexpr Precision kPrecision = Precision::bf16;
  static constexpr int kGroup = 2;
  template <int kSum>
  static LEWM_METHOD void dot() {
    if constexpr (kSum == 0) _tile_dpbf16ps(0, 4, 6);
    if constexpr (kSum == 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (kSum == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (kSum == 3) _tile_dpbf16ps(3, 5, 7);
  }
};
struct TileInt8 {  // x unsigned, w signed
  static constexpr Precision kPrecision = Precision::int8;
  static constexpr int kGroup = 4;
  template <int kSum>
  static LEWM_METHOD void dot() {
    if constexpr (kSum == 0) _tile_dpbusd(0, 4, 6);
    if constexpr (kSum == 1) _tile_dpbusd(1, 4, 7);
    if constexpr (kSum == 2) _tile_dpbusd(2, 5, 6);
    if constexpr (kSum == 3) _tile_dpbusd(3, 5, 7);
  }
};

// A block of sums whose epilogue is still to come.
class PendingBlock {
 public:
  PendingBlock(Finish finish_block, const float* x_scale, const PackedMatrix& w, const Epilogue& e, void* y,
               std::int64_t y_stride)
      : finish_(finish_block), x_scale_(x_scale), w_(w), e_(e), y_(y), y_stride_(y_stride) {}

  void set(const std::uint32_t* product, const Block& block) {
    product_ = product;
    block_ = block;
  }
  LEWM_METHOD void finish() {
    if (block_.rows) finish_(product_, kTileColumns, block_, x_scale_, w_, e_, y_, y_stride_);
    block_.rows = 0;
  }

 private:
  Finish finish_;
  const float* x_scale_;
  const PackedMatrix& w_;
  const Epilogue& e_;
  void* y_;
  std::int64_t y_stride_;
  const std::uint32_t* product_ = nullptr;
  Block block_ = {};
};

// product: [block rows, kTileColumns] (row stride in words) <- rows of a times
// one panel; meanwhile() runs while the tile unit is still busy. Lower: the
// block has more than kTileHeight rows.
template <class Tile, bool Lower, class Meanwhile>
LEWM_INLINE void multiply_tiles(const char* a, std::int64_t stride, const char* panel, std::int64_t steps,
                                std::uint32_t* product, std::int64_t product_stride, Meanwhile meanwhile) {
  constexpr std::int64_t kPanelRow = kTileColumns * 4, kTileBytes = 64;  // bytes
  const char* lower = a + kTileHeight * stride;
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (Lower) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (std::int64_t s = 0; s < steps; ++s) {
    _tile_loadd(6, panel, kPanelRow);
    _tile_loadd(4, a + s * kTileBytes, stride);
    Tile::template dot<0>();
    _tile_loadd(7, panel + kTileBytes, kPanelRow);
    Tile::template dot<1>();
    if constexpr (Lower) {
      _tile_loadd(5, lower + s * kTileBytes, stride);
      Tile::template dot<2>();
      Tile::template dot<3>();
    }
    panel += kTileHeight * kPanelRow;
  }
  meanwhile();
  const std::int64_t row = product_stride * 4;
  _tile_stored(0, product, row);
  _tile_stored(1, product + kTileHeight, row);
  if constexpr (Lower) {
    _tile_stored(2, product + kTileHeight * product_stride, row);
    _tile_stored(3, product + kTileHeight * product_stride + kTileHeight, row);
  }
}

// Blocks of full_attention.inl.h, bf16.
class TileBlocks {
 public:
  static constexpr int kRows = kBlockHeight, kGroup = 2, kWords = kTileHeight;
  LEWM_METHOD explicit TileBlocks(std::int64_t rows) : lower_(rows > kTileHeight) {
    const TileConfig config(lower_ ? kTileHeight : rows, lower_ ? rows - kTileHeight : 0);
    _tile_loadconfig(&config);
  }
  LEWM_METHOD ~TileBlocks() { _tile_release(); }
  TileBlocks(const TileBlocks&) = delete;
  TileBlocks& operator=(const TileBlocks&) = delete;
  LEWM_METHOD void operator()(const char* a, std::int64_t stride, const char* panel, std::int64_t words,
                              std::uint32_t* product, std::int64_t product_stride) const {
    const auto nothing = [] {};
    if (lower_) {
      multiply_tiles<TileBf16, true>(a, stride, panel, words / kTileHeight, product, product_stride, nothing);
    } else {
      multiply_tiles<TileBf16, false>(a, stride, panel, words / kTileHeight, product, product_stride, nothing);
    }
  }

 private:
  bool lower_;
};

template <class Tile>
static void run_tiles(Rows x, std::int64_t rows, const PackedMatrix& w, const Epilogue& epilogue, void* y,
                      std::int64_t y_stride) {
  alignas(64) std::uint32_t products[2][kBlockHeight * kTileColumns];
  const std::int64_t words = padded_k<Tile::kPrecision>(w.k) / Tile::kGroup;
  const std::int64_t stride = x.stride * 4 / Tile::kGroup;  // bytes
  PendingBlock pending(select_finish<Tile::kPrecision>(epilogue), x.scale, w, epilogue, y, y_stride);
  const auto finish_pending = [&] { pending.finish(); };
  int turn = 0;
  // All whole blocks, then the rest with tiles of fewer rows.
  for (std::int64_t first = 0; first < rows;) {
    const std::int64_t whole = (rows - first) / kBlockHeight * kBlockHeight;
    const std::int64_t height = whole ? kBlockHeight : rows - first;
    const std::int64_t last = whole ? first + whole : rows;
    const std::int64_t upper = height < kTileHeight ? height : kTileHeight;
    const TileConfig config(upper, height - upper);
    _tile_loadconfig(&config);
    for (std::int64_t column = 0; column < w.n; column += kTileColumns) {
      const char* panel = static_cast<const char*>(w.data) + column * words * 4;
      const std::int64_t columns = w.n - column < kTileColumns ? w.n - column : kTileColumns;
      for (std::int64_t row = first; row < last; row += height) {
        const char* a = static_cast<const char*>(x.data) + row * stride;
        std::uint32_t* product = products[turn];
        if (height > kTileHeight) {
          multiply_tiles<Tile, true>(a, stride, panel, words / kTileHeight, product, kTileColumns, finish_pending);
        } else {
          multiply_tiles<Tile, false>(a, stride, panel, words / kTileHeight, product, kTileColumns, finish_pending);
        }
        pending.set(product, {row, height, column, columns});
        turn ^= 1;
      }
    }
    first = last;
  }
  finish_pending();
  _tile_release();
}

}  // namespace lewm::cpu::LEWM_SIMD
