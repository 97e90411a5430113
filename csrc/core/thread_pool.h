// A fixed set of threads that meet: run() hands out tasks, takes part itself, and returns when all are done.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace lewm {

class ThreadPool {
 public:
  // threads >= 1, counting the caller of run(); threads - 1 are started here. 0: one per available core.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  // Calls body(task, thread) for every task in [0, tasks), thread in [0, threads()). Tasks are taken in order by
  // whoever is free; results must not depend on who. Does not allocate; body must not throw. One run at a time per
  // pool, none from inside a body. After fork() the child has no workers: there, run() does every task itself.
  template <class Body>
  void run(std::int64_t tasks, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run_tasks(
        tasks, [](void* context, std::int64_t task, int thread) { (*static_cast<Plain*>(context))(task, thread); },
        const_cast<std::remove_const_t<Plain>*>(&body));
  }

 private:
  using Task = void (*)(void* context, std::int64_t task, int thread);
  void run_tasks(std::int64_t tasks, Task task, void* context);
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lewm
