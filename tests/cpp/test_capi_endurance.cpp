// A controller that acts for a long time is as one that has just begun: no allocation, no growth of resident memory,
// and in the end the same bytes as a fresh process.
//
// LEWM_ENDURANCE_ACTS: how many acts, by default 20,000. The documented long run takes 1,000,000.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "check.h"
#include "failing_allocations.h"
#include "lewm/lewm.h"
#include "make_model.h"

namespace {

constexpr std::size_t kFrameBytes = 3 * 20 * 20, kEpisode = 100;

struct Action {
  float values[2];
};

// Everything from the model file to the controller. All members are null where something failed.
class Session {
 public:
  explicit Session(const std::string& model_path) {
    lewm_planner_config config;
    lewm_controller_config control{};
    control.struct_size = sizeof control;
    control.replan_every = 1;
    control.context = 2;
    const bool made = lewm_model_open(model_path.c_str(), nullptr, &model_) == LEWM_OK &&
                      lewm_planner_config_init(&config, sizeof config, LEWM_ICEM) == LEWM_OK;
    config.samples = 12;
    config.elites = 3;
    config.iterations = 2;
    config.horizon = 3;
    config.threads.count = 2;
    complete_ = made && lewm_planner_create(model_, &config, &planner_) == LEWM_OK &&
                lewm_controller_create(planner_, &control, &controller_) == LEWM_OK;
  }
  ~Session() {
    lewm_controller_destroy(controller_);
    lewm_planner_destroy(planner_);
    lewm_model_close(model_);
  }
  bool complete() const { return complete_; }

  // An episode from a reset controller; episodes differ by their seed. False when a call failed.
  bool run(std::uint32_t seed, std::size_t steps, Action* actions) {
    if (lewm_controller_reset(controller_) != LEWM_OK) return false;
    draw(seed, 1000);
    if (lewm_controller_set_goal(controller_, frame_, 0) != LEWM_OK) return false;
    for (std::size_t step = 0; step < steps; ++step) {
      draw(seed, static_cast<std::uint32_t>(step));
      if (lewm_controller_act(controller_, frame_, 0, actions[step].values) != LEWM_OK) return false;
    }
    return true;
  }

 private:
  void draw(std::uint32_t seed, std::uint32_t step) {
    for (std::size_t i = 0; i < kFrameBytes; ++i) {
      frame_[i] = static_cast<std::uint8_t>((seed * 7 + 1) * (i / 60 + 3) + 5 * step + i % 3 * 40);
    }
  }

  lewm_model* model_ = nullptr;
  lewm_planner* planner_ = nullptr;
  lewm_controller* controller_ = nullptr;
  bool complete_ = false;
  std::uint8_t frame_[kFrameBytes] = {};
};

// Resident memory in KiB, counted page by page (what statm says lags behind), and read without a heap allocation.
long resident_kib() {
  long kib = -1;
  char line[256];
  std::FILE* file = std::fopen("/proc/self/smaps_rollup", "r");
  while (file && kib < 0 && std::fgets(line, sizeof line, file)) std::sscanf(line, "Rss: %ld kB", &kib);
  if (file) std::fclose(file);
  return kib;
}

std::size_t wanted_acts() {
  const char* text = std::getenv("LEWM_ENDURANCE_ACTS");
  return std::max<std::size_t>(10 * kEpisode, text ? std::strtoull(text, nullptr, 10) : 20'000);
}

// This program again, for one episode: its actions land in `out`.
bool run_fresh(const std::string& model, const std::string& out) {
  std::string words[] = {"test_capi_endurance", "fresh", model, out};
  char* arguments[] = {words[0].data(), words[1].data(), words[2].data(), words[3].data(), nullptr};
  pid_t child = 0;
  if (posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, arguments, environ) != 0) return false;
  int status = -1;
  return waitpid(child, &status, 0) == child && status == 0;
}

int fresh(const char* model, const char* out) {
  Session session(model);
  Action actions[kEpisode];
  if (!session.complete() || !session.run(0, kEpisode, actions)) return 1;
  std::ofstream file(out, std::ios::binary);
  file.write(reinterpret_cast<const char*>(actions), sizeof actions);
  return file.flush() ? 0 : 1;
}

}  // namespace

TEST(a_long_life_leaves_no_trace) {
  const std::string path =
      std::filesystem::temp_directory_path() / ("lewm_endurance_" + std::to_string(getpid()) + ".safetensors");
  model_file::write_small(path);
  Session session(path);
  CHECK(session.complete());
  if (!session.complete()) return;

  Action actions[kEpisode];
  std::uint32_t episode = 1;
  for (; episode <= 5; ++episode) CHECK(session.run(episode, kEpisode, actions));  // warm-up
  resident_kib();                                                                  // brings in what it needs itself
  const long resident = resident_kib(), before = allocations.load();
  const std::size_t acts = wanted_acts();
  bool all_acted = true;
  for (std::size_t done = 0; done < acts; done += kEpisode) all_acted &= session.run(episode++, kEpisode, actions);
  all_acted &= session.run(0, kEpisode, actions);
  const long allocated = allocations.load() - before, grown = resident_kib() - resident;
  std::printf("%zu acts: %ld allocations, resident memory %ld KiB %+ld KiB\n", acts, allocated, resident, grown);
  CHECK(all_acted);
  CHECK_EQ(allocated, 0L);
  // A few pages of code and stacks may be seen for the first time; four bytes an act would be more than this. What a
  // sanitizer keeps about them is memory too.
#if defined(CHECK_ADDRESS_SANITIZER) || defined(CHECK_THREAD_SANITIZER)
  constexpr long kMostGrowth = 4096;  // KiB
#else
  constexpr long kMostGrowth = 64;
#endif
  CHECK(resident > 0 && grown <= kMostGrowth);

  const std::string other = path + ".actions";
  CHECK(run_fresh(path, other));
  std::ifstream file(other, std::ios::binary);
  Action expected[kEpisode] = {};
  file.read(reinterpret_cast<char*>(expected), sizeof expected);
  CHECK(file.gcount() == sizeof expected && std::memcmp(expected, actions, sizeof expected) == 0);
  CHECK(std::memcmp(&actions[0], &actions[kEpisode - 1], sizeof(Action)) != 0);
  std::remove(other.c_str());
  std::remove(path.c_str());
}

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "fresh") == 0) return fresh(argv[2], argv[3]);
  return check::main(argc, argv);
}
