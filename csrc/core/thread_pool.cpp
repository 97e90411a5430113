#include "core/thread_pool.h"

#include <unistd.h>

#include <exception>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/signals.h"
#include "core/types.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace lewm {
namespace {

// About 20 us on current cores: longer than the gap between two layers, shorter than a scheduler's tick.
constexpr int kSpins = 2000;
constexpr int kMaxThreads = 1024;

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `value` is no longer `old`: spins first, then sleeps on a futex.
std::uint32_t wait_for_change(const std::atomic<std::uint32_t>& value, std::uint32_t old) {
  for (int spin = 0; spin < kSpins; ++spin) {
    const std::uint32_t now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    pause_cpu();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

int available_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned cores = std::thread::hardware_concurrency();
  return cores ? static_cast<int>(cores) : 1;
}

}  // namespace

// A run is open while its tasks may be joined. Workers enter and leave through `gate`; the caller closes it when no
// task is left and waits only for those inside, never for a worker that has not woken up yet.
struct ThreadPool::State {
  static constexpr std::uint32_t kOpen = 1u << 31;

  alignas(kAlignment) std::atomic<std::uint32_t> epoch{0};  // bumped by every run; what sleeping workers watch
  alignas(kAlignment) std::atomic<std::uint32_t> gate{0};   // kOpen | workers inside
  alignas(kAlignment) std::atomic<std::int64_t> next{0};    // the first task that nobody has taken
  std::atomic<bool> stopping{false};
  // Of the current run: written while the gate is closed and empty, read by those inside.
  Task task = nullptr;
  void* context = nullptr;
  std::int64_t tasks = 0;

  std::vector<std::thread> workers;
  pid_t owner = getpid();

  void take_tasks(int thread) {
    for (;;) {
      const std::int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= tasks) return;
      task(context, index, thread);
    }
  }

  bool enter() {
    std::uint32_t seen = gate.load(std::memory_order_relaxed);
    while (seen & kOpen) {
      if (gate.compare_exchange_weak(seen, seen + 1, std::memory_order_acquire, std::memory_order_relaxed)) return true;
    }
    return false;
  }

  void leave() {
    if (gate.fetch_sub(1, std::memory_order_release) == 1) gate.notify_one();  // closed, and this was the last one
  }

  void work(int thread) {
    std::uint32_t seen = 0;
    while (!stopping.load(std::memory_order_acquire)) {
      seen = wait_for_change(epoch, seen);
      if (enter()) {
        take_tasks(thread);
        leave();
      }
    }
  }

  void stop() {
    stopping.store(true, std::memory_order_release);
    epoch.fetch_add(1, std::memory_order_release);
    epoch.notify_all();
    for (std::thread& worker : workers) worker.join();
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  if (threads < 0 || threads > kMaxThreads) {
    throw Error(Status::invalid_argument,
                "threads: expected 0.." + std::to_string(kMaxThreads) + ", got " + std::to_string(threads));
  }
  if (threads == 0) threads = available_cores();
  state_->workers.reserve(static_cast<std::size_t>(threads - 1));

  std::exception_ptr failure;
  {
    const BlockedSignals blocked;
    for (int i = 1; i < threads && !failure; ++i) {
      try {
        state_->workers.emplace_back([state = state_.get(), i] { state->work(i); });
      } catch (...) {  // no thread or no memory for it
        failure = std::current_exception();
      }
    }
  }
  if (!failure) return;
  state_->stop();
  try {
    std::rethrow_exception(failure);
  } catch (const std::system_error& e) {
    throw Error(Status::out_of_memory, "threads: could not start " + std::to_string(threads) + " threads: " + e.what());
  }
}

ThreadPool::~ThreadPool() {
  if (getpid() == state_->owner) {
    state_->stop();
    return;
  }
  // In a forked child the workers do not exist, and their handles may by now be those of other threads: kept,
  // untouched.
  (void)state_.release();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::run_tasks(std::int64_t tasks, Task task, void* context) {
  State& s = *state_;
  if (s.workers.empty() || tasks <= 1) {
    for (std::int64_t i = 0; i < tasks; ++i) task(context, i, 0);
    return;
  }
  s.task = task;
  s.context = context;
  s.tasks = tasks;
  s.next.store(0, std::memory_order_relaxed);
  s.gate.store(State::kOpen, std::memory_order_release);
  s.epoch.fetch_add(1, std::memory_order_release);
  s.epoch.notify_all();

  s.take_tasks(0);

  std::uint32_t inside = s.gate.fetch_and(~State::kOpen, std::memory_order_acquire) & ~State::kOpen;
  while (inside) inside = wait_for_change(s.gate, inside);
}

}  // namespace lewm
