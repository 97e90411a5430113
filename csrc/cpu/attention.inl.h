// Attention over a short window and over a whole sequence. Include after gemm.inl.h, norm.inl.h and the Dot types.
#pragma once

namespace lewm::cpu::LEWM_SIMD {

// ---------------------------------------------------------------------------------------------------------------------
// Window attention: softmax over a few keys, vectorised over kLanes heads at a time
// ---------------------------------------------------------------------------------------------------------------------

struct FloatRow {
  using Element = float;
  const float* p;
  explicit FloatRow(const void* data) : p(static_cast<const float*>(data)) {}
  LEWM_METHOD F at(std::int64_t i, std::int64_t n) const { return load_some(p + i, n); }
  // The 32-bit word w of GEMM input made of this row's first d elements, kGroup of them to a word.
  template <int kGroup>
  LEWM_METHOD std::uint32_t word(std::int64_t w, std::int64_t) const {
    static_assert(kGroup == 1);
    return float_bits(p[w]);
  }
  LEWM_METHOD std::uint32_t element(std::int64_t i) const { return float_bits(p[i]); }  // bits as a float
};
struct Bf16Row {
  using Element = std::uint16_t;
  const std::uint16_t* p;
  explicit Bf16Row(const void* data) : p(static_cast<const std::uint16_t*>(data)) {}
  LEWM_METHOD F at(std::int64_t i, std::int64_t n) const { return n == kLanes ? load(p + i) : load_n(p + i, n); }
  template <int kGroup>
  LEWM_METHOD std::uint32_t word(std::int64_t w, std::int64_t d) const {
    if constexpr (kGroup == 1) return static_cast<std::uint32_t>(p[w]) << 16;
    return p[2 * w] | (2 * w + 1 < d ? static_cast<std::uint32_t>(p[2 * w + 1]) << 16 : 0u);
  }
  LEWM_METHOD std::uint32_t element(std::int64_t i) const { return static_cast<std::uint32_t>(p[i]) << 16; }
};

// score: [keys, kLanes], in: logits of kLanes heads; out: weights that sum to one.
LEWM_INLINE void softmax_heads(float* score, std::int64_t keys) {
  F top = load(score);
  for (std::int64_t j = 1; j < keys; ++j) top = max(top, load(score + j * kLanes));
  F total = zero();
  for (std::int64_t j = 0; j < keys; ++j) {
    const F e = exp(sub(load(score + j * kLanes), top));
    store(score + j * kLanes, e);
    total = add(total, e);
  }
  const F inverse = div(set(1.0f), total);
  for (std::int64_t j = 0; j < keys; ++j) store(score + j * kLanes, mul(load(score + j * kLanes), inverse));
}

template <Precision P, class Row>
static void window_attention_as(const WindowAttention& args, Rows out) {
  alignas(64) float result[kMaxWidth];
  alignas(64) float score[kMaxWindow * kLanes];
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const Row query(args.query[r]);
    const void* const* key = args.key + r * args.max_keys;
    const std::int64_t keys = args.keys[r];
    for (std::int64_t first = 0; first < args.heads; first += kLanes) {
      const std::int64_t heads = args.heads - first < kLanes ? args.heads - first : kLanes;
      for (std::int64_t j = 0; j < keys; ++j) {
        const Row k(key[j]);
        for (std::int64_t h = 0; h < heads; ++h) {
          const std::int64_t base = (first + h) * args.head_dim;
          F dot = zero();
          for_vectors(
              args.head_dim, [&](std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
                dot = fma(query.at(base + i, n), k.at(base + i, n), dot);
              });
          score[j * kLanes + h] = sum(dot);
        }
        for (std::int64_t h = heads; h < kLanes; ++h) score[j * kLanes + h] = 0.0f;
      }
      softmax_heads(score, keys);
      for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t base = (first + h) * args.head_dim;
        for_vectors(
            args.head_dim, [&](std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
              F value = zero();
              for (std::int64_t j = 0; j < keys; ++j) {
                value = fma(set(score[j * kLanes + h]), Row(key[j]).at(args.value_offset + base + i, n), value);
              }
              store_n(result + base + i, value, n);
            });
      }
    }
    write_row<P>(result, args.heads * args.head_dim, out, r);
  }
}

