// What a child of fork() does, in a test. A worker that had just started might hold a lock in the parent:
// AddressSanitizer's allocator (up to GCC 13) does not release it in the child, so callers first make their threads
// meet in some work.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

// Not with ThreadSanitizer, which does not follow a fork of a threaded process.
#if !defined(CHECK_THREAD_SANITIZER)
#define CHECK_FORKS

// Calls `body`, which returns a bool, in a forked child; what it returned. false, too, from a child that did not end
// within a minute: it is killed, where a waiting one would keep the test's output, and so CTest, for ever.
template <class Body>
bool forked_child_returns_true(Body&& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(body() ? 0 : 1);
  }
  int status = -1;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
#endif
