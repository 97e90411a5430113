// The published model written down plainly, in double: no folding, no caching, the whole window at every step. What the
// compiled core is compared with.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/model.h"
#include "model/tensors.h"

namespace naive {

using lewm::Config;
using Vector = std::vector<double>;

// Deterministic on every platform, unlike the distributions of <random>.
class Generator {
 public:
  explicit Generator(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  std::uint32_t bits() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state_ >> 33) << 1;
  }
  double uniform() { return (bits() + 0.5) / 4294967296.0; }
  double normal() { return std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform()); }

 private:
  std::uint64_t state_;
};

// Named float tensors in memory.
class Tensors : public lewm::TensorSource {
 public:
  Tensors() = default;
  Tensors(const Tensors& other) : entries_(other.entries_) {
    for (auto& [name, entry] : entries_) entry.view.data = entry.values.data();
  }
  Tensors(Tensors&&) = default;
  Tensors& operator=(Tensors other) {
    entries_.swap(other.entries_);
    return *this;
  }
  std::vector<float>& add(const std::string& name, const std::vector<std::int64_t>& shape) {
    std::size_t count = 1;
    for (std::int64_t size : shape) count *= static_cast<std::size_t>(size);
    Entry& entry = entries_[name];
    entry.values.assign(count, 0.0f);
    entry.view = {lewm::DType::f32, shape, entry.values.data()};
    return entry.values;
  }
  void remove(const std::string& name) { entries_.erase(name); }
  void rename(const std::string& from, const std::string& to) {
    auto node = entries_.extract(from);
    node.key() = to;
    entries_.insert(std::move(node));
  }
  std::vector<float>& values(const std::string& name) { return entries_.at(name).values; }
  const std::vector<float>& values(const std::string& name) const { return entries_.at(name).values; }
  lewm::TensorView& view(const std::string& name) { return entries_.at(name).view; }

  const lewm::TensorView* find(std::string_view name) const override {
    const auto found = entries_.find(name);
    return found == entries_.end() ? nullptr : &found->second.view;
  }
  std::vector<std::string_view> names() const override {
    std::vector<std::string_view> all;
    for (const auto& entry : entries_) all.push_back(entry.first);
    return all;
  }

 private:
  struct Entry {
    std::vector<float> values;
    lewm::TensorView view;
  };
  std::map<std::string, Entry, std::less<>> entries_;
};

// Random weights of every tensor that a configuration has: nothing is zero, one or symmetric, so that a swapped,
// missing or wrongly folded factor shows.
class RandomWeights {
 public:
  RandomWeights(const Config& config, std::uint64_t seed) : config_(config), generator_(seed) {
    encoder();
    predictor();
    linear("action_encoder.embed.0", config.action_mlp_scale * config.latent_dim, config.action_smoothed_dim);
    linear("action_encoder.embed.2", config.latent_dim, config.action_mlp_scale * config.latent_dim);
    weights("action_encoder.patch_embed.weight", {config.action_smoothed_dim, config.block_dim(), 1},
            config.block_dim());
    bias("action_encoder.patch_embed.bias", config.action_smoothed_dim);
    if (config.projector_dim) head("projector", config.encoder_dim, config.projector_dim);
    if (config.pred_proj_dim) head("pred_proj", config.predictor_output_dim, config.pred_proj_dim);
  }
  Tensors take() { return std::move(tensors_); }

