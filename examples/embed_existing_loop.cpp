// Embedding lewm in a control loop that already exists: planning runs on a thread of its own, the loop never waits for
// it.
//   c++ -std=c++17 embed_existing_loop.cpp $(pkg-config --cflags --libs lewm) -o loop && ./loop model.safetensors
//
// Every tick the loop reads the camera and sends a command, as before. New here: at the start of each block it hands
// the current frame over for planning, and it executes the newest finished plan, block by block.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <lewm/lewm.hpp>
#include <string>
#include <thread>
#include <vector>

namespace {

// --- stands for the robot
// ---------------------------------------------------------------------------------------------

constexpr std::int64_t kCameraWidth = 320, kCameraHeight = 240;
constexpr std::chrono::milliseconds kPeriod{50};  // control at 20 Hz

struct Robot {
  std::vector<std::uint8_t> camera = std::vector<std::uint8_t>(3 * kCameraWidth * kCameraHeight);
  void read_camera(int tick) {
    for (std::size_t i = 0; i < camera.size(); ++i) camera[i] = static_cast<std::uint8_t>(i / 960 + 4 * tick);
  }
  void send(const std::vector<float>& command) {
    for (const float value : command) std::printf("%8.4f ", static_cast<double>(value));
  }
};

// --- the plan in execution
// --------------------------------------------------------------------------------------------

// Walks through a plan's blocks and turns standardised actions into commands.
class Execution {
 public:
  explicit Execution(const lewm::Model& model)
      : info_(model.info()), scaling_(model.action_scaling()), command_(scaling_.mean) {}

  bool at_block_start() const { return step_ % info_.frame_skip == 0; }

  // A plan that was made from the frame of `ticks_ago` ticks before now: its first actions are in the past.
  void replace(const std::vector<float>& actions, std::int64_t ticks_ago) {
    actions_ = actions;
    step_ = ticks_ago;
  }

  // What is left of the plan from the block on that begins now: where the next plan, which begins with it too, starts
  // searching.
  lewm::Span<const float> rest() const {
    const std::size_t from = static_cast<std::size_t>(step_ / info_.frame_skip * info_.block_dim);
    return from < actions_.size() ? lewm::Span<const float>(actions_.data() + from, actions_.size() - from)
                                  : lewm::Span<const float>();
  }

  // The next command; the last one again when the plan is used up.
  const std::vector<float>& next() {
    const std::size_t from = static_cast<std::size_t>(step_++) * command_.size();
    for (std::size_t d = 0; from < actions_.size() && d < command_.size(); ++d) {
      command_[d] = actions_[from + d] * scaling_.std[d] + scaling_.mean[d];
    }
    return command_;
  }

 private:
  const lewm_model_info info_;
  const lewm::Scaling scaling_;
  std::vector<float> command_, actions_;
  std::int64_t step_ = 0;
};

int run(const std::string& path, int ticks) {
  lewm::check_version();
  const lewm::Model model(path);
  lewm_planner_config config = lewm::planner_config(LEWM_ICEM);
  config.samples = 64;
  config.elites = 8;
  config.iterations = 4;
  lewm::BackgroundPlanner planner(model, config);
  lewm::Resizer resizer(model, kCameraWidth, kCameraHeight, LEWM_RGB, LEWM_CROP);
  Execution execution(model);
  Robot robot;

  robot.read_camera(100);
  const lewm::Span<const std::uint8_t> picture = resizer(robot.camera.data());
  const std::vector<std::uint8_t> goal(picture.begin(), picture.end());

  std::uint64_t executing = 0, asked = 0;
  int asked_at = 0;
  std::uint32_t plans = 0;
  auto wake = std::chrono::steady_clock::now();
  for (int tick = 0; tick < ticks; ++tick) {
    robot.read_camera(tick);
    const std::uint64_t finished = planner.latest();
    if (finished != executing) {
      execution.replace(planner.plan().actions, tick - asked_at);
      executing = finished;
    }
    if (asked == executing && execution.at_block_start()) {  // one request at a time
      asked = planner.submit(resizer(robot.camera.data()), goal, execution.rest(), plans++, 0.2);
      asked_at = tick;
    }
    robot.send(execution.next());
    std::printf(" plan %llu\n", static_cast<unsigned long long>(executing));
    std::this_thread::sleep_until(wake += kPeriod);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2) return std::fprintf(stderr, "usage: %s model.safetensors [ticks]\n", argv[0]), 2;
  return run(argv[1], argc > 2 ? std::stoi(argv[2]) : 60);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
