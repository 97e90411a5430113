// Argument checks that neither allocate nor throw: a status, and a message in a fixed buffer.
#pragma once

#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>

#include "core/error.h"

namespace lewm {

class Checks {
 public:
  const char* message() const { return text_; }
  void clear() { text_[0] = 0; }

  [[gnu::format(printf, 3, 4)]] Status refuse(Status status, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text_, sizeof text_, format, arguments);
    va_end(arguments);
    return status;
  }

  Status present(const char* name, const void* pointer) {
    return pointer ? Status::ok : refuse(Status::invalid_argument, "%s: expected an array, got null", name);
  }

  Status in_range(const char* name, std::int64_t value, std::int64_t least, std::int64_t most) {
    if (value >= least && value <= most) return Status::ok;
    return refuse(Status::invalid_argument, "%s: expected %lld..%lld, got %lld", name, static_cast<long long>(least),
                  static_cast<long long>(most), static_cast<long long>(value));
  }

  // Present, and n finite numbers.
  Status finite(const char* name, const float* values, std::int64_t n) {
    if (!values) return present(name, values);
    for (std::int64_t i = 0; i < n; ++i) {
      if (!std::isfinite(values[i])) {
        return refuse(Status::invalid_argument, "%s: expected finite numbers, got %f at element %lld", name,
                      static_cast<double>(values[i]), static_cast<long long>(i));
      }
    }
    return Status::ok;
  }

 private:
  char text_[256] = "";
};

}  // namespace lewm