 private:
  void normal(const std::string& name, const std::vector<std::int64_t>& shape, double mean, double std) {
    for (float& value : tensors_.add(name, shape)) value = static_cast<float>(mean + std * generator_.normal());
  }
  void weights(const std::string& name, const std::vector<std::int64_t>& shape, std::int64_t fan_in) {
    normal(name, shape, 0, 1 / std::sqrt(static_cast<double>(fan_in)));
  }
  void bias(const std::string& name, std::int64_t size) { normal(name, {size}, 0, 0.1); }
  void linear(const std::string& prefix, std::int64_t out, std::int64_t in) {
    weights(prefix + ".weight", {out, in}, in);
    bias(prefix + ".bias", out);
  }
  void norm(const std::string& prefix, std::int64_t size) {
    normal(prefix + ".weight", {size}, 1, 0.2);
    normal(prefix + ".bias", {size}, 0, 0.2);
  }
  void head(const std::string& prefix, std::int64_t in, std::int64_t hidden) {
    linear(prefix + ".net.0", hidden, in);
    if (config_.projector_norm != "none") norm(prefix + ".net.1", hidden);
    if (config_.projector_norm == "batch") {
      normal(prefix + ".net.1.running_mean", {hidden}, 0, 0.3);
      for (float& v : tensors_.add(prefix + ".net.1.running_var", {hidden})) {
        v = static_cast<float>(0.3 + 2 * generator_.uniform());
      }
      tensors_.add(prefix + ".net.1.num_batches_tracked", {1});
    }
    linear(prefix + ".net.3", config_.latent_dim, hidden);
  }
  void encoder() {
    const std::int64_t dim = config_.encoder_dim, patch = config_.patch_size;
    normal("encoder.embeddings.cls_token", {1, 1, dim}, 0, 0.5);
    normal("encoder.embeddings.position_embeddings", {1, config_.tokens(), dim}, 0, 0.5);
    weights("encoder.embeddings.patch_embeddings.projection.weight", {dim, 3, patch, patch}, 3 * patch * patch);
    bias("encoder.embeddings.patch_embeddings.projection.bias", dim);
    for (std::int64_t l = 0; l < config_.encoder_depth; ++l) {
      const std::string p = "encoder.encoder.layer." + std::to_string(l) + ".";
      for (const char* name : {"query", "key", "value"}) linear(p + "attention.attention." + name, dim, dim);
      linear(p + "attention.output.dense", dim, dim);
      linear(p + "intermediate.dense", config_.encoder_mlp_dim, dim);
      linear(p + "output.dense", dim, config_.encoder_mlp_dim);
      norm(p + "layernorm_before", dim);
      norm(p + "layernorm_after", dim);
    }
    norm("encoder.layernorm", dim);
  }
  void predictor() {
    const std::int64_t dim = config_.predictor_dim, latent = config_.latent_dim, output = config_.predictor_output_dim;
    const std::int64_t inner = config_.predictor_heads * config_.predictor_head_dim;
    const std::string t = "predictor.transformer.";
    normal("predictor.pos_embedding", {1, config_.history, latent}, 0, 1);
    if (latent != dim) {
      linear(t + "input_proj", dim, latent);
      linear(t + "cond_proj", dim, latent);
    }
    if (output != dim) linear(t + "output_proj", output, dim);
    for (std::int64_t l = 0; l < config_.predictor_depth; ++l) {
      const std::string p = t + "layers." + std::to_string(l) + ".";
      norm(p + "attn.norm", dim);
      weights(p + "attn.to_qkv.weight", {3 * inner, dim}, dim);
      if (config_.predictor_heads != 1 || config_.predictor_head_dim != dim) linear(p + "attn.to_out.0", dim, inner);
      norm(p + "mlp.net.0", dim);
      linear(p + "mlp.net.1", config_.predictor_mlp_dim, dim);
      linear(p + "mlp.net.4", dim, config_.predictor_mlp_dim);
      linear(p + "adaLN_modulation.1", 6 * dim, dim);
    }
    norm(t + "norm", dim);
  }

  Config config_;
  Generator generator_;
  Tensors tensors_;
};

inline Tensors random_weights(const Config& config, std::uint64_t seed) { return RandomWeights(config, seed).take(); }

inline double gelu(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }
inline double silu(double x) { return x / (1 + std::exp(-x)); }

class Model {
 public:
  Model(const Config& config, const Tensors& tensors) : c_(config), t_(tensors) {}

  // pixels: [channel][y][x], normalised -> [D]
  Vector encode(const Vector& pixels) const {
    const std::int64_t size = c_.image_size, patch = c_.patch_size, dim = c_.encoder_dim, per_row = size / patch;
    const auto& w = t_.values("encoder.embeddings.patch_embeddings.projection.weight");
    const auto& b = t_.values("encoder.embeddings.patch_embeddings.projection.bias");
    const auto& cls = t_.values("encoder.embeddings.cls_token");
    const auto& positions = t_.values("encoder.embeddings.position_embeddings");
    std::vector<Vector> x;
    x.emplace_back(cls.begin(), cls.end());
    for (std::int64_t i = 0; i < c_.patches(); ++i) {
      Vector token(b.begin(), b.end());
      for (std::int64_t d = 0; d < dim; ++d) {
        for (std::int64_t ch = 0; ch < 3; ++ch) {
          for (std::int64_t py = 0; py < patch; ++py) {
            for (std::int64_t px = 0; px < patch; ++px) {
              const std::int64_t row = (i / per_row) * patch + py, column = (i % per_row) * patch + px;
              token[u(d)] +=
                  w[u(((d * 3 + ch) * patch + py) * patch + px)] * pixels[u((ch * size + row) * size + column)];
            }
          }
        }
      }
      x.push_back(token);
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
      for (std::int64_t d = 0; d < dim; ++d) x[i][u(d)] += positions[i * u(dim) + u(d)];
    }
    for (std::int64_t l = 0; l < c_.encoder_depth; ++l) {
      const std::string p = "encoder.encoder.layer." + std::to_string(l) + ".";
      std::vector<Vector> q, k, v;
      for (const Vector& token : x) {
        const Vector n = norm(p + "layernorm_before", token, 1e-12);
        q.push_back(linear(p + "attention.attention.query", n));
        k.push_back(linear(p + "attention.attention.key", n));
        v.push_back(linear(p + "attention.attention.value", n));
      }
      for (std::size_t i = 0; i < x.size(); ++i) {
        add(x[i], linear(p + "attention.output.dense", attend(q[i], k, v, x.size(), c_.encoder_heads)));
        Vector h = linear(p + "intermediate.dense", norm(p + "layernorm_after", x[i], 1e-12));
        for (double& value : h) value = gelu(value);
        add(x[i], linear(p + "output.dense", h));
      }
    }
    return head("projector", c_.projector_dim, norm("encoder.layernorm", x[0], 1e-12));
  }

