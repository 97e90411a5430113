// Where weights come from: a safetensors file (core/safetensors.h) or arrays that a caller holds.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace lewm {

enum class DType : int { f32, f16, bf16, f64, i64, i32, i16, i8, u8, boolean };

struct TensorView {
  DType dtype;
  std::vector<std::int64_t> shape;
  const void* data = nullptr;  // row-major, little-endian, any alignment; null where the source has to read() it
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual const TensorView* find(std::string_view name) const = 0;  // null when there is none
  virtual std::vector<std::string_view> names() const = 0;
  // Copies bytes of a tensor that find() knows, from `offset` on, inside its size. Throws Error where that fails.
  virtual void read(std::string_view name, std::size_t offset, void* to, std::size_t bytes) const {
    std::memcpy(to, static_cast<const char*>(find(name)->data) + offset, bytes);
  }
};

}  // namespace lewm
