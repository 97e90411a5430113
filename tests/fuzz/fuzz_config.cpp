// Any text as the "config" metadata: refused with an Error, or a configuration that survives being written and read
// again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/error.h"
#include "model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const lewm::Config config = lewm::config_from_json({reinterpret_cast<const char*>(data), size});
    const std::string written = lewm::config_to_json(config);
    if (lewm::config_to_json(lewm::config_from_json(written)) != written) std::abort();
  } catch (const lewm::Error&) {
  }
  return 0;
}
