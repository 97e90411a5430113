// Window attention: softmax over a few keys, vectorised over kLanes heads at a time. Include after
// attention_rows.inl.h.
#pragma once

namespace lewm::cpu::LEWM_SIMD {

// score: [keys, kLanes], in: logits of kLanes heads; out: weights that sum to one with that of the logit 0.
LEWM_INLINE void softmax_heads(float* score, std::int64_t keys) {
  F top = zero();
  for (std::int64_t j = 0; j < keys; ++j) top = max(top, load(score + j * kLanes));
  F total = exp(sub(zero(), top));
  for (std::int64_t j = 0; j < keys; ++j) {
    const F e = exp(sub(load(score + j * kLanes), top));
    store(score + j * kLanes, e);
    total = add(total, e);
  }
  const F inverse = div(set(1.0f), total);
  for (std::int64_t j = 0; j < keys; ++j) store(score + j * kLanes, mul(load(score + j * kLanes), inverse));
}

// The products of a head's query and key, added up lane by lane.
template <class Row>
LEWM_INLINE F products(Row query, Row key, std::int64_t base, std::int64_t head_dim) {
  F total = zero();
  std::int64_t i = 0;
  if constexpr (sizeof(typename Row::Element) == 2 && AttentionDot::kGroup == 2) {
    for (; i + 2 * kLanes <= head_dim; i += 2 * kLanes) {
      total = AttentionDot::dot(total, AttentionDot::load(query.p + base + i), AttentionDot::load(key.p + base + i));
    }
  }
  for (; i < head_dim; i += kLanes) {
    const std::int64_t n = head_dim - i < kLanes ? head_dim - i : kLanes;
    total = fma(query.at(base + i, n), key.at(base + i, n), total);
  }
  return total;
}

// Asks for elements [first, first + n) of a row.
template <class Row>
LEWM_INLINE void fetch(const void* row, std::int64_t first, std::int64_t n) {
  constexpr std::int64_t kLineElements = 64 / sizeof(typename Row::Element);
  const typename Row::Element* p = Row(row).p + first;
  for (std::int64_t i = 0; i < n; i += kLineElements) __builtin_prefetch(p + i);
}

template <Precision P, class Row>
static void window_attention_as(const WindowAttention& args, Rows out) {
  alignas(64) float result[kMaxWidth];
  alignas(64) float score[kMaxWindow * kLanes];
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const Row query(args.query[r]);
    const void* const* key = args.key + r * args.max_keys;
    const std::int64_t keys = args.keys[r];
    // The next row's keys and values were written a step ago or in another layer's time: they are far away.
    const void* const* later = key + (r + 1 < args.rows ? args.max_keys : 0);
    const std::int64_t later_keys = r + 1 < args.rows ? args.keys[r + 1] : 0;
    for (std::int64_t first = 0; first < args.heads; first += kLanes) {
      const std::int64_t heads = args.heads - first < kLanes ? args.heads - first : kLanes;
      for (std::int64_t j = 0; j < keys; ++j) {
        const Row k(key[j]);
        if (j < later_keys) fetch<Row>(later[j], first * args.head_dim, heads * args.head_dim);
        F dots[kLanes];
        for (std::int64_t h = 0; h < kLanes; ++h) {
          dots[h] = h < heads ? products(query, k, (first + h) * args.head_dim, args.head_dim) : zero();
        }
        store(score + j * kLanes, sums(dots));
      }
      softmax_heads(score, keys);
      for (std::int64_t j = 0; j < later_keys; ++j) {
        fetch<Row>(later[j], args.value_offset + first * args.head_dim, heads * args.head_dim);
      }
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
  with_precision(precision, [&](auto p) { window_attention_from<p.kValue>(args, out); });
}

}  // namespace lewm::cpu::LEWM_SIMD
