// The reference GEMM: plain loops over packed columns, with the same roundings as the vector tiers.
#include <cmath>
#include <type_traits>

#include "cpu/kernels_scalar.h"

namespace lewm::cpu::scalar {
namespace {

constexpr std::int64_t kColumns =
    16;  // weights are packed as [n / 16][k][16], so that compilers may vectorise plain loops

std::int64_t padded_k(std::int64_t k) { return k; }
std::int64_t padded_n(std::int64_t n) { return round_up(n, kColumns); }

template <class T>
std::size_t packed_bytes(std::int64_t n, std::int64_t k) {
  return static_cast<std::size_t>(padded_n(n) * k) * sizeof(T);
}

void pack_bias(const float* bias, std::int64_t n, PackedMatrix* out) {
  for (std::int64_t j = 0; j < padded_n(n); ++j) out->bias[j] = bias && j < n ? bias[j] : 0.0f;
}

// encode(column, value) -> T
template <class T, class Encode>
void pack_columns(const float* w, std::int64_t n, std::int64_t k, PackedMatrix* out, Encode encode) {
  out->n = n;
  out->k = k;
  T* data = static_cast<T*>(out->data);
  for (std::int64_t j = 0; j < padded_n(n); ++j) {
    T* column = data + j / kColumns * k * kColumns + j % kColumns;
    for (std::int64_t i = 0; i < k; ++i) column[i * kColumns] = j < n ? encode(j, w[j * k + i]) : T{};
  }
}

void pack_f32(const float* w, const float* bias, std::int64_t n, std::int64_t k, PackedMatrix* out) {
  pack_columns<float>(w, n, k, out, [](std::int64_t, float value) { return value; });
  pack_bias(bias, n, out);
}

void pack_bf16(const float* w, const float* bias, std::int64_t n, std::int64_t k, PackedMatrix* out) {
  pack_columns<std::uint16_t>(w, n, k, out, [](std::int64_t, float value) { return bf16_from_float(value); });
  pack_bias(bias, n, out);
}

// T: int8_t, int16_t or Digits, with as many levels as its rows have.
template <class T>
void pack_integers(const float* w, const float* bias, std::int64_t n, std::int64_t k, PackedMatrix* out) {
  constexpr bool kIsDigits = std::is_same_v<T, Digits>;
  const float levels = kIsDigits ? kInt24Levels : sizeof(T) == 1 ? kInt8Levels : int16_levels(k);
  for (std::int64_t j = 0; j < padded_n(n); ++j) {
    out->scale[j] = j < n ? integer_scale(w + j * k, k, levels) : 0.0f;
    out->sum[j] = 0;
  }
  pack_columns<T>(w, n, k, out, [out](std::int64_t j, float value) {
    const std::int32_t quantised = quantise(value, out->scale[j]);
    if constexpr (kIsDigits) {
      return digits_of(quantised);
    } else {
      out->sum[j] += quantised;
      return static_cast<T>(quantised);
    }
  });
  pack_bias(bias, n, out);
}

template <Precision P>
void convert(const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t k, Rows out) {
  for (std::int64_t r = 0; r < rows; ++r) write_row(x + r * x_stride, k, P, out, r);
}

float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::gelu:
      return 0.5f * x * (1.0f + std::erf(x * 0.70710678f));
    case Activation::silu:
      return x / (1.0f + std::exp(-x));
  }
  return x;
}

// y[0..count) of one row, from x W^T before the bias.
void finish_row(const float* product, std::int64_t row, std::int64_t first, std::int64_t count, const PackedMatrix& w,
                const Epilogue& e, void* y, std::int64_t y_stride) {
  for (std::int64_t c = 0; c < count; ++c) {
    const std::int64_t j = first + c;
    float value = activate(product[c] + w.bias[j], e.activation);
    if (e.addend) value += e.addend[row][e.addend_offset + j];
    if (e.gate) value *= stored(e.gate[row], e.gate_offset + j, e.gate_storage);
    if (e.residual) value += e.residual[row * e.residual_stride + j];
    if (e.store == Store::f32) {
      static_cast<float*>(y)[row * y_stride + j] = value;
    } else {
      static_cast<std::uint16_t*>(y)[row * y_stride + j] = bf16_from_float(value);
    }
  }
}

// One row against kColumns columns: dot[c] = sum over k, in order.
void dot_columns(const float* x, const float* w, std::int64_t k, float* product) {
  float dot[kColumns] = {};
  for (std::int64_t i = 0; i < k; ++i) {
    for (std::int64_t c = 0; c < kColumns; ++c) dot[c] += x[i] * w[i * kColumns + c];
  }
  for (std::int64_t c = 0; c < kColumns; ++c) product[c] = dot[c];
}