template <Precision P>
static void window_attention_from(const WindowAttention& args, Rows out) {
  args.storage == Store::f32 ? window_attention_as<P, FloatRow>(args, out) : window_attention_as<P, Bf16Row>(args, out);
}

static void window_attention(const WindowAttention& args, Precision precision, Rows out) {
  switch (precision) {
    case Precision::fp32:
      return window_attention_from<Precision::fp32>(args, out);
    case Precision::bf16:
      return window_attention_from<Precision::bf16>(args, out);
    case Precision::int8:
      return window_attention_from<Precision::int8>(args, out);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Full attention: two GEMMs with the register tiles of gemm.inl.h, and a softmax between them
// ---------------------------------------------------------------------------------------------------------------------

constexpr int kAttentionRows = DotF32::kRows;
static_assert(AttentionDot::kRows == kAttentionRows);

// Scratch of one head, in 32-bit words: K and V as GEMM weights, and kAttentionRows queries with their scores.
struct AttentionScratch {
  std::int64_t depth;                            // words of a query (at most)
  std::int64_t keys;                             // tokens, rounded up to whole panels
  std::int64_t columns;                          // head_dim, rounded up to whole panels
  std::int64_t k, v, query, score, tile, total;  // first word of each part, and how many there are

  AttentionScratch(std::int64_t tokens, std::int64_t head_dim)
      : depth(padded_n_of(head_dim)), keys(padded_n_of(tokens)), columns(padded_n_of(head_dim)) {
    k = 0;
    v = k + keys * depth;
    query = v + keys * columns;
    score = query + kAttentionRows * depth;
    tile = score + kAttentionRows * keys;
    total = tile + kAttentionRows * kTileColumns;
  }
};

static std::size_t full_attention_scratch(std::int64_t tokens, std::int64_t head_dim) {
  return static_cast<std::size_t>(AttentionScratch(tokens, head_dim).total) * sizeof(std::uint32_t);
}

// The keys as weights: panels of [words, kTileColumns keys].
template <class Dot, class Row>
LEWM_INLINE void pack_keys(const char* k, std::int64_t stride, std::int64_t tokens, std::int64_t keys, std::int64_t d,
                           std::uint32_t* out) {
  const std::int64_t words = (d + Dot::kGroup - 1) / Dot::kGroup;
  for (std::int64_t j = 0; j < keys; ++j) {
    std::uint32_t* column = out + j / kTileColumns * kTileColumns * words + j % kTileColumns;
    const Row row(k + j * stride);  // read only where j < tokens
    for (std::int64_t w = 0; w < words; ++w) {
      column[w * kTileColumns] = j < tokens ? row.template word<Dot::kGroup>(w, d) : 0u;
    }
  }
}

// The values as weights: panels of [words of keys, kTileColumns elements of the head].
template <class Dot, class Row>
LEWM_INLINE void pack_values(const char* v, std::int64_t stride, std::int64_t tokens, std::int64_t keys, std::int64_t d,
                             std::int64_t columns, std::uint32_t* out) {
  const std::int64_t words = keys / Dot::kGroup;
  for (std::int64_t w = 0; w < words; ++w) {
    for (std::int64_t c = 0; c < columns; ++c) {
      std::uint32_t bits = 0;
      for (int g = 0; g < Dot::kGroup; ++g) {
        const std::int64_t j = w * Dot::kGroup + g;
        if (j >= tokens || c >= d) continue;
        const std::uint32_t element = Row(v + j * stride).element(c);
        bits |= Dot::kGroup == 1 ? element : element >> 16 << 16 * g;
      }
      out[c / kTileColumns * kTileColumns * words + w * kTileColumns + c % kTileColumns] = bits;
    }
  }
}

// score: [keys] logits -> exp(logit - max) as GEMM input, zero from `tokens` on. Returns one over their sum.
template <class Dot>
LEWM_INLINE float softmax_row(float* score, std::int64_t tokens, std::int64_t keys) {
  const std::int64_t whole = tokens / kLanes * kLanes;
  F top = set(score[0]);
  for (std::int64_t i = 0; i < whole; i += kLanes) top = max(top, load(score + i));
  for (std::int64_t i = whole; i < tokens; ++i) top = max(top, set(score[i]));
  top = set(largest(top));
  F total = zero();
  for (std::int64_t i = 0; i < keys; i += kLanes) {
    F e = exp(sub(load(score + i), top));
    if (i >= whole) e = keep_n(e, tokens - i);
    total = add(total, e);
    if constexpr (Dot::kGroup == 1) {
      store(score + i, e);
    } else {
      store(reinterpret_cast<std::uint16_t*>(score) + i, e);
    }
  }
  return 1.0f / sum(total);
}

template <class Dot, class Row>
static void full_attention_as(const FullAttention& args) {
  constexpr std::int64_t kElement = sizeof(typename Row::Element);
  const AttentionScratch layout(args.tokens, args.head_dim);
  std::uint32_t* scratch = static_cast<std::uint32_t*>(args.scratch);
  float* score = reinterpret_cast<float*>(scratch + layout.score);
  std::uint32_t* tile = scratch + layout.tile;
  const std::int64_t stride = args.stride * kElement;
  const std::int64_t depth = (args.head_dim + Dot::kGroup - 1) / Dot::kGroup;
  pack_keys<Dot, Row>(static_cast<const char*>(args.k), stride, args.tokens, layout.keys, args.head_dim,
                      scratch + layout.k);
  pack_values<Dot, Row>(static_cast<const char*>(args.v), stride, args.tokens, layout.keys, args.head_dim,
                        layout.columns, scratch + layout.v);
  for (std::int64_t t = args.first; t < args.last; t += kAttentionRows) {
    const std::int64_t rows = args.last - t < kAttentionRows ? args.last - t : kAttentionRows;
    const Multiply multiply_rows = select_multiply<Dot>(rows);
    for (std::int64_t r = 0; r < rows; ++r) {
      const Row row(static_cast<const char*>(args.q) + (t + r) * stride);
      for (std::int64_t w = 0; w < depth; ++w) {
        scratch[layout.query + r * depth + w] = row.template word<Dot::kGroup>(w, args.head_dim);
      }
    }
    for (std::int64_t j = 0; j < layout.keys; j += kTileColumns) {
      multiply_rows(reinterpret_cast<const char*>(scratch + layout.query), depth * 4,
                    reinterpret_cast<const char*>(scratch + layout.k + j * depth), depth, scratch + layout.score + j,
                    layout.keys);
    }
    float inverse[kAttentionRows];
    for (std::int64_t r = 0; r < rows; ++r)
      inverse[r] = softmax_row<Dot>(score + r * layout.keys, args.tokens, layout.keys);
    const std::int64_t words = layout.keys / Dot::kGroup;
    for (std::int64_t c = 0; c < args.head_dim; c += kTileColumns) {
      multiply_rows(reinterpret_cast<const char*>(score), layout.keys * 4,
                    reinterpret_cast<const char*>(scratch + layout.v + c * words), words, tile, kTileColumns);
      const std::int64_t columns = args.head_dim - c < kTileColumns ? args.head_dim - c : kTileColumns;
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

static void full_attention(const FullAttention& args) {
  args.storage == Store::f32 ? full_attention_as<DotF32, FloatRow>(args)
                             : full_attention_as<AttentionDot, Bf16Row>(args);
}

}  // namespace lewm::cpu::LEWM_SIMD
