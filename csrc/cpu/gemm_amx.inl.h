// GEMM on AMX tiles, with the packed weights of gemm.inl.h: a panel's 16 words
// x 16 columns are one tile of weights, and 64 bytes of 16 rows one tile of
// input. Include after epilogue.inl.h.
//
// The tile unit multiplies beside the vector units, so the epilogue of a block
// is spread over the tile instructions of the next one. That also keeps tile
// instructions apart, which pays by itself: see docs/kernels.md.
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

// Between two tile instructions, where there is nothing else to do.
LEWM_INLINE void space_out() { asm volatile(".rept 8\n\tnop\n\t.endr"); }

struct NothingElse {
  LEWM_METHOD void operator()() { space_out(); }
};

// What the rest of the core does between tile instructions: the epilogue of the block before, a few rows at a time,
// and fetching the next panel of weights. A call is one such slot.
class Meanwhile {
 public:
  Meanwhile(Finish finish_block, const float* x_scale, const PackedMatrix& w, const Epilogue& e, void* y,
            std::int64_t y_stride)
      : finish_(finish_block), x_scale_(x_scale), w_(w), e_(e), y_(y), y_stride_(y_stride) {}

  // A block of sums whose epilogue comes during the next `slots` calls. The one before is finished.
  void set(const std::uint32_t* product, const Block& block, std::int64_t slots) {
    product_ = product;
    block_ = block;
    slots_ = slots;
    due_ = 0;
  }
  // Brings [from, to) into the second-level cache, `lines` cache lines a call.
  void fetch(const char* from, const char* to, std::int64_t lines) {
    fetch_ = from;
    fetch_end_ = to;
    fetch_lines_ = lines;
  }
  LEWM_METHOD void operator()() {
    for (std::int64_t i = 0; i < fetch_lines_ && fetch_ < fetch_end_; ++i, fetch_ += kLineBytes) {
      __builtin_prefetch(fetch_, 0, 2);
    }
    due_ += kBlockHeight;
    if (due_ < kRowsAtOnce * slots_) return space_out();
    do {
      finish_some(kRowsAtOnce);
      due_ -= kRowsAtOnce * slots_;
    } while (due_ >= kRowsAtOnce * slots_);
  }
  void finish() { finish_some(block_.rows); }

 private:
  static constexpr std::int64_t kRowsAtOnce = 2, kLineBytes = 64;

  void finish_some(std::int64_t rows) {
    if (rows > block_.rows) rows = block_.rows;
    if (rows == 0) return;
    finish_(product_, kTileColumns, {block_.row, rows, block_.column, block_.columns}, x_scale_, w_, e_, y_, y_stride_);
    product_ += rows * kTileColumns;
    block_.row += rows;
    block_.rows -= rows;
  }

  Finish finish_;
  const float* x_scale_;
  const PackedMatrix& w_;
  const Epilogue& e_;
  void* y_;
  std::int64_t y_stride_;
  const std::uint32_t* product_ = nullptr;
  Block block_ = {};  // what is left of it
  std::int64_t slots_ = 1, due_ = 0;
  const char* fetch_ = nullptr;
  const char* fetch_end_ = nullptr;
  std::int64_t fetch_lines_ = 0;
};

// product: [block rows, kTileColumns] (row stride in words) <- rows of a times one panel. meanwhile() runs after each
// tile instruction, kSlots<Lower> times a step. Lower: the block has more than kTileHeight rows.
template <bool Lower>
constexpr std::int64_t kSlots = Lower ? 8 : 5;
template <class Tile, bool Lower, class Meanwhile>
LEWM_INLINE void multiply_tiles(const char* a, std::int64_t stride, const char* panel, std::int64_t steps,
                                std::uint32_t* product, std::int64_t product_stride, Meanwhile& meanwhile) {
  constexpr std::int64_t kPanelRow = kTileColumns * 4, kTileBytes = 64;  // bytes
  const char* lower = a + kTileHeight * stride;
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (Lower) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (std::int64_t s = 0; s < steps; ++s) {
    _tile_loadd(4, a + s * kTileBytes, stride);
    meanwhile();
    _tile_loadd(6, panel, kPanelRow);
    meanwhile();
    if constexpr (Lower) {
      _tile_loadd(5, lower + s * kTileBytes, stride);
      meanwhile();
    }
    _tile_loadd(7, panel + kTileBytes, kPanelRow);
    meanwhile();
    Tile::template dot<0>();
    meanwhile();
    Tile::template dot<1>();
    meanwhile();
    if constexpr (Lower) {
      Tile::template dot<2>();
      meanwhile();
      Tile::template dot<3>();
      meanwhile();
    }
    panel += kTileHeight * kPanelRow;
  }
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
    NothingElse nothing;
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
  const std::int64_t words = padded_k<Tile::kPrecision>(w.k) / Tile::kGroup, steps = words / kTileHeight;
  const std::int64_t stride = x.stride * 4 / Tile::kGroup;  // bytes
  const std::int64_t panel_bytes = words * kTileColumns * 4,
                     weight_bytes = panel_bytes * (padded_n_of(w.n) / kTileColumns);
  Meanwhile meanwhile(select_finish<Tile::kPrecision>(epilogue), x.scale, w, epilogue, y, y_stride);
  int turn = 0;
  // All whole blocks, then the rest with tiles of fewer rows.
  for (std::int64_t first = 0; first < rows;) {
    const std::int64_t whole = (rows - first) / kBlockHeight * kBlockHeight;
    const std::int64_t height = whole ? kBlockHeight : rows - first;
    const std::int64_t last = whole ? first + whole : rows;
    const std::int64_t upper = height < kTileHeight ? height : kTileHeight;
    const std::int64_t slots = steps * (height > kTileHeight ? kSlots<true> : kSlots<false>);
    const std::int64_t fetches = slots * ((last - first) / height) * 64;  // bytes of a panel, one line a slot
    const TileConfig config(upper, height - upper);
    _tile_loadconfig(&config);
    for (std::int64_t column = 0; column < w.n; column += kTileColumns) {
      const char* panel = static_cast<const char*>(w.data) + column * words * 4;
      const std::int64_t columns = w.n - column < kTileColumns ? w.n - column : kTileColumns;
      const char* end = static_cast<const char*>(w.data) + weight_bytes;
      if (first == 0)
        meanwhile.fetch(panel + panel_bytes, panel + panel_bytes < end ? panel + 2 * panel_bytes : end,
                        (panel_bytes + fetches - 1) / fetches);
      for (std::int64_t row = first; row < last; row += height) {
        const char* a = static_cast<const char*>(x.data) + row * stride;
        std::uint32_t* product = products[turn];
        if (height > kTileHeight) {
          multiply_tiles<Tile, true>(a, stride, panel, steps, product, kTileColumns, meanwhile);
        } else {
          multiply_tiles<Tile, false>(a, stride, panel, steps, product, kTileColumns, meanwhile);
        }
        meanwhile.finish();
        meanwhile.set(product, {row, height, column, columns}, slots);
        turn ^= 1;
      }
    }
    first = last;
  }
  meanwhile.finish();
  _tile_release();
}

}  // namespace lewm::cpu::LEWM_SIMD