void dot_columns(const std::uint16_t* x, const std::uint16_t* w, std::int64_t k, float* product) {
  float dot[kColumns] = {};
  for (std::int64_t i = 0; i < k; ++i) {
    for (std::int64_t c = 0; c < kColumns; ++c) dot[c] += float_from_bf16(x[i]) * float_from_bf16(w[i * kColumns + c]);
  }
  for (std::int64_t c = 0; c < kColumns; ++c) product[c] = dot[c];
}

template <class X, class W>
void dot_columns(const X* x, const W* w, std::int64_t k, std::int32_t* product) {
  std::int32_t dot[kColumns] = {};
  for (std::int64_t i = 0; i < k; ++i) {
    for (std::int64_t c = 0; c < kColumns; ++c) dot[c] += x[i] * w[i * kColumns + c];
  }
  for (std::int64_t c = 0; c < kColumns; ++c) product[c] = dot[c];
}

template <class T>
void run_float(Rows x, std::int64_t rows, const PackedMatrix& w, const Epilogue& epilogue, void* y,
               std::int64_t y_stride) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t j = 0; j < w.n; j += kColumns) {
      float product[kColumns];
      dot_columns(static_cast<const T*>(x.data) + r * x.stride, static_cast<const T*>(w.data) + j * w.k, w.k, product);
      finish_row(product, r, j, w.n - j < kColumns ? w.n - j : kColumns, w, epilogue, y, y_stride);
    }
  }
}

template <class X, class W, std::int32_t kZero>
void run_integers(Rows x, std::int64_t rows, const PackedMatrix& w, const Epilogue& epilogue, void* y,
                  std::int64_t y_stride) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t j = 0; j < w.n; j += kColumns) {
      std::int32_t dot[kColumns];
      float product[kColumns];
      dot_columns(static_cast<const X*>(x.data) + r * x.stride, static_cast<const W*>(w.data) + j * w.k, w.k, dot);
      for (std::int64_t c = 0; c < kColumns; ++c) {
        product[c] = static_cast<float>(dot[c] - kZero * w.sum[j + c]) * (x.scale[r] * w.scale[j + c]);
      }
      finish_row(product, r, j, w.n - j < kColumns ? w.n - j : kColumns, w, epilogue, y, y_stride);
    }
  }
}

// Of the nine products of digits the six in which the two are, together, at most two places from the highest; the
// others weigh less than a float's rounding.
void run_int24(Rows x, std::int64_t rows, const PackedMatrix& w, const Epilogue& epilogue, void* y,
               std::int64_t y_stride) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int8_t* row = static_cast<const std::int8_t*>(x.data) + r * x.stride * kInt24Digits;
    for (std::int64_t j = 0; j < w.n; j += kColumns) {
      std::int32_t dot[kInt24Digits][kColumns] = {};  // by how far the two digits are from the highest, together
      const Digits* panel = static_cast<const Digits*>(w.data) + j * w.k;
      for (std::int64_t i = 0; i < w.k; ++i, panel += kColumns) {
        for (int a = 0; a < kInt24Digits; ++a) {
          for (int b = 0; a + b < kInt24Digits; ++b) {
            for (std::int64_t c = 0; c < kColumns; ++c) dot[a + b][c] += row[a * w.k + i] * panel[c].digit[b];
          }
        }
      }
      float product[kColumns];
      for (std::int64_t c = 0; c < kColumns; ++c) {
        const float total = kInt24High * static_cast<float>(dot[0][c]) + kInt24Middle * static_cast<float>(dot[1][c]) +
                            kInt24Low * static_cast<float>(dot[2][c]);
        product[c] = total * (x.scale[r] * w.scale[j + c]);
      }
      finish_row(product, r, j, w.n - j < kColumns ? w.n - j : kColumns, w, epilogue, y, y_stride);
    }
  }
}

}  // namespace

const Gemm kGemm[kLayerPrecisions] = {
    {sizeof(float), padded_k, padded_n, packed_bytes<float>, pack_f32, convert<Precision::fp32>, run_float<float>},
    {sizeof(std::uint16_t), padded_k, padded_n, packed_bytes<std::uint16_t>, pack_bf16, convert<Precision::bf16>,
     run_float<std::uint16_t>},
    {sizeof(std::uint8_t), padded_k, padded_n, packed_bytes<std::int8_t>, pack_integers<std::int8_t>,
     convert<Precision::int8>, run_integers<std::uint8_t, std::int8_t, kInt8Zero>},
    {sizeof(std::int16_t), padded_k, padded_n, packed_bytes<std::int16_t>, pack_integers<std::int16_t>,
     convert<Precision::int16>, run_integers<std::int16_t, std::int16_t, 0>},
    {sizeof(Digits), padded_k, padded_n, packed_bytes<Digits>, pack_integers<Digits>, convert<Precision::int24>,
     run_int24},
};

}  // namespace lewm::cpu::scalar
