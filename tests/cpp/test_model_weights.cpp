// Folding is exact algebra; weights and deployment files that do not fit are refused by name.
#include <array>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "model/encoder.h"
#include "model/folding.h"
#include "model/linear.h"
#include "model/rollout.h"
#include "model/weight_reader.h"
#include "model_support.h"
#include "safetensors_support.h"

using namespace model_test;
using lewm::Affine;
using lewm::apply;
using lewm::Error;
using lewm::Status;
using safetensors_test::TemporaryFile;

namespace {

constexpr Tier kScalar{lewm::cpu::Isa::scalar, Precision::fp32};
constexpr double kExact = 1e-12;

naive::Vector random_vector(std::int64_t n, std::uint64_t seed) {
  const std::vector<float> values = random_floats(static_cast<std::size_t>(n), seed);
  return {values.begin(), values.end()};
}

lewm::Values random_values(std::int64_t n, std::uint64_t seed) {
  const naive::Vector values = random_vector(n, seed);
  return {values.begin(), values.end()};
}

Affine random_affine(std::int64_t out, std::int64_t in, std::uint64_t seed) {
  return {"layer", out, in, random_values(out * in, seed), random_values(out, seed + 1)};
}

void check_equal(const naive::Vector& a, const naive::Vector& b) {
  CHECK_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) CHECK_NEAR(a[i], b[i], kExact);
}

// Building this model fails as `status` with `part` in the message.
void refuse(const Config& config, const naive::Tensors& tensors, const std::string& part) {
  try {
    make_model(config, tensors, kScalar);
  } catch (const Error& e) {
    CHECK(e.status() == Status::bad_file);
    if (std::string(e.what()).find(part) == std::string::npos) {
      check::fail(__FILE__, __LINE__, "expected \"" + part + "\" in: " + e.what());
    }
    return;
  }
  check::fail(__FILE__, __LINE__, "built, expected: " + part);
}

std::vector<float> some_latents(const std::shared_ptr<const lewm::Model>& model) {
  const Config& c = model->config();
  const std::vector<std::uint8_t> frames = random_frames(c, 1, 9);
  lewm::ThreadPool pool(1);
  std::vector<float> latents(static_cast<std::size_t>(2 * c.latent_dim));
  lewm::Encoder(model, pool).encode(frames.data(), 1, latents.data());
  lewm::Rollout rollout(model, {1, 3, 1});
  rollout.prepare(latents.data(), nullptr, 1, 1);
  const std::vector<float> actions = random_floats(static_cast<std::size_t>(3 * c.block_dim()), 8);
  rollout.run_tile(0, 0, actions.data(), 1, 3, false, latents.data() + c.latent_dim);
  return latents;
}

std::map<std::string, std::string> metadata_of(const Config& config) {
  return {{"format", "lewm"},
          {"format_version", "1"},
          {"config", lewm::config_to_json(config)},
          {"preprocessing", R"({"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]})"},
          {"action_scaling", R"({"mean": [0, 1, 2, 3, 4], "std": [1, 2, 3, 4, 5]})"},
          {"provenance", "a test"}};
}

}  // namespace

TEST(folding_an_input_norm) {
  Affine layer = random_affine(5, 7, 1);
  const lewm::NormAffine norm{random_values(7, 2), random_values(7, 3)};
  const naive::Vector n = random_vector(7, 4);
  naive::Vector normed(7);
  for (std::size_t i = 0; i < 7; ++i) normed[i] = norm.gamma[i] * n[i] + norm.beta[i];
  const naive::Vector expected = apply(layer, normed.data());
  fold_input_norm(layer, norm);
  check_equal(apply(layer, n.data()), expected);
}

TEST(folding_a_batch_norm) {
  Affine layer = random_affine(5, 7, 1);
  lewm::BatchNorm norm{random_values(5, 2), random_values(5, 3), random_values(5, 4), random_values(5, 5)};
  for (double& v : norm.variance) v *= v;
  const naive::Vector x = random_vector(7, 6);
  naive::Vector expected = apply(layer, x.data());
  for (std::size_t i = 0; i < 5; ++i) {
    expected[i] = (expected[i] - norm.mean[i]) / std::sqrt(norm.variance[i] + 1e-5) * norm.gamma[i] + norm.beta[i];
  }
  fold_output_norm(layer, norm);
  check_equal(apply(layer, x.data()), expected);
}

