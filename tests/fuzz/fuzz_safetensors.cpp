// Any bytes as a safetensors file: opened or refused with an Error, and every tensor of an opened one can be read.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "core/error.h"
#include "core/safetensors.h"

namespace {

// A file in memory that is rewritten for each input.
class MemoryFile {
 public:
  MemoryFile() : file_(memfd_create("fuzz", MFD_CLOEXEC)), path_("/proc/self/fd/" + std::to_string(file_)) {
    if (file_ < 0) std::abort();
  }
  const std::string& write(const std::uint8_t* data, std::size_t size) {
    if (ftruncate(file_, 0) != 0 || pwrite(file_, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
    return path_;
  }

 private:
  int file_;
  std::string path_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static MemoryFile memory;
  try {
    const lewm::SafetensorsFile file(memory.write(data, size));
    for (const std::string_view name : file.names()) {
      const lewm::TensorView* view = file.find(name);
      std::int64_t elements = 1;
      for (const std::int64_t side : view->shape) elements *= side;
      std::uint8_t last = 0;
      if (elements > 0) file.read(name, static_cast<std::size_t>(elements - 1), &last, 1);
    }
  } catch (const lewm::Error&) {
  }
  return 0;
}
