// The Reacher arm from pixels at a fixed control rate: the loop executes the newest finished plan, block by block,
// while the next one is made in the background. Prints successes, missed ticks and the percentiles of frame -> action.
//
//   mujoco_controller MODEL.safetensors .../dm_control/suite/reacher.xml [steps=2000] [rate=20] [episode=100] [seed=0]
//                     [samples=64] [iterations=4] [horizon=5] [cost=sum|final] [policy=plan|random] [pace=1]
//                     [priority=0] [offset=0]
//
// cost: the distance to the goal summed over all blocks, to be there early and stay, or at the last one.
// offset: the goal is where random torques take the arm from its start in that many steps, as in the evaluation
// protocol (without starts that already count as solved); 0: anywhere. pace=0: no clock; every plan is waited for.
// priority: SCHED_FIFO of the loop, 1..99 (needs the privilege), so that nothing else on the machine makes it late. The
// planner's threads stay as they were started. Mesa's software renderer hands work to threads of its own, which have no
// such priority: run with LP_NUM_THREADS=0.
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <lewm/lewm.hpp>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "scene.h"

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds(Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); }

class Options {
 public:
  Options(int count, char** words) {
    for (int i = 0; i < count; ++i) {
      const std::string word = words[i];
      const std::size_t equals = word.find('=');
      if (equals == std::string::npos) throw std::runtime_error("expected name=value, got " + word);
      values_[word.substr(0, equals)] = word.substr(equals + 1);
    }
  }
  std::string text(const std::string& name, const std::string& otherwise) {
    const auto found = values_.find(name);
    if (found == values_.end()) return otherwise;
    const std::string value = found->second;
    values_.erase(found);
    return value;
  }
  long number(const std::string& name, long otherwise) {
    const std::string value = text(name, std::to_string(otherwise));
    char* end = nullptr;
    const long number = std::strtol(value.c_str(), &end, 10);
    if (value.empty() || *end) throw std::runtime_error(name + ": expected a number, got " + value);
    return number;
  }
  void finish() const {
    if (!values_.empty()) throw std::runtime_error("unknown option " + values_.begin()->first);
  }

 private:
  std::map<std::string, std::string> values_;
};

// What is executed: the newest plan, counted from the block at whose beginning its frame was seen.
class Execution {
 public:
  Execution(const lewm::Model& model, const lewm_planner_config& config)
      : info_(model.info()), horizon_(config.horizon), background_(model, config), scaling_(model.action_scaling()) {}

  void start_episode() {
    plan_.clear();
    submitted_.clear();
    block_ = -1;
  }

  // Called when a block begins: asks for a plan from this frame, warm-started by what is left of the current one.
  // With `wait` it returns when there is one.
  void begin_block(const std::vector<std::uint8_t>& frame, const std::vector<std::uint8_t>& goal, bool wait) {
    ++block_;
    const auto from = static_cast<std::size_t>(std::min(block_ - plan_begin_, horizon_) * info_.block_dim);
    const lewm::Span<const float> rest = from < plan_.size()
                                             ? lewm::Span<const float>(plan_.data() + from, plan_.size() - from)
                                             : lewm::Span<const float>();
    const std::uint64_t ticket = background_.submit(frame, goal, rest, static_cast<std::uint32_t>(++plans_));
    submitted_[ticket] = block_;
    while (wait && background_.latest() != ticket) std::this_thread::sleep_for(std::chrono::microseconds(100));
  }

  // Action `step` of the current block, in the environment's units; zeros while there is no plan for it. Never waits.
  void act(std::int64_t step, float* action) {
    const std::uint64_t ticket = background_.latest();
    const auto found = submitted_.find(ticket);
    if (found != submitted_.end()) {  // newer than the plan in use, and of this episode
      plan_ = background_.plan().actions;
      plan_begin_ = found->second;
      submitted_.erase(submitted_.begin(), std::next(found));
    }
    const std::int64_t ahead = block_ - plan_begin_;
    for (std::int64_t i = 0; i < info_.action_dim; ++i) {
      const std::int64_t at = ahead * info_.block_dim + step * info_.action_dim + i;
      const bool planned = ahead >= 0 && at < static_cast<std::int64_t>(plan_.size());
      const auto dim = static_cast<std::size_t>(i);
      action[i] = planned ? plan_[static_cast<std::size_t>(at)] * scaling_.std[dim] + scaling_.mean[dim] : 0.0f;
    }
    if (plan_.empty()) ++unplanned_;
  }

  long unplanned() const { return unplanned_; }

 private:
  const lewm_model_info info_;
  const std::int64_t horizon_;
  lewm::BackgroundPlanner background_;
  const lewm::Scaling scaling_;
  std::vector<float> plan_;                          // [H, A], standardised
  std::map<std::uint64_t, std::int64_t> submitted_;  // ticket -> block
  std::int64_t block_ = -1, plan_begin_ = 0;
  long plans_ = 0, unplanned_ = 0;
};

