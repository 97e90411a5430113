// Checked reading of named tensors.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "model/folding.h"
#include "model/tensors.h"

namespace lewm {

// The published name of a tensor. Since transformers 5 encoder layers have other names
// (encoder.layers.N.attention.q_proj.weight, ...); every other name is returned as it is.
std::string published_name(std::string_view name);

// Every read checks that the tensor is there, floating point, of the expected shape, and finite as a float; else
// Error(bad_file) naming it. finish() throws for tensors that nothing has read. What is read lives in the reader's
// memory and must not outlive it.
class WeightReader {
 public:
  explicit WeightReader(const TensorSource& source);

  Values read(const std::string& name, const std::vector<std::int64_t>& shape);

  // prefix.weight of `shape` (by default {out, in}) and prefix.bias (zero if has_bias is false and it is not read).
  Affine linear(const std::string& prefix, std::int64_t out, std::int64_t in, bool has_bias = true,
                const std::vector<std::int64_t>& shape = {});
  NormAffine norm(const std::string& prefix, std::int64_t size);
  BatchNorm batch_norm(const std::string& prefix, std::int64_t size);

  void finish() const;

 private:
  struct Tensor {
    std::string_view source_name;
    const TensorView* view;
    bool used = false;
  };
  const TensorSource& source_;
  ReusedMemory memory_;
  std::map<std::string, Tensor, std::less<>> tensors_;  // by published name
};

}  // namespace lewm
