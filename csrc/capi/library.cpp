// The C interface: errors, the version, and that the numbers of lewm.h are the core's.
#include <string_view>

#include "capi/support.h"

using namespace lewm;
using namespace lewm::capi;

#define LEWM_TEXT_OF(x) #x
#define LEWM_TEXT(x) LEWM_TEXT_OF(x)
static_assert(std::string_view(LEWM_VERSION_STRING) ==
              LEWM_TEXT(LEWM_VERSION_MAJOR) "." LEWM_TEXT(LEWM_VERSION_MINOR) "." LEWM_TEXT(LEWM_VERSION_PATCH));

static_assert(LEWM_OK == static_cast<int>(Status::ok));
static_assert(LEWM_INVALID_ARGUMENT == static_cast<int>(Status::invalid_argument));
static_assert(LEWM_FILE_NOT_FOUND == static_cast<int>(Status::file_not_found));
static_assert(LEWM_BAD_FILE == static_cast<int>(Status::bad_file));
static_assert(LEWM_UNSUPPORTED == static_cast<int>(Status::unsupported));
static_assert(LEWM_OUT_OF_MEMORY == static_cast<int>(Status::out_of_memory));
static_assert(LEWM_NO_FINITE_COST == static_cast<int>(Status::no_finite_cost));
static_assert(LEWM_INTERNAL == static_cast<int>(Status::internal));
static_assert(LEWM_GREY == static_cast<int>(PixelFormat::grey) && LEWM_BGR == static_cast<int>(PixelFormat::bgr));
static_assert(LEWM_LETTERBOX == static_cast<int>(Fit::letterbox) && LEWM_CROP == static_cast<int>(Fit::crop));
static_assert(LEWM_PREDICTIVE_SAMPLING == static_cast<int>(Method::predictive_sampling));
static_assert(LEWM_COST_DISCOUNTED == static_cast<int>(CostMode::discounted));
static_assert(LEWM_PRECISION_INT8 == static_cast<int>(Precision::int8) + 1);

namespace {

const char* const kStatusNames[] = {"ok",          "invalid_argument", "file_not_found", "bad_file",
                                    "unsupported", "out_of_memory",    "no_finite_cost", "internal"};

}  // namespace

const char* lewm_last_error(void) { return last_error; }

const char* lewm_status_name(lewm_status status) {
  return status >= LEWM_OK && status <= LEWM_INTERNAL ? kStatusNames[status] : "unknown";
}

const char* lewm_version(void) { return LEWM_VERSION_STRING; }

lewm_status lewm_version_check(int major, int minor, int patch) {
  const bool same_series = major == LEWM_VERSION_MAJOR && (major > 0 || minor == LEWM_VERSION_MINOR);
  const bool not_newer = minor < LEWM_VERSION_MINOR || (minor == LEWM_VERSION_MINOR && patch <= LEWM_VERSION_PATCH);
  if (same_series && not_newer) return LEWM_OK;
  std::snprintf(last_error, sizeof last_error, "version: the header is %d.%d.%d, the library " LEWM_VERSION_STRING,
                major, minor, patch);
  return LEWM_UNSUPPORTED;
}
