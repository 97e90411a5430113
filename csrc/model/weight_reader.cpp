#include "model/weight_reader.h"

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
};

[[noreturn]] void fail(std::string_view name, const std::string& what) {
  throw Error(Status::bad_file, "tensor " + std::string(name) + ": " + what);
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

template <class T>
T load(const void* data, std::size_t i) {
  T value;
  std::memcpy(&value, static_cast<const char*>(data) + i * sizeof(T), sizeof(T));
  return value;
}

double element(const TensorView& view, std::size_t i) {
  switch (view.dtype) {
    case DType::f32:
      return load<float>(view.data, i);
    case DType::f16:
      return float_from_f16(load<std::uint16_t>(view.data, i));
    case DType::bf16:
      return cpu::float_from_bf16(load<std::uint16_t>(view.data, i));
    default:
      return load<double>(view.data, i);
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
  std::string_view field = rest.substr(dot + 1);
  std::string published = "encoder.encoder.layer." + std::string(rest.substr(0, dot + 1));
  for (const auto& [later, first] : kRenamed) {
    if (field.starts_with(later)) return published.append(first).append(field.substr(later.size()));
  }
  return published.append(field);
}

WeightReader::WeightReader(const TensorSource& source) {
  for (const std::string_view name : source.names()) {
    const auto [at, added] = tensors_.try_emplace(published_name(name), Tensor{name, source.find(name)});
    if (!added) fail(name, "the same tensor as " + std::string(at->second.source_name));
  }
}

std::vector<double> WeightReader::read(const std::string& name, const std::vector<std::int64_t>& shape) {
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
  std::vector<double> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = element(*tensor.view, i);
    if (!std::isfinite(static_cast<float>(values[i]))) {
      fail(tensor.source_name, "element " + std::to_string(i) + " is not a finite float");
    }
  }
  return values;
}

Affine WeightReader::linear(const std::string& prefix, std::int64_t out, std::int64_t in, bool has_bias,
                            const std::vector<std::int64_t>& shape) {
  Affine layer{prefix, out, in, read(prefix + ".weight", shape.empty() ? std::vector{out, in} : shape), {}};
  layer.bias = has_bias ? read(prefix + ".bias", {out}) : std::vector<double>(static_cast<std::size_t>(out));
  return layer;
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
  return norm;
}

void WeightReader::finish() const {
  for (const auto& [name, tensor] : tensors_) {
    if (!tensor.used && !name.ends_with(".num_batches_tracked")) {
      fail(tensor.source_name, "not a tensor of this model");
    }
  }
}

}  // namespace lewm
