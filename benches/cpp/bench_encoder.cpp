// Frames to latents at the published sizes: milliseconds per frame, and FLOP/s of the GEMM and attention work against
// the GEMM's own peak.
//
//   bench_encoder [isa=avx512] [precision=bf16] [threads=2] [frames=1] [repeats=10]
#include "model/encoder.h"
#include "model_bench.h"

using namespace model_bench;

int main(int argc, char** argv) {
  const Options options(argc, argv, {"isa", "precision", "threads", "frames", "repeats"});
  const lewm::Config config;
  lewm::ThreadPool pool(static_cast<int>(options.number("threads", 0)));
  const std::int64_t n = options.number("frames", 1), repeats = options.number("repeats", 10);
  const naive::Tensors tensors = naive::random_weights(config, 1);
  std::vector<std::uint8_t> frames(static_cast<std::size_t>(n * 3 * config.image_size * config.image_size));
  naive::Generator generator(2);
  for (std::uint8_t& byte : frames) byte = static_cast<std::uint8_t>(generator.bits() >> 24);
  std::vector<float> latents(static_cast<std::size_t>(n * config.latent_dim));

  const double work = static_cast<double>(n * lewm::encode_flops(config));
  std::printf("%lld frames of %lldx%lld, %d threads: %.2f GFLOP\n", static_cast<long long>(n),
              static_cast<long long>(config.image_size), static_cast<long long>(config.image_size), pool.threads(),
              work * 1e-9);
  std::printf("%-8s %-5s %10s %10s %12s %12s %8s\n", "isa", "prec", "ms", "ms/frame", "GFLOP/s", "GEMM peak", "ratio");
  for (const Tier& tier : chosen_tiers(options)) {
    const auto model = lewm::Model::create(config, tensors, {}, {}, tier.precision, tier.isa);
    lewm::Encoder encoder(model, pool);
    const double seconds = best_seconds(repeats, [&] { encoder.encode(frames.data(), n, latents.data()); });
    const double peak = gemm_peak(tier, pool);
    std::printf("%-8s %-5s %10.2f %10.2f %12.1f %12.1f %7.0f%%\n", lewm::cpu::isa_name(tier.isa),
                kPrecisionNames[static_cast<int>(tier.precision)], seconds * 1e3,
                seconds * 1e3 / static_cast<double>(n), work / seconds * 1e-9, peak * 1e-9,
                100 * work / seconds / peak);
  }
}