  // uint8 RGB [y][x][channel] -> [D]
  Vector encode(const std::uint8_t* frame, const lewm::Preprocessing& preprocessing) const {
    const std::size_t area = u(c_.image_size * c_.image_size);
    Vector pixels(3 * area);
    for (std::size_t i = 0; i < area; ++i) {
      for (std::size_t ch = 0; ch < 3; ++ch) {
        const double mean = preprocessing.mean[ch], std = preprocessing.std[ch];
        pixels[ch * area + i] = (frame[i * 3 + ch] / 255.0 - mean) / std;
      }
    }
    return encode(pixels);
  }

  // latents: the context, oldest first; blocks: the executed ones, then the candidate's. Returns the predicted latents.
  std::vector<Vector> rollout(std::vector<Vector> latents, const std::vector<Vector>& blocks) const {
    const std::size_t context = latents.size(), history = u(c_.history);
    while (latents.size() < blocks.size() + 1) {
      const std::size_t first = latents.size() > history ? latents.size() - history : 0;
      latents.push_back(predict({latents.begin() + static_cast<std::ptrdiff_t>(first), latents.end()},
                                {blocks.begin() + static_cast<std::ptrdiff_t>(first),
                                 blocks.begin() + static_cast<std::ptrdiff_t>(latents.size())}));
    }
    return {latents.begin() + static_cast<std::ptrdiff_t>(context), latents.end()};
  }

 private:
  static std::size_t u(std::int64_t i) { return static_cast<std::size_t>(i); }

  static void add(Vector& x, const Vector& y) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  Vector linear(const std::string& prefix, const Vector& x, bool has_bias = true) const {
    const auto& w = t_.values(prefix + ".weight");
    const std::size_t out = w.size() / x.size();
    Vector y(out);
    for (std::size_t i = 0; i < out; ++i) {
      if (has_bias) y[i] = t_.values(prefix + ".bias")[i];
      for (std::size_t k = 0; k < x.size(); ++k) y[i] += w[i * x.size() + k] * x[k];
    }
    return y;
  }

  static Vector normalised(const Vector& x, double eps) {
    double mean = 0, variance = 0;
    for (double v : x) mean += v;
    mean /= static_cast<double>(x.size());
    for (double v : x) variance += (v - mean) * (v - mean);
    variance /= static_cast<double>(x.size());
    Vector y;
    for (double v : x) y.push_back((v - mean) / std::sqrt(variance + eps));
    return y;
  }

  Vector norm(const std::string& prefix, const Vector& x, double eps) const {
    Vector y = normalised(x, eps);
    for (std::size_t i = 0; i < y.size(); ++i) {
      y[i] = y[i] * t_.values(prefix + ".weight")[i] + t_.values(prefix + ".bias")[i];
    }
    return y;
  }

  // Softmax attention of one token over the first `keys` ones, all heads.
  static Vector attend(const Vector& q, const std::vector<Vector>& k, const std::vector<Vector>& v, std::size_t keys,
                       std::int64_t heads) {
    const std::size_t head_dim = q.size() / u(heads);
    Vector out(q.size());
    for (std::size_t h = 0; h < u(heads); ++h) {
      Vector p(keys);
      double total = 0;
      for (std::size_t j = 0; j < keys; ++j) {
        double score = 0;
        for (std::size_t d = h * head_dim; d < (h + 1) * head_dim; ++d) score += q[d] * k[j][d];
        total += p[j] = std::exp(score / std::sqrt(static_cast<double>(head_dim)));
      }
      for (std::size_t j = 0; j < keys; ++j) {
        for (std::size_t d = h * head_dim; d < (h + 1) * head_dim; ++d) out[d] += p[j] / total * v[j][d];
      }
    }
    return out;
  }

