// The encoder equals the plain ViT, and its latents are the same bytes however the work is split.
#include "model/encoder.h"
#include "model_support.h"

using namespace model_test;
using lewm::Encoder;

namespace {

std::vector<float> encode(const std::shared_ptr<const lewm::Model>& model, const std::vector<std::uint8_t>& frames,
                          int threads) {
  const Config& c = model->config();
  const auto n = static_cast<std::int64_t>(frames.size()) / (3 * c.image_size * c.image_size);
  lewm::ThreadPool pool(threads);
  Encoder encoder(model, pool);
  std::vector<float> latents(static_cast<std::size_t>(n * c.latent_dim));
  encoder.encode(frames.data(), n, latents.data());
  return latents;
}

// The same frames, normalised, channels first.
std::vector<float> normalised(const Config& c, const std::vector<std::uint8_t>& frames) {
  const lewm::Preprocessing p;
  const auto area = static_cast<std::size_t>(c.image_size * c.image_size);
  std::vector<float> out(frames.size());
  for (std::size_t f = 0; f < frames.size() / (3 * area); ++f) {
    for (std::size_t i = 0; i < area; ++i) {
      for (std::size_t ch = 0; ch < 3; ++ch) {
        const double value = (frames[(f * area + i) * 3 + ch] / 255.0 - p.mean[ch]) / p.std[ch];
        out[(f * 3 + ch) * area + i] = static_cast<float>(value);
      }
    }
  }
  return out;
}

void check_encoder(const Config& config, std::size_t n, const std::vector<Tier>& on, const std::string& what) {
  const naive::Tensors tensors = naive::random_weights(config, 1);
  const naive::Model reference(config, tensors);
  const std::vector<std::uint8_t> frames = random_frames(config, n, 2);
  const std::vector<float> floats = normalised(config, frames);
  std::vector<naive::Vector> expected;
  for (std::size_t i = 0; i < n; ++i) {
    expected.push_back(reference.encode(frames.data() + i * frames.size() / n, lewm::Preprocessing{}));
  }
  for (const Tier& tier : on) {
    const auto model = make_model(config, tensors, tier);
    const std::vector<float> from_bytes = encode(model, frames, 1);
    lewm::ThreadPool pool(1);
    Encoder encoder(model, pool);
    std::vector<float> from_floats(from_bytes.size());
    encoder.encode(floats.data(), static_cast<std::int64_t>(n), from_floats.data());
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t at = i * static_cast<std::size_t>(config.latent_dim);
      check_latent(&from_bytes[at], expected[i], tier, what + ", bytes");
      check_latent(&from_floats[at], expected[i], tier, what + ", floats");
    }
  }
}

}  // namespace

TEST(published_sizes) { check_encoder(Config(), 1, tiers(), "published sizes"); }

TEST(small_images_in_every_precision) {
  Config config;
  config.image_size = 64;
  config.patch_size = 16;
  config.encoder_dim = 96;
  config.encoder_depth = 4;
  config.encoder_mlp_dim = 200;
  config.latent_dim = 72;
  config.predictor_dim = config.predictor_output_dim = 72;
  config.predictor_depth = 1;
  check_encoder(config, 2, tiers(), "64x64");
}

TEST(other_architectures) {
  const Config config = small_config();
  check_encoder(config, 3, fp32_tiers(), "odd sizes");

  Config shallow = config;
  shallow.encoder_depth = 1;
  check_encoder(shallow, 2, fp32_tiers(), "one layer");

  Config one_patch = config;
  one_patch.patch_size = one_patch.image_size;
  check_encoder(one_patch, 2, fp32_tiers(), "one patch");

  Config bare = config;
  bare.projector_dim = 0;
  bare.encoder_dim = bare.latent_dim;
  check_encoder(bare, 2, fp32_tiers(), "no projector");

  Config layer = config;
  layer.projector_norm = "layer";
  check_encoder(layer, 2, fp32_tiers(), "LayerNorm in the projector");

  Config none = config;
  none.projector_norm = "none";
  check_encoder(none, 2, fp32_tiers(), "no norm in the projector");
}

TEST(bytes_do_not_depend_on_threads_or_batch) {
  Config config = small_config();
  config.image_size = 60;  // 145 tokens: several chunks
  const naive::Tensors tensors = naive::random_weights(config, 3);
  const std::size_t n = 7, latent = static_cast<std::size_t>(config.latent_dim);
  const std::vector<std::uint8_t> frames = random_frames(config, n, 4);
  const std::size_t bytes = frames.size() / n;
  for (const Tier& tier : tiers()) {
    const auto model = make_model(config, tensors, tier);
    std::vector<float> alone;
    for (std::size_t i = 0; i < n; ++i) {
      const std::vector<std::uint8_t> frame(frames.data() + i * bytes, frames.data() + (i + 1) * bytes);
      const std::vector<float> z = encode(model, frame, 1);
      CHECK_EQ(z.size(), latent);
      CHECK(same_bytes(z, encode(model, frame, 3)));
      alone.insert(alone.end(), z.begin(), z.end());
    }
    for (const int threads : {1, 2, 3, 5}) CHECK(same_bytes(encode(model, frames, threads), alone));
  }
}

TEST(more_frames_than_a_group) {
  Config config = small_config();
  config.encoder_depth = 1;
  const naive::Tensors tensors = naive::random_weights(config, 5);
  const auto model = make_model(config, tensors, {lewm::cpu::Isa::scalar, Precision::fp32});
  const std::vector<std::uint8_t> frames = random_frames(config, 131, 6);
  const std::vector<float> all = encode(model, frames, 2);
  const std::size_t bytes = frames.size() / 131, latent = static_cast<std::size_t>(config.latent_dim);
  const std::vector<std::uint8_t> last(frames.end() - static_cast<std::ptrdiff_t>(bytes), frames.end());
  CHECK(same_bytes({all.end() - static_cast<std::ptrdiff_t>(latent), all.end()}, encode(model, last, 1)));
}

TEST(more_threads_than_tokens) {
  Config config = small_config();
  config.patch_size = config.image_size;  // 2 tokens
  const naive::Tensors tensors = naive::random_weights(config, 7);
  const auto model = make_model(config, tensors, {lewm::cpu::Isa::scalar, Precision::fp32});
  const std::vector<std::uint8_t> frames = random_frames(config, 1, 8);
  CHECK(same_bytes(encode(model, frames, 1), encode(model, frames, 5)));
}

CHECK_MAIN
