// Thread pools with a place and a rank: which cores they run on, and before whom.
#pragma once

#include <cstdint>
#include <memory>

#include "core/thread_pool.h"

namespace lewm {

struct ThreadOptions {
  int threads = 0;             // counting the caller of a pool's run(); 0: one per core (of cpu_mask, where given)
  std::uint64_t cpu_mask = 0;  // bit i: core i may be used, cores 0..63; 0: as the creating thread
  int priority = 0;            // 1..99: SCHED_FIFO at that priority; 0: as the creating thread
};

// Applies mask and priority to the calling thread. Throws Error(unsupported) when the system refuses.
void place_this_thread(const ThreadOptions& options);

// A pool whose own threads are so placed. The thread that calls run() is the caller's to place.
std::shared_ptr<ThreadPool> make_pool(const ThreadOptions& options);

}  // namespace lewm