  Vector head(const std::string& prefix, std::int64_t hidden, const Vector& x) const {
    if (!hidden) return x;
    Vector h = linear(prefix + ".net.0", x);
    const std::string n = prefix + ".net.1";
    if (c_.projector_norm == "layer") h = norm(n, h, 1e-5);
    if (c_.projector_norm == "batch") {
      for (std::size_t i = 0; i < h.size(); ++i) {
        h[i] = (h[i] - t_.values(n + ".running_mean")[i]) / std::sqrt(t_.values(n + ".running_var")[i] + 1e-5) *
                   t_.values(n + ".weight")[i] +
               t_.values(n + ".bias")[i];
      }
    }
    for (double& value : h) value = gelu(value);
    return linear(prefix + ".net.3", h);
  }

  Vector encode_action(const Vector& block) const {
    Vector h = linear("action_encoder.embed.0", linear("action_encoder.patch_embed", block));
    for (double& value : h) value = silu(value);
    return linear("action_encoder.embed.2", h);
  }

  // The window's latents and blocks -> the next latent.
  Vector predict(const std::vector<Vector>& latents, const std::vector<Vector>& blocks) const {
    const std::size_t tokens = latents.size(), dim = u(c_.predictor_dim);
    const std::string t = "predictor.transformer.";
    const bool projected = c_.latent_dim != c_.predictor_dim;
    std::vector<Vector> x = latents, c;
    for (std::size_t i = 0; i < tokens; ++i) {
      for (std::size_t d = 0; d < x[i].size(); ++d)
        x[i][d] += t_.values("predictor.pos_embedding")[i * x[i].size() + d];
      if (projected) x[i] = linear(t + "input_proj", x[i]);
      Vector condition = encode_action(blocks[i]);
      if (projected) condition = linear(t + "cond_proj", condition);
      for (double& value : condition) value = silu(value);
      c.push_back(condition);
    }
    for (std::int64_t l = 0; l < c_.predictor_depth; ++l) {
      const std::string p = t + "layers." + std::to_string(l) + ".";
      const bool has_out = c_.predictor_heads != 1 || c_.predictor_head_dim != c_.predictor_dim;
      std::vector<Vector> m, q, k, v;
      for (std::size_t i = 0; i < tokens; ++i) {
        m.push_back(linear(p + "adaLN_modulation.1", c[i]));
        const Vector qkv = linear(p + "attn.to_qkv", norm(p + "attn.norm", modulated(x[i], m[i], 0), 1e-5), false);
        const auto inner = static_cast<std::ptrdiff_t>(qkv.size() / 3);
        q.emplace_back(qkv.begin(), qkv.begin() + inner);
        k.emplace_back(qkv.begin() + inner, qkv.begin() + 2 * inner);
        v.emplace_back(qkv.begin() + 2 * inner, qkv.end());
      }
      for (std::size_t i = 0; i < tokens; ++i) {
        Vector y = attend(q[i], k, v, i + 1, c_.predictor_heads);
        if (has_out) y = linear(p + "attn.to_out.0", y);
        for (std::size_t d = 0; d < dim; ++d) x[i][d] += m[i][2 * dim + d] * y[d];
        Vector h = linear(p + "mlp.net.1", norm(p + "mlp.net.0", modulated(x[i], m[i], 3), 1e-5));
        for (double& value : h) value = gelu(value);
        y = linear(p + "mlp.net.4", h);
        for (std::size_t d = 0; d < dim; ++d) x[i][d] += m[i][5 * dim + d] * y[d];
      }
    }
    Vector out = norm(t + "norm", x.back(), 1e-5);
    if (c_.predictor_output_dim != c_.predictor_dim) out = linear(t + "output_proj", out);
    return head("pred_proj", c_.pred_proj_dim, out);
  }

  // LN(x) * (1 + scale) + shift, with shift and scale at chunks `first` and first + 1 of the modulation.
  static Vector modulated(const Vector& x, const Vector& modulation, std::size_t first) {
    Vector y = normalised(x, 1e-6);
    const std::size_t dim = x.size();
    for (std::size_t d = 0; d < dim; ++d) {
      y[d] = y[d] * (1 + modulation[(first + 1) * dim + d]) + modulation[first * dim + d];
    }
    return y;
  }

  Config c_;
  const Tensors& t_;
};

}  // namespace naive
