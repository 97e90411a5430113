#include "model/head.h"

#include <algorithm>
#include <cmath>

namespace lewm {
namespace {

constexpr float kHiddenEps = 1e-5f;

void gelu_in_place(float* x, std::int64_t n) {
  constexpr float kSqrtHalf = 0.70710678118654752f;
  for (std::int64_t i = 0; i < n; ++i) x[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * kSqrtHalf));
}

}  // namespace

HeadWeights build_head(WeightReader& reader, WeightMemory& memory, const HeadSource& source,
                       const std::string& hidden_norm, Precision precision) {
  HeadWeights head;
  head.eps = source.eps;
  head.in = static_cast<std::int64_t>(source.norm.gamma.size());
  if (!source.hidden) {
    if (source.before) {
      Affine only = *source.before;
      fold_input_norm(only, source.norm);
      head.first = memory.pack(only, precision);
    } else {
      head.gamma = memory.keep(source.norm.gamma);
      head.beta = memory.keep(source.norm.beta);
    }
    return head;
  }
  const std::int64_t in = source.before ? source.before->out : head.in;
  Affine first = reader.linear(source.prefix + ".net.0", source.hidden, in);
  if (source.before) first = compose(first, *source.before);
  fold_input_norm(first, source.norm);
  if (hidden_norm == "batch") fold_output_norm(first, reader.batch_norm(source.prefix + ".net.1", source.hidden));
  if (hidden_norm == "layer") {
    const NormAffine norm = reader.norm(source.prefix + ".net.1", source.hidden);
    head.hidden_gamma = memory.keep(norm.gamma);
    head.hidden_beta = memory.keep(norm.beta);
  }
  head.first = memory.pack(first, precision);
  head.second = memory.pack(reader.linear(source.prefix + ".net.3", source.out, source.hidden), precision);
  return head;
}

void HeadWorkspace::lay_out(Arena& arena, const cpu::Kernels& kernels, const HeadWeights& head, std::int64_t rows) {
  normed_ = take_rows(arena, kernels, head.first ? head.first.precision : Precision::fp32, rows, head.in);
  if (!head.second) return;
  const std::int64_t hidden = head.second.in();
  hidden_ = take_rows(arena, kernels, head.second.precision, rows, hidden);
  if (head.hidden_gamma) {
    staging_ = arena.take<float>(rows * hidden);
  } else if (is_integer(head.second.precision)) {
    staging_ = take_staging(arena, hidden);
  }
  if (head.hidden_gamma) hidden_normed_ = take_rows(arena, kernels, Precision::fp32, rows, hidden);
}

void HeadWorkspace::run(const cpu::Kernels& kernels, const HeadWeights& head, const float* x, std::int64_t x_stride,
                        std::int64_t rows, float* y, std::int64_t y_stride) {
  const cpu::LayerNorm norm{x, x_stride, rows, head.in, head.eps, head.gamma, head.beta};
  if (!head.first) {
    kernels.layer_norm(norm, Precision::fp32, normed_);
    for (std::int64_t r = 0; r < rows; ++r) {
      const float* from = static_cast<const float*>(normed_.data) + r * normed_.stride;
      std::copy(from, from + head.in, y + r * y_stride);
    }
    return;
  }
  kernels.layer_norm(norm, head.first.precision, normed_);
  if (!head.second) {
    run_linear(kernels, head.first, normed_, rows, {}, y, y_stride);
    return;
  }
  const std::int64_t hidden = head.second.in();
  if (head.hidden_gamma) {
    run_linear(kernels, head.first, normed_, rows, {}, staging_, hidden);
    kernels.layer_norm({staging_, hidden, rows, hidden, kHiddenEps, head.hidden_gamma, head.hidden_beta},
                       Precision::fp32, hidden_normed_);
    auto* values = static_cast<float*>(hidden_normed_.data);
    for (std::int64_t r = 0; r < rows; ++r) gelu_in_place(values + r * hidden_normed_.stride, hidden);
    convert_rows(kernels, head.second.precision, values, hidden_normed_.stride, rows, hidden, hidden_);
  } else {
    run_linear_to_rows(kernels, head.first, normed_, rows, cpu::Activation::gelu, head.second.precision, staging_,
                       hidden_);
  }
  run_linear(kernels, head.second, hidden_, rows, {}, y, y_stride);
}

}  // namespace lewm
