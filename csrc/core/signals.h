// Signals belong to the application's threads: what blocks them while a thread of the library's own is started.
#pragma once

#include <pthread.h>
#include <signal.h>

namespace lewm {

// All signals blocked in this thread, as long as it lives. Threads inherit the mask they are started under.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &previous_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t previous_;
};

}  // namespace lewm
