// What a control loop sees: process start to first action, resident memory, the time of each act(), its jitter with and
// without load, allocations and page faults after warm-up. `lewm bench --realtime` measures the same from Python.
//
//   bench_realtime [model=FILE] [precision=bf16] [threads=0] [samples=64] [iterations=4] [deadline_ms=50] [acts=500]
//                  [starts=5] [load=2]
//
// model: default random weights of the published sizes. precision: default all. load: threads that spin beside the loop
// in the second of the two measurements. Every act() of the first step of a block plans.
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cmath>
#include <fstream>
#include <lewm/lewm.hpp>
#include <sstream>
#include <thread>

#include "../../tests/cpp/failing_allocations.h"
#include "../../tests/cpp/make_model.h"
#include "model_bench.h"

namespace {

namespace api = lewm::cxx;  // what an embedding program calls lewm
using model_bench::Options;

// A model file, and the precision that it is opened with.
struct Source {
  std::string model, precision;
};

double seconds_of(const timespec& time) {
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double now(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return seconds_of(time);
}

// A line of /proc/self/status, in MB.
double status_megabytes(const std::string& field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(field + ":")) return std::stod(line.substr(field.size() + 1)) / 1024.0;
  }
  return 0;
}

long page_faults() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}

// The loop of a controller that replans at every block, on frames that change from step to step.
class Loop {
 public:
  Loop(const Source& source, const Options& options)
      : model_(source.model, precision_of(source.precision)),
        planner_(model_, planner_config(options)),
        controller_(planner_, controller_config(options)),
        frame_(model_.frame_size()),
        goal_(model_.frame_size(), 200) {
    controller_.set_goal(goal_.data());
  }

  // One step of control; the time that act() took, in seconds.
  double step() {
    const auto shade = static_cast<std::uint8_t>(40 + steps_++ % 150);
    std::fill(frame_.begin(), frame_.end(), shade);
    const double start = now(CLOCK_MONOTONIC);
    controller_.act(frame_.data());
    return now(CLOCK_MONOTONIC) - start;
  }
  bool will_plan() const { return controller_.info().needs_plan != 0; }
  const lewm_model_info& info() const { return model_.info(); }

 private:
  static lewm_precision precision_of(const std::string& name) {
    for (int p = 0; p < lewm::kPrecisions; ++p) {
      if (name == model_bench::kPrecisionNames[p]) return static_cast<lewm_precision>(LEWM_PRECISION_FP32 + p);
    }
    throw std::runtime_error("precision: expected fp32, bf16 or int8, got " + name);
  }
  static lewm_planner_config planner_config(const Options& options) {
    lewm_planner_config config = api::planner_config();
    config.samples = options.number("samples", 64);
    config.elites = std::max<std::int64_t>(1, config.samples / 8);
    config.iterations = options.number("iterations", 4);
    config.threads.count = static_cast<std::int32_t>(options.number("threads", 0));
    return config;
  }
  static lewm_controller_config controller_config(const Options& options) {
    lewm_controller_config config = api::controller_config();
    config.replan_every = 1;
    config.deadline = 1e-3 * static_cast<double>(options.number("deadline_ms", 50));
    return config;
  }

  api::Model model_;
  api::Planner planner_;
  api::Controller controller_;
  std::vector<std::uint8_t> frame_, goal_;
  int steps_ = 0;
};

// ---------------------------------------------------------------------------------------------------------------------
// Process start to first action: this program starts itself with `child`.
// ---------------------------------------------------------------------------------------------------------------------

// Prints when the first action was there, the CPU time until then, and the resident memory in MB: now, and at its
// highest.
int run_child(const Options& options) {
  Loop loop({options.text("model", ""), options.text("precision", "")}, options);
  loop.step();
  const double done = now(CLOCK_MONOTONIC);
  std::printf("%.9f %.9f %.3f %.3f\n", done, now(CLOCK_PROCESS_CPUTIME_ID), status_megabytes("VmRSS"),
              status_megabytes("VmHWM"));
  return 0;
}

struct Start {
  double elapsed, cpu;    // seconds
  double resident, peak;  // MB
};

