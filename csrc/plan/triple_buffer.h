// One writer, one reader, neither ever waits: the reader sees the newest value that was published in full.
#pragma once

#include <atomic>
#include <cstdint>

namespace lewm {

template <class T>
class TripleBuffer {
 public:
  // All three slots, before the writer and the reader start.
  template <class Function>
  void initialise(Function&& function) {
    for (T& slot : slots_) function(slot);
  }

  // --- the writer's ---
  T& back() { return slots_[back_]; }
  void publish() { back_ = middle_.exchange(back_ | kFresh, std::memory_order_acq_rel) & kIndex; }

  // --- the reader's ---
  // Whether something was published since the last take(); if so front() is that.
  bool take() {
    if (!(middle_.load(std::memory_order_relaxed) & kFresh)) return false;
    front_ = middle_.exchange(front_, std::memory_order_acq_rel) & kIndex;
    return true;
  }
  const T& front() const { return slots_[front_]; }

 private:
  static constexpr std::uint32_t kFresh = 4, kIndex = 3;
  T slots_[3];
  std::uint32_t back_ = 0;
  std::uint32_t front_ = 1;
  std::atomic<std::uint32_t> middle_{2};
};

}  // namespace lewm
