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
static_assert(kTileColumns == 32 && kDigitStride == kBlockHeight * kTileColumns);

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

// The element types: how the sums of the four tiles grow by the product of two tiles of input and two of weights. The
// instructions take no variables, not even constant ones.
#define LEWM_TILE_DOT(instruction)                 \
  template <int kSum>                              \
  static LEWM_METHOD void dot() {                  \
    if constexpr (kSum == 0) instruction(0, 4, 6); \
    if constexpr (kSum == 1) instruction(1, 4, 7); \
    if constexpr (kSum == 2) instruction(2, 5, 6); \
    if constexpr (kSum == 3) instruction(3, 5, 7); \
  }
struct TileBf16 {
  static constexpr Precision kPrecision = Precision::bf16;
  static constexpr int kGroup = 2;
  LEWM_TILE_DOT(_tile_dpbf16ps)
};
struct TileInt8 {  // x unsigned, w signed
  static constexpr Precision kPrecision = Precision::int8;
  static constexpr int kGroup = 4;
  LEWM_TILE_DOT(_tile_dpbusd)
};
struct TileInt24 {
  static constexpr Precision kPrecision = Precision::int24;
  static constexpr int kGroup = 4;
  LEWM_TILE_DOT(_tile_dpbssd)
};
#undef LEWM_TILE_DOT

// Between two tile instructions, where there is nothing else to do.
LEWM_INLINE void space_out() { asm volatile(".rept 14\n\tnop\n\t.endr"); }

// A step multiplies 64 bytes of every row of the block with the same of the weights, in kSlots tile instructions; each
// is followed by a slot for the rest of the core. Lower: the block has more than kTileHeight rows.
template <bool Lower>
constexpr int kSlots = Lower ? 8 : 5;

struct NothingElse {
  LEWM_METHOD void step() {}
  template <int kSlot, int kCount>
  LEWM_METHOD void slot() {
    space_out();
  }
};

// What the rest of the core does between tile instructions: the epilogue of the block before, a row a slot, and
// fetching the next panel of weights into the second-level cache, a cache line a slot.
template <Precision P, Activation A, class Element>
class Meanwhile {
 public:
  Meanwhile(const float* x_scale, const PackedMatrix& w, const Epilogue& e, void* y, std::int64_t y_stride,
            std::int64_t steps)
      : x_scale_(x_scale),
        w_(w),
        e_(e),
        y_(y),
        y_stride_(y_stride),
        plain_(!combines(e)),
        rows_per_turn_((kBlockHeight + steps - 1) / steps),
        steps_per_turn_(steps < kBlockHeight ? 1 : steps / kBlockHeight) {}

  // A block of sums whose epilogue comes during the next steps. The one before is finished.
  LEWM_METHOD void set(const std::uint32_t* product, const Block& block) {
    product_ = product;
    row_ = block.row;
    left_ = block.rows;
    column_ = block.column;
    columns_ = block.columns;
  }
  // Brings [from, to) into the second-level cache.
  LEWM_METHOD void fetch(const char* from, const char* to) {
    fetch_ = from;
    fetch_end_ = to;
  }
  LEWM_METHOD void step() {
    fetching_ = fetch_;
    fetch_ = fetch_ < fetch_end_ ? fetch_ + kSlots<true> * kLineBytes : fetch_;
    rows_ = 0;
    if (++step_ < steps_per_turn_) return;
    step_ = 0;
    rows_ = left_ < rows_per_turn_ ? left_ : rows_per_turn_;
  }
  template <int kSlot, int kCount>
  LEWM_METHOD void slot() {
    __builtin_prefetch(fetching_ + kSlot * kLineBytes, 0, 2);
    if (rows_ <= kSlot) return space_out();
    finish_one();
    if constexpr (kSlot + 1 == kCount) {
      for (std::int64_t i = kCount; i < rows_; ++i) finish_one();
    }
  }
  LEWM_METHOD void finish() {
    while (left_) finish_one();
  }

 private:
  static constexpr std::int64_t kLineBytes = 64;