Start start_once(int argc, char** argv, const Source& source) {
  std::vector<std::string> words{argv[0], "child", "model=" + source.model, "precision=" + source.precision};
  for (int i = 1; i < argc; ++i) words.emplace_back(argv[i]);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);

  int ends[2];
  if (pipe(ends) != 0) throw std::runtime_error("pipe failed");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  const double begun = now(CLOCK_MONOTONIC);
  pid_t child = 0;
  const int failed = posix_spawn(&child, "/proc/self/exe", &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string text;
  char buffer[256];
  for (ssize_t n; !failed && (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(n));
  close(ends[0]);
  if (failed) throw std::runtime_error("the child process could not be started");
  int status = 0;
  waitpid(child, &status, 0);
  Start start{};
  double done = 0;
  if (!(std::istringstream(text) >> done >> start.cpu >> start.resident >> start.peak)) {
    throw std::runtime_error("the child process failed");
  }
  start.elapsed = done - begun;
  return start;
}

void measure_starts(int argc, char** argv, const Source& source, const Options& options) {
  Start best{1e30, 1e30, 0, 0};
  for (std::int64_t i = options.number("starts", 5); i > 0; --i) {
    const Start start = start_once(argc, argv, source);
    best.elapsed = std::min(best.elapsed, start.elapsed);
    best.cpu = std::min(best.cpu, start.cpu);
    best.resident = std::max(best.resident, start.resident);
    best.peak = std::max(best.peak, start.peak);
  }
  std::printf("process start to first action: %.0f ms (CPU time %.0f ms; shortest of %lld)\n", best.elapsed * 1e3,
              best.cpu * 1e3, static_cast<long long>(options.number("starts", 5)));
  std::printf("resident memory: %.0f MB, at most %.0f MB while starting\n", best.resident, best.peak);
}

// ---------------------------------------------------------------------------------------------------------------------
// The loop
// ---------------------------------------------------------------------------------------------------------------------

double percentile(const std::vector<double>& sorted, double share) {
  return sorted[std::min(sorted.size() - 1, static_cast<std::size_t>(share * static_cast<double>(sorted.size())))];
}

// Bars over equal steps of time from the shortest to the longest.
void print_histogram(const std::vector<double>& sorted) {
  constexpr std::size_t kBins = 16, kWidth = 60;
  const double low = sorted.front(), width = std::max(1e-9, (sorted.back() - low) / kBins);
  std::array<std::size_t, kBins> counts{};
  for (const double value : sorted) {
    ++counts[std::min(kBins - 1, static_cast<std::size_t>((value - low) / width))];
  }
  const std::size_t most = *std::max_element(counts.begin(), counts.end());
  for (std::size_t bin = 0; bin < kBins; ++bin) {
    const std::size_t bar = (counts[bin] * kWidth + most - 1) / most;
    std::printf("  %8.3f ms %6zu %s\n", (low + width * static_cast<double>(bin)) * 1e3, counts[bin],
                std::string(bar, '#').c_str());
  }
}

// times: sorted.
void print_times(const char* name, const std::vector<double>& times) {
  if (times.empty()) return;
  double mean = 0, variance = 0;
  for (const double time : times) mean += time / static_cast<double>(times.size());
  for (const double time : times) variance += (time - mean) * (time - mean) / static_cast<double>(times.size());
  std::printf("%-22s p50 %8.3f  p99 %8.3f  p99.9 %8.3f  most %8.3f  jitter (std) %7.3f ms, of %zu\n", name,
              percentile(times, 0.5) * 1e3, percentile(times, 0.99) * 1e3, percentile(times, 0.999) * 1e3,
              times.back() * 1e3, std::sqrt(variance) * 1e3, times.size());
}

void measure_loop(const Source& source, const Options& options, std::int64_t load) {
  Loop loop(source, options);
  for (int i = 0; i < 20; ++i) loop.step();
  std::vector<double> planned, handed_out;
  const std::int64_t acts = options.number("acts", 500);
  planned.reserve(static_cast<std::size_t>(acts));
  handed_out.reserve(static_cast<std::size_t>(acts));

  std::atomic<bool> stop{false};
  std::vector<std::thread> others;
  for (std::int64_t i = 0; i < load; ++i) {
    others.emplace_back([&stop] {
      while (!stop.load(std::memory_order_relaxed)) {
      }
    });
  }
  const long allocated = allocations.load(), faults = page_faults();
  const double resident = status_megabytes("VmRSS");
  const long own = allocations.load() - allocated;  // of reading the memory's size
  for (std::int64_t i = 0; i < acts; ++i) {
    const bool plans = loop.will_plan();
    (plans ? planned : handed_out).push_back(loop.step());
  }
  const long more_allocations = allocations.load() - allocated - own, more_faults = page_faults() - faults;
  stop = true;
  for (std::thread& other : others) other.join();

  std::printf("%lld acts, %lld spinning threads beside them\n", static_cast<long long>(acts),
              static_cast<long long>(load));
  std::sort(planned.begin(), planned.end());
  std::sort(handed_out.begin(), handed_out.end());
  print_times("acts that plan", planned);
  print_times("acts that hand out", handed_out);
  if (!planned.empty()) print_histogram(planned);
  std::printf("allocations %ld, page faults %ld, resident memory %+.1f MB\n", more_allocations, more_faults,
              status_megabytes("VmRSS") - resident);
}

int run(int argc, char** argv) {
  const int child = argc > 1 && std::string(argv[1]) == "child";
  const Options options(
      argc - child, argv + child,
      {"model", "precision", "threads", "samples", "iterations", "deadline_ms", "acts", "starts", "load"});
  if (child) return run_child(options);

  std::string model = options.text("model", "");
  const bool temporary = model.empty();
  if (temporary) {
    model = "/tmp/lewm_bench_" + std::to_string(getpid()) + ".safetensors";
    model_file::write(model, lewm::Config{}, naive::random_weights(lewm::Config{}, 1), {});
  }
  const lewm::cpu::Isa isa = lewm::cpu::active_isa();
  bool measured = false;
  for (int p = 0; p < lewm::kPrecisions; ++p) {
    const Source source{model, model_bench::kPrecisionNames[p]};
    if (options.text("precision", source.precision) != source.precision) continue;
    if (!lewm::cpu::has(lewm::cpu::kernels(isa), static_cast<lewm::Precision>(p))) continue;
    std::printf("--- %s on %s ---\n", source.precision.c_str(), lewm::cpu::isa_name(isa));
    measure_starts(argc, argv, source, options);
    measure_loop(source, options, 0);
    if (const std::int64_t load = options.number("load", 2)) measure_loop(source, options, load);
    measured = true;
  }
  if (temporary) std::remove(model.c_str());
  if (!measured) {
    throw std::runtime_error(std::string("precision: expected one that ") + lewm::cpu::isa_name(isa) + " has, got " +
                             options.text("precision", ""));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
