// Memory that an object plans at construction and never grows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "core/types.h"

namespace lewm {

// Zeroed, aligned memory; blocks of 2 MiB and more ask for huge pages. Throws Error(out_of_memory).
class AlignedBlock {
 public:
  AlignedBlock() = default;
  explicit AlignedBlock(std::size_t bytes);
  AlignedBlock(AlignedBlock&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedBlock& operator=(AlignedBlock&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~AlignedBlock();

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// One block, cut into arrays by a function that runs twice: once to measure, once to hand out.
//
//   void lay_out(Arena& arena) { x_ = arena.take<float>(rows * dim); ... }
//   Arena arena_([&](Arena& a) { lay_out(a); });
//
// Every array is 64-byte aligned and starts zeroed. While measuring, take() returns null.
class Arena {
 public:
  Arena() = default;

  template <class LayOut>
  explicit Arena(const LayOut& lay_out) {
    lay_out(*this);
    block_ = AlignedBlock(used_);
    used_ = 0;
    lay_out(*this);
  }

  // count: of T, at least 0. A size beyond the address space makes the construction throw Error(out_of_memory).
  template <class T>
  T* take(std::int64_t count) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kAlignment);
    return static_cast<T*>(take_bytes(static_cast<std::size_t>(count), sizeof(T)));
  }

  std::size_t bytes() const { return block_.bytes(); }

 private:
  void* take_bytes(std::size_t count, std::size_t size) {
    constexpr std::size_t kMost = std::numeric_limits<std::size_t>::max() / 2 + 1;  // more than any block
    const std::size_t bytes = count > kMost / size ? kMost : (count * size + kAlignment - 1) / kAlignment * kAlignment;
    const std::size_t offset = used_;
    used_ = bytes > kMost - offset ? kMost : offset + bytes;
    return block_.data() ? block_.data() + offset : nullptr;
  }

  AlignedBlock block_;
  std::size_t used_ = 0;
};

}  // namespace lewm
