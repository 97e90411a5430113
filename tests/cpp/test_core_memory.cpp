// Arena and half precision.
#include <cmath>
#include <cstdint>
#include <limits>

#include "check.h"
#include "core/arena.h"
#include "core/error.h"
#include "core/half.h"
#include "cpu/bf16.h"

using lewm::Arena;

TEST(arrays_are_aligned_zeroed_and_apart) {
  float* a = nullptr;
  std::uint8_t* b = nullptr;
  double* c = nullptr;
  int rounds = 0;
  const Arena arena([&](Arena& memory) {
    ++rounds;
    a = memory.take<float>(3);
    b = memory.take<std::uint8_t>(100);
    c = memory.take<double>(0);
  });
  CHECK_EQ(rounds, 2);  // once to measure, once to hand out
  CHECK_EQ(arena.bytes(), 64u + 128u);
  CHECK_EQ(reinterpret_cast<std::uintptr_t>(a) % lewm::kAlignment, 0u);
  CHECK_EQ(reinterpret_cast<std::byte*>(b) - reinterpret_cast<std::byte*>(a), 64);
  for (int i = 0; i < 100; ++i) CHECK_EQ(b[i], 0);
  CHECK(c != nullptr);
}

TEST(a_large_arena_is_usable_to_its_end) {
  std::uint8_t* bytes = nullptr;
  const std::int64_t n = (5 << 20) + 1;
  const Arena arena([&](Arena& memory) { bytes = memory.take<std::uint8_t>(n); });
  CHECK_EQ(bytes[n - 1], 0);
  bytes[n - 1] = 7;
  CHECK_EQ(bytes[n - 1], 7);
}

TEST(too_much_is_out_of_memory) {
  const auto take = [](std::int64_t count) { Arena([&](Arena& memory) { memory.take<double>(count); }); };
  const auto status_of = [&](std::int64_t count) {
    try {
      take(count);
    } catch (const lewm::Error& e) {
      return e.status();
    }
    return lewm::Status::ok;
  };
#if !defined(CHECK_ADDRESS_SANITIZER) && !defined(CHECK_THREAD_SANITIZER)  // whose allocators abort instead of failing
  CHECK(status_of(std::int64_t{1} << 44) == lewm::Status::out_of_memory);  // 128 TiB
#endif
  CHECK(status_of(std::numeric_limits<std::int64_t>::max()) == lewm::Status::out_of_memory);  // times 8 overflows
}

TEST(half_precision_is_exact) {
  // Every finite value against sign * fraction * 2^exponent.
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const int exponent = static_cast<int>((bits >> 10) & 0x1f);
    const int fraction = static_cast<int>(bits & 0x3ff);
    const double magnitude = exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
    const double expected = bits & 0x8000 ? -magnitude : magnitude;
    const float got = lewm::float_from_f16(static_cast<std::uint16_t>(bits));
    if (exponent == 31) {
      CHECK(fraction ? std::isnan(got) : std::isinf(got) && std::signbit(got) == (bits >= 0x8000));
    } else {
      CHECK(got == expected && std::signbit(got) == std::signbit(expected));
    }
  }
}

TEST(bf16_rounds_to_nearest_even) {
  CHECK_EQ(lewm::cpu::bf16_from_float(1.0f), 0x3f80);
  CHECK_EQ(lewm::cpu::bf16_from_float(1.0f + 0x1p-8f), 0x3f80);             // a tie, to even
  CHECK_EQ(lewm::cpu::bf16_from_float(1.0f + 3 * 0x1p-8f), 0x3f82);         // a tie, to even
  CHECK_EQ(lewm::cpu::bf16_from_float(1.0f + 0x1p-8f + 0x1p-20f), 0x3f81);  // above the tie
  CHECK(std::isnan(lewm::cpu::float_from_bf16(lewm::cpu::bf16_from_float(NAN))));
  CHECK_EQ(lewm::cpu::float_from_bf16(0xc049), -3.140625f);
}

CHECK_MAIN