TEST(composing_and_appending) {
  // Sizes that no block of the product divides.
  for (const auto& [out, middle, in] : {std::array{3, 6, 4}, std::array{1, 5, 17}, std::array{4, 9, 8}}) {
    const Affine inner = random_affine(middle, in, 1), outer = random_affine(out, middle, 3);
    const Affine wider = random_affine(out, middle - 3, 4);
    const naive::Vector x = random_vector(in, 5), y = apply(inner, x.data());
    check_equal(apply(compose(outer, inner), x.data()), apply(outer, y.data()));
    check_equal(apply(compose(wider, inner, 2, middle - 1), x.data()), apply(wider, y.data() + 2));

    Affine both = inner;
    const Affine other = random_affine(2, in, 7);
    append(both, other);
    naive::Vector expected = y;
    for (double value : apply(other, x.data())) expected.push_back(value);
    check_equal(apply(both, x.data()), expected);
    check_equal(apply(lewm::identity(in), x.data()), x);
  }
}

TEST(loading_reuses_its_memory) {
  lewm::ReusedMemory memory;
  const double* place = nullptr;
  {
    lewm::Values first(5000, 1.0, &memory);
    place = first.data();
    CHECK(lewm::Values(5000, 2.0, &memory).data() != place);
  }
  const lewm::Values again(4990, 3.0, &memory);
  CHECK(again.data() == place || lewm::Values(4990, 4.0, &memory).data() == place);
}

TEST(both_namings_of_the_encoder) {
  using lewm::published_name;
  CHECK_EQ(published_name("encoder.layers.3.attention.q_proj.weight"),
           "encoder.encoder.layer.3.attention.attention.query.weight");
  CHECK_EQ(published_name("encoder.layers.11.attention.o_proj.bias"),
           "encoder.encoder.layer.11.attention.output.dense.bias");
  CHECK_EQ(published_name("encoder.layers.0.mlp.fc2.weight"), "encoder.encoder.layer.0.output.dense.weight");
  CHECK_EQ(published_name("encoder.layers.0.layernorm_before.bias"), "encoder.encoder.layer.0.layernorm_before.bias");
  CHECK_EQ(published_name("predictor.pos_embedding"), "predictor.pos_embedding");
  CHECK_EQ(published_name("encoder.layers.0.output.dense.bias"), "encoder.layers.0.output.dense.bias");

  const Config config = small_config();
  naive::Tensors tensors = naive::random_weights(config, 1);
  const std::vector<float> expected = some_latents(make_model(config, tensors, kScalar));
  const std::pair<const char*, const char*> renamed[] = {{"attention.attention.query", "attention.q_proj"},
                                                         {"attention.attention.key", "attention.k_proj"},
                                                         {"attention.attention.value", "attention.v_proj"},
                                                         {"attention.output.dense", "attention.o_proj"},
                                                         {"intermediate.dense", "mlp.fc1"},
                                                         {"output.dense", "mlp.fc2"},
                                                         {"layernorm_before", "layernorm_before"},
                                                         {"layernorm_after", "layernorm_after"}};
  for (std::int64_t l = 0; l < config.encoder_depth; ++l) {
    for (const auto& [from, to] : renamed) {
      for (const char* kind : {".weight", ".bias"}) {
        const std::string n = std::to_string(l);
        tensors.rename("encoder.encoder.layer." + n + "." + from + kind, "encoder.layers." + n + "." + to + kind);
      }
    }
  }
  CHECK(same_bytes(some_latents(make_model(config, tensors, kScalar)), expected));

  tensors.add("encoder.encoder.layer.0.output.dense.bias", {config.encoder_dim});
  refuse(config, tensors, "the same tensor as");
}

TEST(every_tensor_is_needed) {
  const Config config = small_config();
  const naive::Tensors all = naive::random_weights(config, 2);
  for (const std::string_view name : all.names()) {
    if (name.ends_with("num_batches_tracked")) continue;
    naive::Tensors tensors = all;
    tensors.remove(std::string(name));
    refuse(config, tensors, "tensor " + std::string(name) + ": missing");
  }
}

