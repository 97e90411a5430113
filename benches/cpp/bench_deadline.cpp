// Plans under a deadline: how many are late, by how much, and how many iterations they reach.
//
//   bench_deadline [isa=avx512] [precision=bf16] [threads=2] [samples=300] [plans=100] [load=1]
//
// load: threads that spin beside the planner, as another process would.
#include <atomic>
#include <cmath>
#include <thread>

#include "model_bench.h"
#include "plan/planner.h"

using namespace model_bench;

int main(int argc, char** argv) {
  const Options options(argc, argv);
  const lewm::Config config;
  const std::int64_t plans = options.number("plans", 100);
  lewm::PlannerOptions settings;
  settings.samples = options.number("samples", settings.samples);
  settings.elites = std::min(settings.elites, settings.samples);
  const auto pool = std::make_shared<lewm::ThreadPool>(static_cast<int>(options.number("threads", 0)));

  std::atomic<bool> stop{false};
  std::vector<std::thread> load;
  for (std::int64_t i = 0; i < options.number("load", 1); ++i) {
    load.emplace_back([&stop] {
      while (!stop.load(std::memory_order_relaxed)) {
      }
    });
  }

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
        planner.plan(request, result);
        elapsed.push_back(result.elapsed);
        in_time += result.elapsed <= deadline;
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
  stop = true;
  for (std::thread& thread : load) thread.join();
}
