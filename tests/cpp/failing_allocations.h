// Counts heap allocations, knows how many are live, and can make the n-th one fail. Include in one file of a test.
#pragma once

#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>

inline std::atomic<long> allocations{0};       // since the process began
inline std::atomic<long> live_allocations{0};  // not freed yet
inline std::atomic<long> until_failure{std::numeric_limits<long>::max()};

// The allocation after the next n fails, and all that follow until stop_failing().
inline void fail_after(long n) { until_failure = n; }
// Whether one failed.
inline bool stop_failing() { return until_failure.exchange(std::numeric_limits<long>::max()) < 0; }

namespace allocation_detail {
inline void* counted(void* memory) {
  if (!memory) throw std::bad_alloc();
  ++allocations;
  ++live_allocations;
  return memory;
}
inline void may_fail() {
  if (--until_failure < 0) throw std::bad_alloc();
}
}  // namespace allocation_detail

[[gnu::noinline]] void* operator new(std::size_t size) {
  allocation_detail::may_fail();
  return allocation_detail::counted(std::malloc(size ? size : 1));
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
  allocation_detail::may_fail();
  const std::size_t step = static_cast<std::size_t>(alignment);
  return allocation_detail::counted(std::aligned_alloc(step, (size + step) / step * step));
}
// Sanitizers have all of these, none of which calls another: where one is replaced, its like must be.
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  try {
    return operator new(size, alignment);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  if (memory) --live_allocations;
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { operator delete(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  operator delete(memory);
}
