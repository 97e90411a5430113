// What a rollout may cost with the savings of DESIGN.md section 5: rollout_flops against a count by hand, and what the
// rollout executes against rollout_flops.
#include "model/rollout.h"
#include "model/rollout_schedule.h"
#include "model_support.h"

using namespace model_test;
using lewm::cpu::Isa;
using lewm::cpu::Kernels;

// The linker sends the core's calls of lewm::cpu::kernels to counting_kernels (--wrap, CMakeLists.txt).
const Kernels& real_kernels(Isa isa) asm("__real__ZN4lewm3cpu7kernelsENS0_3IsaE");
const Kernels& counting_kernels(Isa isa) asm("__wrap__ZN4lewm3cpu7kernelsENS0_3IsaE");

namespace {

constexpr Tier kCounted = {Isa::scalar, Precision::fp32};
std::int64_t multiply_adds = 0;  // executed so far by products of the counted tier

const lewm::cpu::Gemm& real_gemm() { return real_kernels(kCounted.isa).gemm[static_cast<int>(kCounted.precision)]; }

void counting_run(lewm::cpu::Rows x, std::int64_t rows, const lewm::cpu::PackedMatrix& w,
                  const lewm::cpu::Epilogue& epilogue, void* y, std::int64_t y_stride) {
  multiply_adds += rows * w.n * w.k;
  real_gemm().run(x, rows, w, epilogue, y, y_stride);
}

}  // namespace

const Kernels& counting_kernels(Isa isa) {
  static const Kernels table = [] {
    Kernels counting = real_kernels(kCounted.isa);
    counting.gemm[static_cast<int>(kCounted.precision)].run = counting_run;
    return counting;
  }();
  return isa == kCounted.isa ? table : real_kernels(isa);
}

// Counted by hand at the published sizes, in multiply-adds. Of one token in one layer:
//   query 192*1024, keys and values 192*2048, output 1024*192, MLP 2*192*2048; the first of a window (the anchor)
//   192*192 in place of query, keys, values and output.
TEST(flops_of_the_published_sizes) {
  const Config config;
  const std::int64_t query = 192 * 1024, kv = 192 * 2048, out = 1024 * 192, mlp = 2 * 192 * 2048, alone = 192 * 192;
  const std::int64_t full = query + kv + out + mlp;
  const std::int64_t first = 6 * (alone + mlp);  // frame 0, the anchor
  const std::int64_t grown = 6 * full;           // frames 1 and 2 beside the anchor and cached keys
  // Three tokens, the oldest the anchor; in the last of the six layers only the newest one's query, output and MLP.
  const std::int64_t slid = 5 * (alone + mlp + 2 * full) + alone + 2 * kv + query + out + mlp;
  const std::int64_t block = 10 * 768 + 768 * 192 + 6 * 192 * 1152, pred_proj = 2 * 192 * 2048;
  CHECK_EQ(lewm::rollout_flops(config, 1, 5), 2 * (first + 2 * grown + 2 * slid + 5 * (block + pred_proj)));
  CHECK_EQ(lewm::rollout_flops(config, 1, 5), 157707264);

  // Nine token passes without anchors: 183 MFLOP.
  const std::int64_t passes =
      2 * (3 * grown + 2 * (5 * 3 * full + 3 * kv + query + out + mlp) + 5 * (block + pred_proj));
  CHECK_EQ(passes, 183118848);

  // Two shared context frames: the first step attends to them, both others slide.
  const std::int64_t second = 5 * (2 * full) + 2 * kv + query + out + mlp;
  CHECK_EQ(lewm::rollout_flops(config, 3, 2), 2 * (grown + second + 2 * (block + pred_proj)));
}

TEST(no_more_is_executed_than_counted) {
  Config projecting = small_config();
  projecting.predictor_dim = 40;
  projecting.predictor_output_dim = 28;
  for (Config config : {small_config(), projecting}) {
    for (config.history = 1; config.history <= 4; ++config.history) {
      const auto model = make_model(config, naive::random_weights(config, 1), kCounted);
      for (std::int64_t context = 1; context <= config.history; ++context) {
        for (std::int64_t horizon = 1; horizon <= 7; ++horizon) {
          constexpr std::int64_t kCandidates = 3;
          const auto floats = [](std::int64_t n) { return random_floats(static_cast<std::size_t>(n), 2); };
          const std::vector<float> past = floats((context - 1) * config.block_dim()),
                                   actions = floats(kCandidates * horizon * config.block_dim());
          std::vector<float> out(static_cast<std::size_t>(kCandidates * config.latent_dim));
          lewm::Rollout rollout(model, {1, horizon, 1});
          rollout.prepare(floats(context * config.latent_dim).data(), past.data(), 1, context);
          const std::int64_t before = multiply_adds;
          rollout.run_tile(0, 0, actions.data(), kCandidates, horizon, false, out.data());
          const std::int64_t executed = 2 * (multiply_adds - before),
                             counted = kCandidates * lewm::rollout_flops(config, context, horizon);
          if (executed == counted) continue;
          check::fail(__FILE__, __LINE__,
                      "history " + std::to_string(config.history) + ", context " + std::to_string(context) +
                          ", horizon " + std::to_string(horizon) + ": executed " + std::to_string(executed) +
                          " FLOP, counted " + std::to_string(counted));
        }
      }
    }
  }
}

CHECK_MAIN
