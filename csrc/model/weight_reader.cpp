#include "model/weight_reader.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/half.h"
#include "cpu/bf16.h"

namespace lewm {
namespace {

// Inside an encoder layer: the name since transformers 5, and the published one.
constexpr std::pair<std::string_view, std::string_view> kRenamed[] = {
    {"attention.q_proj.", "attention.attention.query."},
    {"attention.k_proj.", "attention.attention.key."},
    {"attention.v_proj.", "attention.attention.value."},
    {"attention.o_proj.", "attention.output.dense."},
    {"mlp.fc1.", "intermediate.dense."},
    {"mlp.fc2.", "output.dense."},
    {"layernorm_before.", "layernorm_before."},
    {"layernorm_after.", "layernorm_after."},
};

[[noreturn]] void fail(std::string_view name, const std::string& what) {
  throw Error(Status::bad_file, "tensor " + std::string(name) + ": " + what);
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

constexpr std::size_t kAtOnce = 8192;  // elements that are read and converted at a time

// Appends elements of a floating-point type. Returns the index of the first that is no finite float, or `count`.
template <class Stored, class Convert>
std::size_t widen(Values& values, const TensorSource& source, std::string_view name, std::size_t count,
                  Convert convert) {
  Stored stored[kAtOnce];
  float narrow[kAtOnce];
  for (std::size_t first = 0; first < count; first += kAtOnce) {
    const std::size_t n = std::min(kAtOnce, count - first);
    source.read(name, first * sizeof(Stored), stored, n * sizeof(Stored));
    values.resize(first + n);
    double* wide = values.data() + first;
    for (std::size_t i = 0; i < n; ++i) {
      wide[i] = convert(stored[i]);
      narrow[i] = static_cast<float>(wide[i]);
    }
    if (!all_finite({narrow, n})) {
      return first + static_cast<std::size_t>(
                         std::find_if(narrow, narrow + n, [](float v) { return !std::isfinite(v); }) - narrow);
    }
  }
  return count;
}

std::size_t widen(Values& values, const TensorSource& source, std::string_view name, std::size_t count) {
  switch (source.find(name)->dtype) {
    case DType::f32:
      return widen<float>(values, source, name, count, [](float value) { return value; });
    case DType::f16:
      return widen<std::uint16_t>(values, source, name, count, float_from_f16);
    case DType::bf16:
      return widen<std::uint16_t>(values, source, name, count, cpu::float_from_bf16);
    default:
      return widen<double>(values, source, name, count, [](double value) { return value; });
  }
}

bool is_floating(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16 || dtype == DType::f64;
}

}  // namespace

std::string published_name(std::string_view name) {
  constexpr std::string_view kPrefix = "encoder.layers.";
  if (!name.starts_with(kPrefix)) return std::string(name);
  const std::string_view rest = name.substr(kPrefix.size());
  const std::size_t dot = rest.find('.');
  if (dot == std::string_view::npos) return std::string(name);
  const std::string_view field = rest.substr(dot + 1);
  std::string published = "encoder.encoder.layer." + std::string(rest.substr(0, dot + 1));
  for (const auto& [later, first] : kRenamed) {
    if (field.starts_with(later)) return published.append(first).append(field.substr(later.size()));
  }
  return std::string(name);
}

WeightReader::WeightReader(const TensorSource& source) : source_(source) {
  for (const std::string_view name : source.names()) {
    const auto [at, added] = tensors_.try_emplace(published_name(name), Tensor{name, source.find(name)});
    if (!added) fail(name, "the same tensor as " + std::string(at->second.source_name));
  }
}

Values WeightReader::read(const std::string& name, const std::vector<std::int64_t>& shape) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) fail(name, "missing");
  Tensor& tensor = found->second;
  tensor.used = true;
  if (!is_floating(tensor.view->dtype)) fail(tensor.source_name, "expected a floating-point dtype");
  if (tensor.view->shape != shape) {
    fail(tensor.source_name, "expected shape " + shape_text(shape) + ", got " + shape_text(tensor.view->shape));
  }
  std::size_t count = 1;
  for (const std::int64_t size : shape) count *= static_cast<std::size_t>(size);
  Values values(&memory_);
  values.reserve(count);
  if (const std::size_t i = widen(values, source_, tensor.source_name, count); i < count) {
    fail(tensor.source_name, "element " + std::to_string(i) + " is not a finite float");
  }
  return values;
}

Affine WeightReader::linear(const std::string& prefix, std::int64_t out, std::int64_t in, bool has_bias,
                            const std::vector<std::int64_t>& shape) {
  return {prefix, out, in, read(prefix + ".weight", shape.empty() ? std::vector{out, in} : shape),
          has_bias ? read(prefix + ".bias", {out}) : Values(static_cast<std::size_t>(out), &memory_)};
}

NormAffine WeightReader::norm(const std::string& prefix, std::int64_t size) {
  return {read(prefix + ".weight", {size}), read(prefix + ".bias", {size})};
}

BatchNorm WeightReader::batch_norm(const std::string& prefix, std::int64_t size) {
  BatchNorm norm{read(prefix + ".weight", {size}), read(prefix + ".bias", {size}),
                 read(prefix + ".running_mean", {size}), read(prefix + ".running_var", {size})};
  for (std::size_t i = 0; i < norm.variance.size(); ++i) {
    if (norm.variance[i] < 0) fail(prefix + ".running_var", "element " + std::to_string(i) + " is negative");
  }
  // Inference has no use for it: it may be absent, and of any dtype and shape.
  if (const auto count = tensors_.find(prefix + ".num_batches_tracked"); count != tensors_.end()) {
    count->second.used = true;
  }
  return norm;
}

void WeightReader::finish() const {
  for (const auto& [name, tensor] : tensors_) {
    if (!tensor.used) fail(tensor.source_name, "not a tensor of this model");
  }
}

}  // namespace lewm