  LEWM_METHOD void finish_one() {
    // Copies of the usual cases in every slot, a call for the others.
    constexpr bool kMayAdd = A == Activation::none && sizeof(Element) == sizeof(float);
    const Epilogue none;
    if (columns_ == kTileColumns && (kMayAdd || plain_)) {
      finish_row<P, A, Element>(product_, row_, {0, 1, column_, kTileColumns}, ColumnTerms<P>(w_, column_),
                                ColumnTerms<P>(w_, column_ + kLanes), x_scale_, kMayAdd ? e_ : none, y_, y_stride_);
      const Element* next = static_cast<Element*>(y_) + row_ * y_stride_ + column_ + kTileColumns;
      __builtin_prefetch(next, 1, 2);
      if constexpr (sizeof(Element) == sizeof(float)) __builtin_prefetch(next + kLanes, 1, 2);
    } else {
      finish_part(product_, {row_, 1, column_, columns_}, x_scale_, w_, e_, y_, y_stride_);
    }
    product_ += kTileColumns;
    ++row_;
    --left_;
  }
  [[gnu::noinline]] static void finish_part(const std::uint32_t* product, const Block& block, const float* x_scale,
                                            const PackedMatrix& w, const Epilogue& e, void* y, std::int64_t y_stride) {
    cpu::LEWM_SIMD::finish<P, A, Element>(product, kTileColumns, block, x_scale, w, e, y, y_stride);
  }

  const float* x_scale_;
  const PackedMatrix& w_;
  const Epilogue& e_;
  void* y_;
  std::int64_t y_stride_;
  bool plain_;
  std::int64_t rows_per_turn_, steps_per_turn_;  // the whole of a block during the steps of the next
  std::int64_t rows_ = 0, step_ = 0;             // rows of this step; steps since the last turn

  const std::uint32_t* product_ = nullptr;  // of the next row
  std::int64_t row_ = 0, left_ = 0, column_ = 0, columns_ = 0;
  const char* fetch_ = nullptr;
  const char* fetch_end_ = nullptr;
  const char* fetching_ = nullptr;  // in this step
};