TEST(widths_beyond_the_kernels) {
  Config config = small_config();
  config.predictor_dim = lewm::cpu::kMaxWidth + 1;
  CHECK_THROWS(make_model(config, naive::Tensors(), kScalar), Error, "predictor_dim: expected at most 8192, got 8193");
  config = small_config();
  config.predictor_heads = 2000;
  CHECK_THROWS(make_model(config, naive::Tensors(), kScalar), Error, "predictor_heads * predictor_head_dim: expected");
}

TEST(uneven_weights_are_noticed) {
  lewm::Affine layer{"layer", 2, 300, lewm::Values(600, 0.5), lewm::Values(2)};
  for (const auto& [largest, precision, uneven] : {std::tuple{20.0, Precision::int24, false},
                                                   {25.0, Precision::int24, true},
                                                   {20.0, Precision::int16, false},
                                                   {25.0, Precision::int16, true},
                                                   {25.0, Precision::bf16, false}}) {
    layer.weight[457] = largest;  // 15.9 and 16.4 times the root mean square
    lewm::WeightMemory memory(lewm::cpu::kernels(lewm::cpu::Isa::scalar));
    memory.pack(layer, precision);
    CHECK(memory.uneven() == uneven);
  }
}

TEST(layers_too_wide_for_int8_sums) {
  Config wide_predictor = small_config(), wide_encoder = small_config();
  wide_predictor.predictor_mlp_dim = wide_encoder.encoder_mlp_dim = lewm::cpu::kInt8MostK + 1;
  for (const Tier& tier : tiers()) {
    if (tier.precision != Precision::int8) continue;
    CHECK_THROWS(make_model(wide_predictor, naive::Tensors(), tier), Error,
                 "precision: int8 is not available for layers of more than 66000 inputs, got 66001");
    CHECK_THROWS(make_model(wide_encoder, naive::Tensors(), tier), Error, "encoder_precision: int8 is not available");
  }
}

TEST(tensors_that_do_not_fit) {
  const Config config = small_config();
  const naive::Tensors all = naive::random_weights(config, 2);
  naive::Tensors tensors = all;
  tensors.add("predictor.transformer.norm.weight", {23});
  refuse(config, tensors, "tensor predictor.transformer.norm.weight: expected shape (24,), got (23,)");

  tensors = all;
  tensors.add("predictor.pos_embedding", {3, 24});
  refuse(config, tensors, "expected shape (1, 3, 24), got (3, 24)");

  tensors = all;
  tensors.add("decoder.weight", {1});
  refuse(config, tensors, "tensor decoder.weight: not a tensor of this model");

  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    tensors = all;
    tensors.values("pred_proj.net.3.weight")[5] = bad;
    refuse(config, tensors, "tensor pred_proj.net.3.weight: element 5 is not a finite float");
  }

  tensors = all;
  tensors.values("projector.net.1.running_var")[2] = -1;
  refuse(config, tensors, "projector.net.1.running_var: element 2 is negative");

  tensors = all;
  tensors.values("encoder.layernorm.weight")[0] = 3e38f;
  tensors.values("projector.net.0.weight")[0] = 3e38f;
  refuse(config, tensors, "projector.net.0: too large");

  tensors = all;
  tensors.view("projector.net.0.bias").dtype = lewm::DType::i32;
  refuse(config, tensors, "tensor projector.net.0.bias: expected a floating-point dtype");
}

TEST(other_dtypes_of_weights) {
  const Config config = small_config();
  naive::Tensors tensors = naive::random_weights(config, 3);
  // A value that all four types hold.
  std::vector<float>& bias = tensors.values("predictor.transformer.norm.bias");
  bias.assign(bias.size(), 0.375f);
  const std::vector<float> expected = some_latents(make_model(config, tensors, kScalar));
  lewm::TensorView& view = tensors.view("predictor.transformer.norm.bias");
  const std::vector<std::uint16_t> f16(bias.size(), 0x3600), bf16(bias.size(), 0x3ec0);
  const std::vector<double> f64(bias.size(), 0.375);
  const std::pair<lewm::DType, const void*> same[] = {
      {lewm::DType::f16, f16.data()}, {lewm::DType::bf16, bf16.data()}, {lewm::DType::f64, f64.data()}};
  for (const auto& [dtype, data] : same) {
    view.dtype = dtype;
    view.data = data;
    CHECK(same_bytes(some_latents(make_model(config, tensors, kScalar)), expected));
  }
}

