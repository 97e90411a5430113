// Where weights come from: a safetensors file (core/safetensors.h) or arrays that a caller holds.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace lewm {

enum class DType : int { f32, f16, bf16, f64, i64, i32, i8, u8 };

struct TensorView {
  DType dtype;
  std::vector<std::int64_t> shape;
  const void* data;  // row-major, little-endian, any alignment
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual const TensorView* find(std::string_view name) const = 0;  // null when there is none
  virtual std::vector<std::string_view> names() const = 0;
  // A hint: the view has been read and its memory may go. It can still be read, at the price of fetching it again.
  virtual void release(const TensorView&) const {}
};

}  // namespace lewm
