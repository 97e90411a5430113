// Latents of CEM-sized candidate sets at the published sizes: FLOP/s of the counted GEMM work against the GEMM's own
// peak.
//
//   bench_rollout [isa=avx512] [precision=bf16] [threads=2] [candidates=300] [part=0] [horizon=5] [context=1]
//   [repeats=5]
//
// part: candidates of one task, 0: as many as divide evenly among the threads, at most a tile.
#include "model/rollout.h"
#include "model/rollout_schedule.h"
#include "model_bench.h"

using namespace model_bench;

int main(int argc, char** argv) {
  const Options options(argc, argv,
                        {"isa", "precision", "threads", "candidates", "part", "horizon", "context", "repeats"});
  const lewm::Config config;
  const auto threads = static_cast<int>(options.number("threads", 0));
  const std::int64_t candidates = options.number("candidates", 300), horizon = options.number("horizon", 5);
  const std::int64_t context = options.number("context", 1), repeats = options.number("repeats", 5);
  lewm::ThreadPool pool(threads);
  const naive::Tensors tensors = naive::random_weights(config, 1);
  naive::Generator generator(2);
  const auto random = [&](std::int64_t n) {
    std::vector<float> values(static_cast<std::size_t>(n));
    for (float& value : values) value = static_cast<float>(generator.normal());
    return values;
  };
  const std::vector<float> latents = random(context * config.latent_dim), past = random(context * config.block_dim());
  const std::vector<float> actions = random(candidates * horizon * config.block_dim());
  std::vector<float> out(static_cast<std::size_t>(candidates * config.latent_dim));

  const double work = static_cast<double>(candidates * lewm::rollout_flops(config, context, horizon));
  std::printf("%lld candidates, horizon %lld, context %lld, %d threads: %.2f GFLOP\n",
              static_cast<long long>(candidates), static_cast<long long>(horizon), static_cast<long long>(context),
              pool.threads(), work * 1e-9);
  std::printf("%-8s %-5s %10s %12s %12s %8s\n", "isa", "prec", "ms", "GFLOP/s", "GEMM peak", "ratio");
  for (const Tier& tier : chosen_tiers(options)) {
    const auto model = lewm::Model::create(config, tensors, {}, {}, tier.precision, tier.isa);
    lewm::Rollout rollout(model, {1, horizon, pool.threads()});
    rollout.prepare(latents.data(), past.data(), 1, context);
    std::int64_t part = options.number("part", 0);
    if (!part) part = std::min(rollout.tile(), (candidates + pool.threads() - 1) / pool.threads());
    const std::int64_t tasks = (candidates + part - 1) / part;
    const double seconds = best_seconds(repeats, [&] {
      pool.run(tasks, [&](std::int64_t task, int thread) {
        const std::int64_t first = task * part, n = std::min(part, candidates - first);
        rollout.run_tile(thread, 0, actions.data() + first * horizon * config.block_dim(), n, horizon, false,
                         out.data() + first * config.latent_dim);
      });
    });
    const double peak = gemm_peak(tier, pool);
    std::printf("%-8s %-5s %10.2f %12.1f %12.1f %7.0f%%\n", lewm::cpu::isa_name(tier.isa),
                kPrecisionNames[static_cast<int>(tier.precision)], seconds * 1e3, work / seconds * 1e-9, peak * 1e-9,
                100 * work / seconds / peak);
  }
}