TEST(counts_of_batches_are_not_used) {
  const Config config = small_config();
  const naive::Tensors all = naive::random_weights(config, 3);
  const std::vector<float> expected = some_latents(make_model(config, all, kScalar));
  const std::string count = "projector.net.1.num_batches_tracked";
  naive::Tensors tensors = all;
  tensors.add(count, {2, 3});
  tensors.view(count).dtype = lewm::DType::i32;
  CHECK(same_bytes(some_latents(make_model(config, tensors, kScalar)), expected));
  tensors.remove(count);
  CHECK(same_bytes(some_latents(make_model(config, tensors, kScalar)), expected));
  tensors.add("projector.net.2.num_batches_tracked", {});
  refuse(config, tensors, "tensor projector.net.2.num_batches_tracked: not a tensor of this model");
}

TEST(precisions_and_scales) {
  const Config config = small_config();
  const naive::Tensors tensors = naive::random_weights(config, 4);
  const auto create = [&](const lewm::Preprocessing& p, lewm::ActionScaling s) {
    return lewm::Model::create(config, tensors, p, std::move(s), Precision::fp32, lewm::cpu::Isa::scalar);
  };
  lewm::Preprocessing flat;
  flat.std[1] = 0;
  CHECK_THROWS(create(flat, {}), Error, "preprocessing: expected a finite mean and a positive std");
  CHECK_THROWS(create({}, {{0, 1}, {1, 1}}), Error,
               "action_scaling: expected mean and std of 5 dimensions, got 2 and 2");
  CHECK_THROWS(create({}, {{0, 0, 0, 0, NAN}, {1, 1, 1, 1, 1}}), Error, "in dimension 4");
  Config contradictory = config;
  contradictory.image_size = 21;
  CHECK_THROWS(make_model(contradictory, tensors, kScalar), Error, "image_size: expected a multiple of patch_size (5)");
  for (int i = 0; i < lewm::cpu::kIsas; ++i) {
    const auto isa = static_cast<lewm::cpu::Isa>(i);
    for (int p = 0; p < lewm::kPrecisions; ++p) {
      const Tier tier{isa, static_cast<Precision>(p)};
      if (!lewm::cpu::isa_available(isa)) {
        CHECK_THROWS(make_model(config, tensors, tier), Error, lewm::cpu::isa_name(isa));
      } else if (!lewm::cpu::has(lewm::cpu::kernels(isa), tier.precision)) {
        CHECK_THROWS(
            make_model(config, tensors, tier), Error,
            std::string(kPrecisionNames[p]) + " is not available with instruction set " + lewm::cpu::isa_name(isa));
      }
    }
  }
}

TEST(a_deployment_file) {
  const Config config = small_config();
  const naive::Tensors tensors = naive::random_weights(config, 5);
  std::shared_ptr<const lewm::Model> model;
  {
    const TemporaryFile file(safetensors_test::serialise(tensors, metadata_of(config)));
    model = lewm::Model::open(file.path(), Precision::fp32, lewm::cpu::Isa::scalar);
    // Nothing of the file is needed once it is open.
    CHECK_EQ(truncate(file.path().c_str(), 0), 0);
  }
  CHECK_EQ(lewm::config_to_json(model->config()), lewm::config_to_json(config));
  CHECK_EQ(model->preprocessing().mean[2], 0.6f);
  CHECK_EQ(model->action_scaling().std[4], 5.0f);
  CHECK(model->weight_bytes() > 0);
  const auto same = lewm::Model::create(config, tensors, model->preprocessing(), model->action_scaling(),
                                        Precision::fp32, lewm::cpu::Isa::scalar);
  CHECK(same_bytes(some_latents(model), some_latents(same)));
}

