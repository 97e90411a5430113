// A cost that is a Python function.
#pragma once

#include <algorithm>
#include <exception>
#include <initializer_list>
#include <utility>
#include <vector>

#include "plan/planner.h"
#include "python/bindings.h"

namespace lewm::python {

// A user's cost: called from the planner's threads with copies of what a tile of candidates looks like.
class PythonCost {
 public:
  explicit PythonCost(nb::object function) : function_(std::move(function)) {}
  ~PythonCost() {
    const AcquiredGil acquired;
    function_.reset();
    error_ = nullptr;
  }

  static int call(void* context, const CostArguments& arguments, float* cost) {
    return static_cast<PythonCost*>(context)->evaluate(arguments, cost) ? 0 : 1;
  }

  // Whether this thread is inside the function: its planner, which waits for it, cannot serve it.
  bool is_running_here() const {
    const Running* call = Running::innermost;
    while (call && call->cost != this) call = call->outer;
    return call != nullptr;
  }

  // What the function has thrown during the last plan, once.
  std::exception_ptr take_error() { return std::exchange(error_, nullptr); }

  // For the garbage collector: the function may refer to the planner that calls it.
  nb::handle function() const { return function_; }
  void forget() { function_ = nb::none(); }

 private:
  // A call of a function that this thread is inside of.
  struct Running {
    explicit Running(const PythonCost* running) : cost(running), outer(innermost) { innermost = this; }
    ~Running() { innermost = outer; }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
    const PythonCost* const cost;
    const Running* const outer;
    static inline thread_local const Running* innermost = nullptr;
  };

  bool evaluate(const CostArguments& a, float* cost) {
    const AcquiredGil acquired;
    const Running running(this);
    try {
      const nb::object result = function_(copy(a.latents, {a.n, a.horizon, a.latent_dim}),
                                          copy(a.actions, {a.n, a.horizon, a.block_dim}), copy(a.goal, {a.latent_dim}));
      const auto costs = nb::cast<Input<float>>(result);
      check_shape("cost", costs, {a.n});
      std::copy_n(costs.data(), a.n, cost);
      return true;
    } catch (...) {
      if (!error_) error_ = std::current_exception();
      return false;
    }
  }

  static nb::object copy(const float* values, std::initializer_list<std::int64_t> shape) {
    std::size_t size = 1;
    std::vector<std::size_t> sizes;
    for (const std::int64_t n : shape) {
      sizes.push_back(static_cast<std::size_t>(n));
      size *= sizes.back();
    }
    auto* data = new float[size];
    const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    std::copy_n(values, size, data);
    return nb::cast(nb::ndarray<nb::numpy, float>(data, sizes.size(), sizes.data(), owner));
  }

  nb::object function_;
  std::exception_ptr error_;  // the first of a plan
};

}  // namespace lewm::python
