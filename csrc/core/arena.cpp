#include "core/arena.h"

#include <cstring>
#include <new>
#include <string>

#include "core/error.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lewm {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::size_t alignment_of(std::size_t bytes) { return bytes >= kHugePage ? kHugePage : kAlignment; }

}  // namespace

AlignedBlock::AlignedBlock(std::size_t bytes) {
  if (bytes == 0) return;
  const std::size_t alignment = alignment_of(bytes);
  const std::size_t padded = (bytes + alignment - 1) / alignment * alignment;
  // Beyond PTRDIFF_MAX no allocation can succeed; the padding above may also have wrapped around.
  // operator new, so that an application that replaces it provides this memory too, and may run out of it in a test.
  if (padded >= bytes && padded <= PTRDIFF_MAX) {
    data_ = static_cast<std::byte*>(::operator new (padded, std::align_val_t{alignment}, std::nothrow));
  }
  if (!data_) throw Error(Status::out_of_memory, "out of memory: " + std::to_string(bytes) + " bytes wanted");
  bytes_ = bytes;
#if defined(__linux__)
  if (alignment == kHugePage) madvise(data_, padded, MADV_HUGEPAGE);  // a hint: fewer TLB misses while weights stream
#endif
  std::memset(data_, 0, padded);  // also touches every page, so that no page fault is left for the control loop
}

AlignedBlock::~AlignedBlock() {
  if (data_) ::operator delete (data_, std::align_val_t{alignment_of(bytes_)});
}

}  // namespace lewm
