// Frames to latents at the published sizes: milliseconds per frame, and FLOP/s of the GEMM and attention work against
// the GEMM's own peak.
//
//   bench_encoder [isa=avx512] [precision=bf16] [threads=2] [frames=1] [repeats=10]
#include "model/encoder.h"
#include "model_bench.h"

using namespace model_bench;

namespace {

// Multiply-adds of one frame, twice. In the last layer only CLS has a query, an output and an MLP.
double encoder_flops(const lewm::Config& c) {
  const std::int64_t dim = c.encoder_dim, tokens = c.tokens(), mlp = 2 * dim * c.encoder_mlp_dim;
  const std::int64_t attention = 2 * tokens * dim, token = 4 * dim * dim + mlp + attention;
  const std::int64_t patches = c.patches() * 3 * c.patch_size * c.patch_size * dim;
  const std::int64_t last = tokens * 2 * dim * dim + 2 * dim * dim + mlp + attention;
  const std::int64_t head = c.projector_dim * (dim + c.latent_dim);
  return 2.0 * static_cast<double>(patches + (c.encoder_depth - 1) * tokens * token + last + head);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options(argc, argv);
  const lewm::Config config;
  lewm::ThreadPool pool(static_cast<int>(options.number("threads", 0)));
  const std::int64_t n = options.number("frames", 1), repeats = options.number("repeats", 10);
  const naive::Tensors tensors = naive::random_weights(config, 1);
  std::vector<std::uint8_t> frames(static_cast<std::size_t>(n * 3 * config.image_size * config.image_size));
  naive::Generator generator(2);
  for (std::uint8_t& byte : frames) byte = static_cast<std::uint8_t>(generator.bits() >> 24);
  std::vector<float> latents(static_cast<std::size_t>(n * config.latent_dim));

  const double work = static_cast<double>(n) * encoder_flops(config);
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