// SCHED_FIFO for this thread from here on.
void raise_priority(long priority) {
  sched_param parameter{};
  parameter.sched_priority = static_cast<int>(priority);
  if (const int error = pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameter)) {
    throw std::runtime_error(std::string("priority: ") + std::strerror(error));
  }
}

double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())))];
}

int run(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s MODEL.safetensors reacher.xml [name=value ...]\n", argv[0]);
    return 2;
  }
  Options options(argc - 3, argv + 3);
  const long steps = options.number("steps", 2000), rate = options.number("rate", 20);
  const long episode_steps = options.number("episode", 100), seed = options.number("seed", 0);
  const bool random_policy = options.text("policy", "plan") == "random";
  const bool pace = options.number("pace", 1) != 0;
  const long priority = options.number("priority", 0), offset = options.number("offset", 0);
  lewm_planner_config config = lewm::planner_config();
  config.samples = options.number("samples", 64);
  config.iterations = options.number("iterations", 4);
  config.elites = std::max<std::int64_t>(2, config.samples / 8);
  config.horizon = options.number("horizon", config.horizon);
  const std::string cost = options.text("cost", "sum");
  if (cost != "final" && cost != "sum") throw std::runtime_error("cost: expected final or sum, got " + cost);
  config.cost_mode = cost == "sum" ? LEWM_COST_SUM : LEWM_COST_FINAL;
  options.finish();
  if (steps < 1 || rate < 1 || episode_steps < 1) {
    throw std::runtime_error("steps, rate, episode: expected at least 1");
  }

  lewm::check_version();
  lewm::Model model(argv[1]);
  const lewm_model_info& info = model.info();
  if (info.action_dim != 2) throw std::runtime_error("the model's actions are not the arm's two torques");
  Scene scene(argv[2], static_cast<int>(info.image_size));
  // Torques beyond the motors' range are not worth a candidate.
  const lewm::Scaling scaling = model.action_scaling();
  std::vector<float> low, high;
  for (std::size_t i = 0; i < scaling.mean.size(); ++i) {
    low.push_back((-1.0f - scaling.mean[i]) / scaling.std[i]);
    high.push_back((1.0f - scaling.mean[i]) / scaling.std[i]);
  }
  config.low = low.data();
  config.high = high.data();
  config.bound_dim = info.action_dim;
  Execution execution(model, config);
  if (priority) raise_priority(priority);

  std::mt19937_64 random(static_cast<std::uint64_t>(seed));
  std::uniform_real_distribution<float> torque(-1.0f, 1.0f);
  const auto period =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(1.0 / static_cast<double>(rate)));
  std::vector<double> latency;
  long missed = 0, episodes = 0, successes = 0;
  std::vector<std::uint8_t> goal;
  Angles goal_angles{};
  bool reached = false;
  auto next_tick = Clock::now();
  for (long step = 0; step < steps; ++step) {
    if (step % episode_steps == 0) {
      const Angles start = Scene::random_angles(random);
      goal_angles = offset ? scene.wander(start, offset, random) : Scene::random_angles(random);
      scene.place(goal_angles);
      goal = scene.draw();
      scene.place(start);
      execution.start_episode();
      ++episodes;
      reached = false;
      next_tick = Clock::now();
    }
    const long in_block = step % episode_steps % info.frame_skip;
    const std::vector<std::uint8_t>* frame = in_block == 0 ? &scene.draw() : nullptr;
    const auto seen = Clock::now();
    float action[2] = {torque(random), torque(random)};
    if (!random_policy) {
      if (frame) execution.begin_block(*frame, goal, !pace);
      execution.act(in_block, action);
    }
    latency.push_back(milliseconds(Clock::now() - seen));
    scene.step(action);
    if (!reached && Scene::reached(scene.angles(), goal_angles)) {
      reached = true;
      ++successes;
    }
    next_tick += period;
    if (!pace) continue;
    if (Clock::now() > next_tick) {
      ++missed;
      next_tick = Clock::now();
    } else {
      std::this_thread::sleep_until(next_tick);
    }
  }

  std::printf("%s, %s, %ld steps at %ld Hz, %lld samples x %lld iterations\n",
              random_policy ? "random policy" : "planning", info.isa, steps, rate,
              static_cast<long long>(config.samples), static_cast<long long>(config.iterations));
  std::printf("success: %ld of %ld episodes of %ld steps\n", successes, episodes, episode_steps);
  std::printf("control ticks missed: %ld; ticks before an episode's first plan: %ld\n", missed, execution.unplanned());
  std::printf("frame -> action: p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms\n", percentile(latency, 0.5),
              percentile(latency, 0.99), percentile(latency, 0.999));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
