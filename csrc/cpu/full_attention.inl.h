// Full attention: two GEMMs with a softmax between them, a block of queries at a time. Include after
// attention_rows.inl.h.
//
// `Blocks` multiplies: Blocks(rows) prepares for `rows` of at most kRows rows, then
//   blocks(a, stride, panel, words, product, product_stride)
// is Multiply of gemm.inl.h, for a multiple of kWords words of kGroup elements each.
#pragma once

namespace lewm::cpu::LEWM_SIMD {

// Scratch of one head, in 32-bit words: K and V as GEMM weights, and a block of queries with their scores.
struct AttentionScratch {
  std::int64_t depth;                            // words of a query (at most)
  std::int64_t keys;                             // tokens, rounded up to whole panels
  std::int64_t columns;                          // head_dim, rounded up to whole panels
  std::int64_t k, v, query, score, tile, total;  // first word of each part, and how many there are

  AttentionScratch(std::int64_t tokens, std::int64_t head_dim, std::int64_t rows)
      : depth(padded_n_of(head_dim)), keys(padded_n_of(tokens)), columns(padded_n_of(head_dim)) {
    k = 0;
    v = k + keys * depth;
    query = v + keys * columns;
    score = query + rows * depth;
    tile = score + rows * keys;
    total = tile + rows * kTileColumns;
  }
};

template <class Blocks>
static std::size_t attention_scratch(std::int64_t tokens, std::int64_t head_dim) {
  return static_cast<std::size_t>(AttentionScratch(tokens, head_dim, Blocks::kRows).total) * sizeof(std::uint32_t);
}

// out: words [w, words) <- a row's, of which d elements count; zero beyond.
template <int kGroup, class Row>
LEWM_INLINE void copy_words(Row row, std::int64_t d, std::int64_t w, std::int64_t words, std::uint32_t* out,
                            std::int64_t out_stride) {
  const std::int64_t whole = d / kGroup;
  for (; w < whole; ++w) {
    out[w * out_stride] = kGroup == 1 ? row.element(w) : pair_word(row.element(2 * w), row.element(2 * w + 1));
  }
  if (w * kGroup < d) out[w++ * out_stride] = pair_word(row.element(d - 1), 0);
  for (; w < words; ++w) out[w * out_stride] = 0;
}

// The keys as weights: panels of [words, kTileColumns keys].
template <int kGroup, class Row>
LEWM_INLINE void pack_keys(const char* k, std::int64_t stride, std::int64_t tokens, std::int64_t keys, std::int64_t d,
                           std::int64_t words, std::uint32_t* out) {
  for (std::int64_t j = 0; j < keys; j += kLanes) {
    std::uint32_t* column = out + j / kTileColumns * kTileColumns * words + j % kTileColumns;
    std::int64_t w = 0;
    for (; j + kLanes <= tokens && (w + kLanes) * kGroup <= d; w += kLanes) {
      F block[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) block[i] = Row(k + (j + i) * stride).template words<kGroup>(w);
      transpose(block);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) store(reinterpret_cast<float*>(column + (w + i) * kTileColumns), block[i]);
    }
    for (std::int64_t i = 0; i < kLanes; ++i) {
      copy_words<kGroup>(Row(k + (j + i) * stride), j + i < tokens ? d : 0, w, words, column + i, kTileColumns);
    }
  }
}

// The values as weights: panels of [words of keys, kTileColumns elements of the head].
template <int kGroup, class Row>
LEWM_INLINE void pack_values(const char* v, std::int64_t stride, std::int64_t tokens, std::int64_t keys, std::int64_t d,
                             std::uint32_t* out) {
  const std::int64_t words = keys / kGroup;
  for (std::int64_t first = 0; first < d; first += kTileColumns) {
    const std::int64_t columns = d - first < kTileColumns ? d - first : kTileColumns;
    for (std::int64_t w = 0; w < words; ++w, out += kTileColumns) {
      // The last token twice where there is no second one: its weight is zero.
      const std::int64_t j = w * kGroup, last = tokens - 1;
      const Row a(v + (j < last ? j : last) * stride), b(v + (j + 1 < last ? j + 1 : last) * stride);
      for (std::int64_t c = 0; c < columns; ++c) {
        out[c] = kGroup == 1 ? a.element(first + c) : pair_word(a.element(first + c), b.element(first + c));
      }
      for (std::int64_t c = columns; c < kTileColumns; ++c) out[c] = 0;
    }
  }
}

