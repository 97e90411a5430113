#include "plan/threads.h"

#include <cerrno>
#include <cstring>
#include <exception>
#include <string>
#include <thread>

#include "core/error.h"
#include "core/signals.h"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace lewm {
namespace {

[[noreturn]] void refuse(const std::string& what, int error) {
  throw Error(Status::unsupported, what + ": the system refused: " + std::strerror(error));
}

}  // namespace

void place_this_thread(const ThreadOptions& options) {
#if defined(__linux__)
  if (options.cpu_mask) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int core = 0; core < 64; ++core) {
      if (options.cpu_mask >> core & 1) CPU_SET(core, &set);
    }
    if (const int error = pthread_setaffinity_np(pthread_self(), sizeof set, &set)) refuse("cpu_mask", error);
  }
  if (options.priority) {
    sched_param parameter{};
    parameter.sched_priority = options.priority;
    if (const int error = pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameter)) refuse("priority", error);
  }
#else
  if (options.cpu_mask || options.priority) refuse("cpu_mask, priority", ENOSYS);
#endif
}

std::shared_ptr<ThreadPool> make_pool(const ThreadOptions& options) {
  constexpr int kMost = 1024;
  if (options.threads < 0 || options.threads > kMost) {
    throw Error(Status::invalid_argument,
                "threads: expected 0.." + std::to_string(kMost) + ", got " + std::to_string(options.threads));
  }
  if (options.priority < 0 || options.priority > 99) {
    throw Error(Status::invalid_argument, "priority: expected 0..99, got " + std::to_string(options.priority));
  }
  if (!options.cpu_mask && !options.priority) return std::make_shared<ThreadPool>(options.threads);
  // Threads inherit their creator's mask and policy, so a short-lived thread with those creates the pool.
  std::shared_ptr<ThreadPool> pool;
  std::exception_ptr failure;
  {
    const BlockedSignals blocked;
    std::thread([&] {
      try {
        place_this_thread(options);
        pool = std::make_shared<ThreadPool>(options.threads);
      } catch (...) {
        failure = std::current_exception();
      }
    }).join();
  }
  if (failure) std::rethrow_exception(failure);
  return pool;
}

}  // namespace lewm
