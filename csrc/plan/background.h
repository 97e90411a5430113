// A planner that thinks on a thread of its own while the caller executes the last finished plan.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "plan/checks.h"
#include "plan/planner.h"
#include "plan/threads.h"
#include "plan/triple_buffer.h"

namespace lewm {

// Where lines of text go; nowhere by default.
struct Log {
  void (*function)(void* context, const char* line) = nullptr;
  void* context = nullptr;
  void operator()(const char* line) const {
    if (function) function(context, line);
  }
};

// submit() and latest() neither wait, lock, allocate nor throw; each may be called from one thread at a time (they may
// be two). A request that has not begun when the next one comes is dropped for it.
class BackgroundPlanner {
 public:
  // The planner is this object's alone from now on. Starts the thread, placed by `threads`. Failed plans are logged,
  // from that thread. Throws Error.
  BackgroundPlanner(std::shared_ptr<Planner> planner, const ThreadOptions& threads, const Log& log = {});
  ~BackgroundPlanner();  // waits for the plan that is being made

  // Copies what the request points to. The deadline counts from when the plan begins. Status: invalid_argument for
  // sizes and null arrays; everything else shows in the plan. `ticket` (may be null) becomes that plan's.
  Status submit(const PlanRequest& request, std::uint64_t* ticket) noexcept;
  // frames: [B, C, image_size, image_size, 3] uint8 RGB; goals: [B, image_size, image_size, 3].
  Status submit_frames(const std::uint8_t* frames, const std::uint8_t* goals, const PlanRequest& request,
                       std::uint64_t* ticket) noexcept;
  const char* message() const { return checks_.message(); }

  struct Finished {
    std::uint64_t ticket = 0;  // of the request; 0: no plan is finished yet
    Status status = Status::ok;
    char message[256] = "";
    std::int64_t problems = 0;
    std::int64_t iterations = 0;
    double elapsed = 0;          // seconds
    std::vector<float> actions;  // [B, H, A]
    std::vector<float> cost;     // [B]
  };
  // The newest finished plan; valid until the next call.
  const Finished& latest() noexcept;

  const Planner& planner() const { return *planner_; }

 private:
  struct Submitted {
    std::uint64_t ticket = 0;
    bool from_frames = false;
    PlanRequest request;
    std::vector<float> latents, past_actions, goals, warm_start;
    std::vector<std::uint32_t> problem_ids;
    std::vector<std::uint8_t> frames, goal_frames;
  };

  Status check(const PlanRequest& request);
  void copy(const PlanRequest& request);
  void publish(std::uint64_t* ticket);
  void work();
  void plan(const Submitted& submitted);

  std::shared_ptr<Planner> planner_;
  const Log log_;
  Checks checks_;
  std::uint64_t tickets_ = 0;
  TripleBuffer<Submitted> submitted_;
  TripleBuffer<Finished> finished_;
  std::atomic<std::uint32_t> signal_{0};  // counts submissions and the end
  std::atomic<bool> started_{false};      // the thread is placed, or could not be
  std::atomic<bool> stop_{false};
  const int owner_ = getpid();  // the process that has the thread
  std::thread thread_;
};

}  // namespace lewm