TEST(deployment_metadata) {
  const Config config = small_config();
  const naive::Tensors tensors = naive::random_weights(config, 5);
  const auto open = [&](const std::map<std::string, std::string>& metadata) {
    const TemporaryFile file(safetensors_test::serialise(tensors, metadata));
    return lewm::Model::open(file.path(), Precision::fp32, lewm::cpu::Isa::scalar);
  };
  const auto with = [&](const std::string& key, const std::string& value) {
    auto metadata = metadata_of(config);
    metadata[key] = value;
    return metadata;
  };
  const auto without = [&](const std::string& key) {
    auto metadata = metadata_of(config);
    metadata.erase(key);
    return metadata;
  };
  CHECK(open(without("action_scaling"))->action_scaling().mean.empty());
  CHECK(open(without("provenance")) != nullptr);
  for (const char* key : {"format", "format_version", "config", "preprocessing"}) {
    CHECK_THROWS(open(without(key)), Error, std::string("no metadata \"") + key + "\"");
  }
  CHECK_THROWS(open(with("format", "pt")), Error, "format: expected \"lewm\", got \"pt\"");
  CHECK_THROWS(open(with("format_version", "2")), Error, "format_version: this build reads 1, got \"2\"");
  CHECK_THROWS(open(with("config", "{")), Error, "JSON, byte 1");
  CHECK_THROWS(open(with("config", "{\"history\": 0}")), Error, "history: expected 1..");
  CHECK_THROWS(open(with("config", "{\"action_dim\": 5}")), Error,
               "expected shape");  // the published sizes, which these are not
  CHECK_THROWS(open(with("preprocessing", "{\"mean\": [0, 0, 0]}")), Error, "preprocessing: std: expected an array");
  CHECK_THROWS(open(with("preprocessing", "{\"mean\": [0], \"std\": [1]}")), Error,
               "preprocessing: expected mean and std of 3");
  CHECK_THROWS(open(with("preprocessing", "{\"mean\": [0, 0, 0], \"std\": [1, 1, -1]}")), Error, "positive std");
  CHECK_THROWS(open(with("action_scaling", "{\"mean\": [\"a\"], \"std\": [1]}")), Error,
               "action_scaling: mean: expected");
  CHECK_THROWS(open(with("action_scaling", "{\"mean\": [0], \"std\": [1]}")), Error, "of 5 dimensions, got 1 and 1");
  CHECK_THROWS(open(with("action_scaling", "{\"mean\": [], \"std\": []}")), Error, "of 5 dimensions, got 0 and 0");
  CHECK_THROWS(open(with("action_scaling", "[]")), Error, "action_scaling: expected mean and std");
  CHECK_THROWS(open(with("preprocessing", "{\"mean\": [0, 0, 0], \"std\": [1, 1, 1], \"max\": 255}")), Error,
               "preprocessing: expected mean and std, got \"max\"");
  CHECK_THROWS(lewm::Model::open("/no/such/model", Precision::fp32, lewm::cpu::Isa::scalar), Error, "/no/such/model");
}

TEST(configurations) {
  const Config config = small_config();
  const Config again = lewm::config_from_json(lewm::config_to_json(config));
  CHECK_EQ(lewm::config_to_json(again), lewm::config_to_json(config));
  CHECK_EQ(again.predictor_mlp_dim, 56);

  const auto refuse_json = [](const std::string& text, const std::string& part) {
    CHECK_THROWS(lewm::config_from_json(text), Error, part);
  };
  refuse_json("[]", "config: expected an object, got an array");
  refuse_json(R"({"depth": 3})", "config: unknown field \"depth\"");
  refuse_json(R"({"history": "3"})", "history: expected an integer, got a string");
  refuse_json(R"({"history": 2.5})", "history: expected an integer");
  refuse_json(R"({"history": -1})", "config: history: expected 1..1048576, got -1");
  refuse_json(R"({"predictor_mlp_dim": 99999999999})", "predictor_mlp_dim");
  refuse_json(R"({"projector_norm": 1})", "projector_norm: expected a string");
  refuse_json(R"({"projector_norm": "group"})", "projector_norm: expected batch, layer or none, got \"group\"");
  refuse_json(R"({"encoder_heads": 5})", "encoder_dim: expected a multiple of encoder_heads (5), got 192");
  refuse_json(R"({"projector_dim": 0, "latent_dim": 100})",
              "latent_dim: expected encoder_dim (192) without a projector");
  refuse_json(R"({"pred_proj_dim": 0, "predictor_output_dim": 8})", "predictor_output_dim: expected latent_dim (192)");
}

CHECK_MAIN
