// Plans under a deadline: how many are late, by how much, and how many iterations they reach.
//
//   bench_deadline [isa=avx512] [precision=bf16] [threads=2] [samples=300] [plans=500] [load=1]
//
// load: processes that spin beside the planner. worse: plans that are not finite or cost more than their warm start.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>

#include "model_bench.h"
#include "plan/planner.h"

using namespace model_bench;

namespace {

// Processes that spin until it is destroyed. Made before any thread: a forked child has one.
class Load {
 public:
  explicit Load(std::int64_t processes) {
    const pid_t parent = getpid();
    for (std::int64_t i = 0; i < processes; ++i) {
      const pid_t child = fork();
      if (child == 0) {
        while (getppid() == parent) {  // ends with its parent, however that ends
        }
        _exit(0);
      }
      if (child > 0) children_.push_back(child);
    }
  }
  ~Load() {
    for (const pid_t child : children_) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
    }
  }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

 private:
  std::vector<pid_t> children_;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options(argc, argv, {"isa", "precision", "threads", "samples", "plans", "load"});
  const lewm::Config config;
  const std::int64_t plans = options.number("plans", 500);
  const Load load(options.number("load", 1));
  lewm::PlannerOptions settings;
  settings.samples = options.number("samples", settings.samples);
  settings.elites = std::min(settings.elites, settings.samples);
  const auto pool = std::make_shared<lewm::ThreadPool>(static_cast<int>(options.number("threads", 0)));

  const naive::Tensors tensors = naive::random_weights(config, 1);
  naive::Generator generator(2);
  std::vector<float> latents(static_cast<std::size_t>(2 * config.latent_dim));
  std::vector<float> warm(static_cast<std::size_t>(settings.horizon * config.block_dim()));
  std::vector<float> actions(warm.size());
  float cost = 0, warm_cost = 0;
  std::printf("%d threads, %lld candidates an iteration, %lld plans each\n", pool->threads(),
              static_cast<long long>(settings.samples), static_cast<long long>(plans));
  std::printf("%-8s %-5s %9s %8s %10s %10s %10s %6s\n", "isa", "prec", "deadline", "in time", "median", "worst",
              "iterations", "worse");
  for (const Tier& tier : chosen_tiers(options)) {
    const auto model = lewm::Model::create(config, tensors, {}, {}, tier.precision, tier.isa);
    lewm::Planner planner(model, settings, pool);
    for (const double deadline : {0.02, 0.05, 0.2}) {
      std::vector<double> elapsed;
      std::int64_t in_time = 0, iterations = 0, worse = 0;
      for (std::int64_t i = 0; i < plans; ++i) {
        for (float& value : latents) value = static_cast<float>(generator.normal());
        for (float& value : warm) value = static_cast<float>(0.5 * generator.normal());
        lewm::PlanRequest request;
        request.latents = latents.data();
        request.goals = latents.data() + config.latent_dim;
        request.warm_start = warm.data();
        request.warm_blocks = settings.horizon;
        request.deadline = deadline;
        lewm::PlanResult result;
        result.actions = actions.data();
        result.cost = &cost;
        elapsed.push_back(best_seconds(1, [&] { planner.plan(request, result); }));
        in_time += elapsed.back() <= deadline;
        iterations += result.iterations;
        planner.evaluate(request, warm.data(), 1, &warm_cost);
        worse += !std::isfinite(cost) || cost > warm_cost;
      }
      std::sort(elapsed.begin(), elapsed.end());
      std::printf("%-8s %-5s %6.0f ms %7.1f%% %7.1f ms %7.1f ms %10.1f %6lld\n", lewm::cpu::isa_name(tier.isa),
                  kPrecisionNames[static_cast<int>(tier.precision)], deadline * 1e3,
                  100.0 * static_cast<double>(in_time) / static_cast<double>(plans), elapsed[elapsed.size() / 2] * 1e3,
                  elapsed.back() * 1e3, static_cast<double>(iterations) / static_cast<double>(plans),
                  static_cast<long long>(worse));
    }
  }
}