// product: [block rows, kTileColumns] (row stride in words) <- `words` words of rows of a times as many of a panel.
template <class Tile, bool Lower, class Work>
LEWM_INLINE void multiply_tiles(const char* a, std::int64_t stride, const char* panel, std::int64_t words,
                                std::uint32_t* product, std::int64_t product_stride, Work& meanwhile) {
  constexpr std::int64_t kPanelRow = kTileColumns * 4, kTileBytes = 64;  // bytes
  constexpr int kCount = kSlots<Lower>;
  const char* lower = a + kTileHeight * stride;
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (Lower) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (std::int64_t s = 0; s < words / kTileHeight; ++s) {
    meanwhile.step();
    _tile_loadd(4, a + s * kTileBytes, stride);
    meanwhile.template slot<0, kCount>();
    _tile_loadd(6, panel, kPanelRow);
    meanwhile.template slot<1, kCount>();
    _tile_loadd(7, panel + kTileBytes, kPanelRow);
    meanwhile.template slot<2, kCount>();
    if constexpr (Lower) {
      _tile_loadd(5, lower + s * kTileBytes, stride);
      meanwhile.template slot<3, kCount>();
    }
    Tile::template dot<0>();
    meanwhile.template slot<kCount - (Lower ? 4 : 2), kCount>();
    Tile::template dot<1>();
    meanwhile.template slot<kCount - (Lower ? 3 : 1), kCount>();
    if constexpr (Lower) {
      Tile::template dot<2>();
      meanwhile.template slot<6, kCount>();
      Tile::template dot<3>();
      meanwhile.template slot<7, kCount>();
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

// Words that a block's sums run over. Digits of int24 meet those that are, together with them, no further from the
// highest than the lowest is.
template <class Tile>
LEWM_INLINE std::int64_t summed_words(std::int64_t words) {
  return words * (kDigits<Tile::kPrecision> * (kDigits<Tile::kPrecision> + 1) / 2);
}

// The same of whole rows. Of int24 one product for each distance from the highest digits, kDigitStride apart: rows
// begin with their highest digits and panels with their lowest, so each is a sum over neighbours.
template <class Tile, bool Lower, class Work>
LEWM_INLINE void multiply_rows(const char* a, std::int64_t stride, const char* panel, std::int64_t words,
                               std::uint32_t* product, Work& meanwhile) {
  if constexpr (Tile::kPrecision == Precision::int24) {
    const std::int64_t digit = words * kTileColumns * 4;
    for (std::int64_t place = kInt24Digits - 1; place >= 0; --place) {
      multiply_tiles<Tile, Lower>(a, stride, panel + (kInt24Digits - 1 - place) * digit, words * (place + 1),
                                  product + place * kDigitStride, kTileColumns, meanwhile);
    }
  } else {
    multiply_tiles<Tile, Lower>(a, stride, panel, words, product, kTileColumns, meanwhile);
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
      multiply_tiles<TileBf16, true>(a, stride, panel, words, product, product_stride, nothing);
    } else {
      multiply_tiles<TileBf16, false>(a, stride, panel, words, product, product_stride, nothing);
    }
  }

 private:
  bool lower_;
};

template <class Tile, Activation A, class Element>
static void run_tiles_as(Rows x, std::int64_t rows, const PackedMatrix& w, const Epilogue& epilogue, void* y,
                         std::int64_t y_stride) {
  if (rows == 0) return;
  constexpr Precision P = Tile::kPrecision;
  alignas(64) std::uint32_t products[2][kDigits<P> * kDigitStride];
  const std::int64_t words = padded_k<P>(w.k) / Tile::kGroup;            // of each digit
  const std::int64_t stride = x.stride * kDigits<P> * 4 / Tile::kGroup;  // bytes
  const std::int64_t panel_bytes = words * kDigits<P> * kTileColumns * 4;
  Meanwhile<P, A, Element> meanwhile(x.scale, w, epilogue, y, y_stride, summed_words<Tile>(words) / kTileHeight);
  int turn = 0;
  // Groups of rows that stay in the second-level cache pass one panel after the other. A tile of fewer rows multiplies
  // no faster, so the last block begins with rows of the one before, which are multiplied twice and finished once.
  const char* const a = static_cast<const char*>(x.data);
  const std::int64_t most = max_of(kBlockBytes / stride / kBlockHeight, 1) * kBlockHeight;
  const std::int64_t groups = (rows + most - 1) / most;
  for (std::int64_t group = 0; group < groups; ++group) {
    const std::int64_t first = rows * group / groups, last = rows * (group + 1) / groups;
    const std::int64_t tall = min_of(last - first, kBlockHeight), upper = min_of(tall, kTileHeight);
    const TileConfig config(upper, tall - upper);
    _tile_loadconfig(&config);
    for (std::int64_t column = 0; column < w.n; column += kTileColumns) {
      const char* panel = static_cast<const char*>(w.data) + column / kTileColumns * panel_bytes;
      const std::int64_t columns = min_of(w.n - column, kTileColumns);
      // After the last panel the next group begins with the first.
      const bool ends = column + kTileColumns >= w.n;
      const char* next = ends ? static_cast<const char*>(w.data) : panel + panel_bytes;
      meanwhile.fetch(next, ends && group + 1 == groups ? next : next + panel_bytes);
      for (std::int64_t done = first; done < last;) {
        const std::int64_t left = last - done, height = left > upper ? tall : upper, row = min_of(done, last - height);
        std::uint32_t* product = products[turn];
        if (height > kTileHeight) {
          multiply_rows<Tile, true>(a + row * stride, stride, panel, words, product, meanwhile);
        } else {
          multiply_rows<Tile, false>(a + row * stride, stride, panel, words, product, meanwhile);
        }
        meanwhile.finish();
        const std::int64_t fresh = row + height - done;
        meanwhile.set(product + (done - row) * kTileColumns, {done, fresh, column, columns});
        turn ^= 1;
        done += fresh;
      }
    }
  }
  meanwhile.finish();
  _tile_release();
}

template <class Tile, Activation A>
static void run_tiles_activated(Rows x, std::int64_t rows, const PackedMatrix& w, const Epilogue& epilogue, void* y,
                                std::int64_t y_stride) {
  if (epilogue.store == Store::f32) return run_tiles_as<Tile, A, float>(x, rows, w, epilogue, y, y_stride);
  run_tiles_as<Tile, A, std::uint16_t>(x, rows, w, epilogue, y, y_stride);
}

template <class Tile>
static void run_tiles(Rows x, std::int64_t rows, const PackedMatrix& w, const Epilogue& epilogue, void* y,
                      std::int64_t y_stride) {
  switch (epilogue.activation) {
    case Activation::none:
      return run_tiles_activated<Tile, Activation::none>(x, rows, w, epilogue, y, y_stride);
    case Activation::gelu:
      return run_tiles_activated<Tile, Activation::gelu>(x, rows, w, epilogue, y, y_stride);
    case Activation::silu:
      return run_tiles_activated<Tile, Activation::silu>(x, rows, w, epilogue, y, y_stride);
  }
}

}  // namespace lewm::cpu::LEWM_SIMD
