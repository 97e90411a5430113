// A test runner in a page: TEST(name) { CHECK(...); } and one main per file. Exit status 1 when a check failed.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

// Which sanitizer this was built with; clang says so in another way than gcc.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CHECK_ADDRESS_SANITIZER
#endif
#if __has_feature(thread_sanitizer)
#define CHECK_THREAD_SANITIZER
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define CHECK_ADDRESS_SANITIZER
#endif
#if defined(__SANITIZE_THREAD__)
#define CHECK_THREAD_SANITIZER
#endif

namespace check {

struct Test {
  const char* name;
  void (*body)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}
inline int& failures() {
  static int count = 0;
  return count;
}
inline void fail(const char* file, int line, const std::string& what) {
  std::printf("%s:%d: %s\n", file, line, what.c_str());
  ++failures();
}
struct Register {
  Register(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

// Runs the tests whose name contains argv[1], or all. That none does is a failure, but with a planted fault
// (tests/cuda/faults.h), where a failure is what CTest wants to see, it is none.
inline int main(int argc, char** argv) {
  int run = 0;
  for (const Test& test : tests()) {
    if (argc > 1 && !std::strstr(test.name, argv[1])) continue;
    ++run;
    const int before = failures();
    try {
      test.body();
    } catch (const std::exception& e) {
      fail(test.name, 0, std::string("unexpected exception: ") + e.what());
    }
    std::printf("%s %s\n", failures() == before ? "ok  " : "FAIL", test.name);
  }
  if (!run) {
    std::printf("no test ran\n");
    return std::getenv("LEWM_CUDA_FAULT") ? 0 : 1;
  }
  return failures() ? 1 : 0;
}

}  // namespace check

#define TEST(name)                                           \
  static void name();                                        \
  static const check::Register register_##name(#name, name); \
  static void name()
#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) check::fail(__FILE__, __LINE__, "CHECK(" #condition ")"); \
  } while (0)
#define CHECK_EQ(a, b)                                                            \
  do {                                                                            \
    const auto a_ = (a);                                                          \
    const auto b_ = (b);                                                          \
    if (!(a_ == b_)) check::fail(__FILE__, __LINE__, "CHECK_EQ(" #a ", " #b ")"); \
  } while (0)
#define CHECK_NEAR(a, b, tolerance)                                                                   \
  do {                                                                                                \
    const double a_ = (a), b_ = (b);                                                                  \
    if (!(std::fabs(a_ - b_) <= (tolerance)))                                                         \
      check::fail(__FILE__, __LINE__,                                                                 \
                  "CHECK_NEAR(" #a ", " #b "): " + std::to_string(a_) + " vs " + std::to_string(b_)); \
  } while (0)
// The expression throws an exception of this type whose message contains `part`.
#define CHECK_THROWS(expression, Type, part)                                                      \
  do {                                                                                            \
    bool thrown_ = false;                                                                         \
    try {                                                                                         \
      (void)(expression);                                                                         \
    } catch (const Type& e_) {                                                                    \
      thrown_ = true;                                                                             \
      if (std::string(e_.what()).find(part) == std::string::npos)                                 \
        check::fail(__FILE__, __LINE__, std::string("message of " #expression ": ") + e_.what()); \
    }                                                                                             \
    if (!thrown_) check::fail(__FILE__, __LINE__, #expression " did not throw " #Type);           \
  } while (0)
#define CHECK_MAIN \
  int main(int argc, char** argv) { return check::main(argc, argv); }
