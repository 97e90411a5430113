#include <pthread.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <numeric>
#include <thread>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "forked_child.h"

using lewm::ThreadPool;

namespace {

// A run in which each thread has a task, and waits in it for all others.
void meet(ThreadPool& pool) {
  std::atomic<int> inside{0};
  pool.run(pool.threads(), [&](std::int64_t, int) {
    ++inside;
    while (inside < pool.threads()) std::this_thread::yield();
  });
  CHECK_EQ(inside.load(), pool.threads());
}

}  // namespace

TEST(every_task_runs_once) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK_EQ(pool.threads(), threads);
    for (const std::int64_t tasks : {0, 1, 2, 7, 1000}) {
      std::vector<int> runs(static_cast<std::size_t>(tasks));
      std::atomic<bool> thread_in_range{true};
      pool.run(tasks, [&](std::int64_t task, int thread) {
        ++runs[static_cast<std::size_t>(task)];
        if (thread < 0 || thread >= threads) thread_in_range = false;
      });
      CHECK(runs == std::vector<int>(runs.size(), 1));
      CHECK(thread_in_range);
    }
  }
}

// What bodies wrote is visible after run(), and what the caller wrote before it is visible to them.
TEST(runs_are_ordered) {
  ThreadPool pool(4);
  std::vector<std::int64_t> values(64);
  for (std::int64_t round = 0; round < 3000; ++round) {
    pool.run(64, [&](std::int64_t task, int) { values[static_cast<std::size_t>(task)] += task + round; });
  }
  for (std::int64_t task = 0; task < 64; ++task) {
    CHECK_EQ(values[static_cast<std::size_t>(task)], 3000 * task + 3000 * 2999 / 2);
  }
}

TEST(sleeping_threads_wake_up) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // longer than threads spin
    // No thread may have slept through the run.
    meet(pool);
  }
}

TEST(zero_means_available_cores) {
  CHECK(ThreadPool(0).threads() >= 1);
  CHECK_THROWS(ThreadPool(-1), lewm::Error, "threads: expected 0..1024, got -1");
}

// Pools that are made and dropped at once: a thread may not have reached its first wait yet.
TEST(short_lived_pools) {
  for (int i = 0; i < 200; ++i) {
    ThreadPool pool(3);
    if (i % 2) pool.run(5, [](std::int64_t, int) {});
  }
}

TEST(workers_leave_signals_to_the_application) {
  ThreadPool pool(2);
  std::atomic<int> inside{0};
  bool blocked = false;
  pool.run(2, [&](std::int64_t, int thread) {
    ++inside;
    while (inside < 2) std::this_thread::yield();
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    if (thread == 1) blocked = sigismember(&mask, SIGINT) == 1;
  });
  CHECK(blocked);
}

#if defined(CHECK_FORKS)
TEST(a_forked_child_runs_alone) {
  auto pool = std::make_unique<ThreadPool>(3);
  meet(*pool);
  CHECK(forked_child_returns_true([&] {
    std::atomic<std::int64_t> own{0};
    pool->run(100, [&](std::int64_t task, int) { own += task; });
    // Its handle is, with glibc, one that a worker had.
    std::thread of_the_child([] { std::this_thread::sleep_for(std::chrono::milliseconds(50)); });
    pool.reset();
    of_the_child.join();
    return own == 4950;
  }));
  std::atomic<std::int64_t> sum{0};
  pool->run(10, [&](std::int64_t task, int) { sum += task; });
  CHECK_EQ(sum.load(), 45);
}
#endif

CHECK_MAIN
