// A full plan of the published setting: FLOP/s of the counted rollout work against the GEMM's own peak, and the share
// of everything that is not rollout (noise, elites, refit).
//
//   bench_plan [isa=avx512] [precision=bf16] [threads=2] [method=0] [samples=300] [iterations=30] [horizon=5]
//   [problems=1] [repeats=3]
//
// method: 0 cem, 1 icem, 2 mppi, 3 predictive sampling.
#include "model/rollout_schedule.h"
#include "model_bench.h"
#include "plan/planner.h"
#include "plan/search.h"

using namespace model_bench;

namespace {

// Costs nothing to evaluate: what remains of a plan is the search itself.
class FreeObjective final : public lewm::Objective {
 public:
  explicit FreeObjective(std::int64_t elements) : elements_(elements) {}
  std::int64_t tile() const override { return 150; }
  bool evaluate(int, std::int64_t, const float* actions, std::int64_t n, float* cost) noexcept override {
    for (std::int64_t i = 0; i < n; ++i) cost[i] = actions[i * elements_] * actions[i * elements_ + 1];
    return true;
  }

 private:
  std::int64_t elements_;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options(
      argc, argv, {"isa", "precision", "threads", "method", "samples", "iterations", "horizon", "problems", "repeats"});
  const lewm::Config config;
  const std::int64_t problems = options.number("problems", 1), repeats = options.number("repeats", 3);
  lewm::PlannerOptions settings = lewm::default_options(static_cast<lewm::Method>(options.number("method", 0)));
  settings.samples = options.number("samples", settings.samples);
  settings.elites = std::min(settings.elites, settings.samples);
  settings.iterations = options.number("iterations", settings.iterations);
  settings.horizon = options.number("horizon", settings.horizon);
  settings.problems = problems;
  const auto pool = std::make_shared<lewm::ThreadPool>(static_cast<int>(options.number("threads", 0)));

  const naive::Tensors tensors = naive::random_weights(config, 1);
  naive::Generator generator(2);
  std::vector<float> latents(static_cast<std::size_t>(2 * problems * config.latent_dim));
  for (float& value : latents) value = static_cast<float>(generator.normal());
  std::vector<float> actions(static_cast<std::size_t>(problems * settings.horizon * config.block_dim()));
  std::vector<float> cost(static_cast<std::size_t>(problems));
  lewm::PlanRequest request;
  request.problems = problems;
  request.latents = latents.data();
  request.goals = latents.data() + problems * config.latent_dim;
  lewm::PlanResult result;
  result.actions = actions.data();
  result.cost = cost.data();

  FreeObjective nothing(settings.horizon * config.block_dim());
  lewm::Search search(settings, config.block_dim(), config.action_dim, *pool);
  const double overhead = best_seconds(repeats, [&] { search.run(nothing, request, 0, result); });

  const double work = static_cast<double>(problems * settings.samples * settings.iterations *
                                          lewm::rollout_flops(config, 1, settings.horizon));
  std::printf("%s, %lld x %lld candidates, horizon %lld, %lld problems, %d threads: %.2f GFLOP\n",
              lewm::method_name(settings.method), static_cast<long long>(settings.samples),
              static_cast<long long>(settings.iterations), static_cast<long long>(settings.horizon),
              static_cast<long long>(problems), pool->threads(), work * 1e-9);
  std::printf("%-8s %-5s %10s %12s %12s %8s %14s\n", "isa", "prec", "ms", "GFLOP/s", "GEMM peak", "ratio",
              "search share");
  for (const Tier& tier : chosen_tiers(options)) {
    const auto model = lewm::Model::create(config, tensors, {}, {}, tier.precision, tier.isa);
    lewm::Planner planner(model, settings, pool);
    const double seconds = best_seconds(repeats, [&] { planner.plan(request, result); });
    const double peak = gemm_peak(tier, *pool);
    std::printf("%-8s %-5s %10.1f %12.1f %12.1f %7.0f%% %13.2f%%\n", lewm::cpu::isa_name(tier.isa),
                kPrecisionNames[static_cast<int>(tier.precision)], seconds * 1e3, work / seconds * 1e-9, peak * 1e-9,
                100 * work / seconds / peak, 100 * overhead / seconds);
  }
}
