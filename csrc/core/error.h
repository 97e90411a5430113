// Errors inside the core are exceptions that carry a C status; capi turns them into codes at the boundary.
#pragma once

#include <stdexcept>
#include <string>

namespace lewm {

// Same values as lewm_status in lewm/lewm.h (checked by static_assert in capi/library.cpp).
enum class Status : int {
  ok = 0,
  invalid_argument = 1,  // an argument the caller can mend; the message names it
  file_not_found = 2,
  bad_file = 3,     // a file that is truncated, lies about its contents, or is of the wrong kind
  unsupported = 4,  // a valid request that this build, machine or model cannot serve
  out_of_memory = 5,
  no_finite_cost = 6,  // fewer finite costs than elites
  internal = 7,
};

class Error : public std::runtime_error {
 public:
  Error(Status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  Status status() const { return status_; }

 private:
  Status status_;
};

}  // namespace lewm