// score: [keys] logits -> exp(logit - max) as GEMM input, zero from `tokens` on. Returns one over their sum.
template <int kGroup, bool Coarse>
LEWM_INLINE float softmax_row(float* score, std::int64_t tokens, std::int64_t keys) {
  const std::int64_t whole = tokens / kLanes * kLanes;
  F top = set(score[0]);
  for (std::int64_t i = 0; i < whole; i += kLanes) top = max(top, load(score + i));
  for (std::int64_t i = whole; i < tokens; ++i) top = max(top, set(score[i]));
  top = set(largest(top));
  F total = zero();
  for (std::int64_t i = 0; i < keys; i += kLanes) {
    const F below = sub(load(score + i), top);
    F e = Coarse ? exp_coarse(below) : exp(below);
    if (i >= whole) e = keep_n(e, tokens - i);
    total = add(total, e);
    if constexpr (kGroup == 1) {
      store(score + i, e);
    } else {
      store(reinterpret_cast<std::uint16_t*>(score) + i, e);
    }
  }
  return 1.0f / sum(total);
}

template <class Blocks, class Row>
static void full_attention_as(const FullAttention& args) {
  constexpr int kGroup = Blocks::kGroup;
  constexpr std::int64_t kElement = sizeof(typename Row::Element);
  constexpr bool kCoarse = kElement == 2;  // logits of rounded numbers
  const std::int64_t d = args.head_dim;
  const AttentionScratch layout(args.tokens, d, Blocks::kRows);
  std::uint32_t* const scratch = static_cast<std::uint32_t*>(args.scratch);
  std::uint32_t* const query = scratch + layout.query;
  std::uint32_t* const score = scratch + layout.score;
  std::uint32_t* const tile = scratch + layout.tile;
  const std::int64_t stride = args.stride * kElement;
  const std::int64_t depth = ((d + kGroup - 1) / kGroup + Blocks::kWords - 1) / Blocks::kWords * Blocks::kWords;
  const std::int64_t words = layout.keys / kGroup;
  pack_keys<kGroup, Row>(static_cast<const char*>(args.k), stride, args.tokens, layout.keys, d, depth,
                         scratch + layout.k);
  pack_values<kGroup, Row>(static_cast<const char*>(args.v), stride, args.tokens, layout.keys, d, scratch + layout.v);
  for (std::int64_t t = args.first; t < args.last; t += Blocks::kRows) {
    const std::int64_t rows = args.last - t < Blocks::kRows ? args.last - t : Blocks::kRows;
    const Blocks multiply_block(rows);
    // Queries as they are, if they end where words and tiles end.
    const char* a = static_cast<const char*>(args.q) + t * stride;
    std::int64_t a_stride = stride;
    if (d * kElement != depth * 4) {
      for (std::int64_t r = 0; r < rows; ++r) {
        copy_words<kGroup>(Row(a + r * stride), d, 0, depth, query + r * depth, 1);
      }
      a = reinterpret_cast<const char*>(query);
      a_stride = depth * 4;
    }
    for (std::int64_t j = 0; j < layout.keys; j += kTileColumns) {
      multiply_block(a, a_stride, reinterpret_cast<const char*>(scratch + layout.k + j * depth), depth, score + j,
                     layout.keys);
    }
    float inverse[Blocks::kRows];
    for (std::int64_t r = 0; r < rows; ++r) {
      inverse[r] =
          softmax_row<kGroup, kCoarse>(reinterpret_cast<float*>(score + r * layout.keys), args.tokens, layout.keys);
    }
    for (std::int64_t c = 0; c < d; c += kTileColumns) {
      multiply_block(reinterpret_cast<const char*>(score), layout.keys * 4,
                     reinterpret_cast<const char*>(scratch + layout.v + c * words), words, tile, kTileColumns);
      const std::int64_t columns = d - c < kTileColumns ? d - c : kTileColumns;
      for (std::int64_t r = 0; r < rows; ++r) {
        const float* product = reinterpret_cast<const float*>(tile + r * kTileColumns);
        float* out = args.out + (t + r) * args.out_stride + c;
        for_vectors(
            columns, [&](std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
              store_n(out + i, mul(load(product + i), set(inverse[r])), n);
            });
      }
    }
  }
}

}  // namespace lewm::cpu::LEWM_SIMD
