#include "cuda/weights.h"

#include <cstring>
#include <string>

#include "cuda/kernels.h"
#include "cuda/norm.cuh"

namespace lewm::cuda {
namespace {

// Round to nearest even; weights are finite (checked when the model was read).
std::uint16_t to_bf16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

void require(bool holds, const char* field, const char* expected, std::int64_t got) {
  if (holds) return;
  throw Error(Status::unsupported,
              std::string(field) + ": expected " + expected + " on cuda, got " + std::to_string(got));
}

void check_sizes(const HostModel& m) {
  const int head_dim = m.encoder_dim / m.encoder_heads;
  require(head_dim <= 128, "encoder_dim / encoder_heads", "at most 128", head_dim);
  require(m.predictor_dim <= kMostAdaLN, "predictor_dim", "at most 1024", m.predictor_dim);
  require(m.predictor_head_dim <= 256, "predictor_head_dim", "at most 256", m.predictor_head_dim);
}

void check_device(int device) {
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  if (major >= 8) return;
  throw Error(Status::unsupported, "device: expected a GPU of compute capability 8.0 (Ampere) or newer, got " +
                                       std::to_string(major) + "." + std::to_string(minor));
}

// Where an index lies when the encoder's heads, side by side, begin at multiples of 16 bytes; the gaps are zero.
struct Heads {
  int size = 1, stride = 1;
  std::int64_t place(std::int64_t i) const { return i / size * stride + i % size; }
  int width(int n) const { return n / size * stride; }
};

// Lays arrays out in one piece of memory: a first pass measures it, a second one fills a copy on the host and hands out
// addresses on the device.
class Layout {
 public:
  Layout() = default;
  Layout(std::uint8_t* device, std::vector<std::uint8_t>& host) : device_(device), host_(host.data()) {}

  const float* floats(const float* values, std::int64_t count) {
    if (!values) return nullptr;
    std::uint8_t* host = nullptr;
    auto* device = reinterpret_cast<const float*>(take(count * 4, &host));
    if (host) std::memcpy(host, values, static_cast<std::size_t>(count) * 4);
    return device;
  }

  Linear linear(const HostLinear& layer) { return stacked(layer, {}); }

  // Both layers' outputs one after the other; the second may be missing.
  Linear stacked(const HostLinear& first, const HostLinear& second, const Heads& outputs = {},
                 const Heads& inputs = {}) {
    if (!first.weight) return {};
    Linear out;
    out.n = outputs.width(first.n) + outputs.width(second.n);
    out.k = inputs.width(first.k);
    std::uint8_t* weight = nullptr;
    std::uint8_t* bias = nullptr;
    out.weight = reinterpret_cast<const std::uint16_t*>(take(std::int64_t{out.n} * padded(out.k) * 2, &weight));
    out.bias = reinterpret_cast<const float*>(take(std::int64_t{out.n} * 4, &bias));
    if (weight) {
      const std::int64_t below = outputs.width(first.n);
      fill(first, outputs, inputs, padded(out.k), weight, bias);
      fill(second, outputs, inputs, padded(out.k), weight + below * padded(out.k) * 2, bias + below * 4);
    }
    return out;
  }

  Head head(const HostHead& head) {
    const int hidden = head.first.n;
    return {head.eps,
            head.in,
            floats(head.gamma, head.in),
            floats(head.beta, head.in),
            linear(head.first),
            linear(head.second),
            floats(head.hidden_gamma, hidden),
            floats(head.hidden_beta, hidden)};
  }

  std::int64_t bytes() const { return used_; }

 private:
  static void fill(const HostLinear& layer, const Heads& outputs, const Heads& inputs, std::int64_t stride,
                   std::uint8_t* weight, std::uint8_t* bias) {
    auto* rows = reinterpret_cast<std::uint16_t*>(weight);
    for (std::int64_t j = 0; j < layer.n; ++j) {
      std::uint16_t* row = rows + outputs.place(j) * stride;
      for (std::int64_t i = 0; i < layer.k; ++i) row[inputs.place(i)] = to_bf16(layer.weight[j * layer.k + i]);
      std::memcpy(bias + outputs.place(j) * 4, layer.bias + j, 4);
    }
  }

  const std::uint8_t* take(std::int64_t bytes, std::uint8_t** host) {
    constexpr std::int64_t kLine = 128;
    const std::int64_t at = used_;
    used_ += (bytes + kLine - 1) / kLine * kLine;
    if (!device_) return reinterpret_cast<const std::uint8_t*>(kLine);  // present, while measuring
    *host = host_ + at;
    return device_ + at;
  }

  std::uint8_t* device_ = nullptr;
  std::uint8_t* host_ = nullptr;
  std::int64_t used_ = 0;
};

// Outputs [first, first + n) of a layer.
Linear rows_of(const Linear& layer, int first, int n) {
  return {layer.weight + std::int64_t{first} * padded(layer.k), layer.bias + first, n, layer.k};
}

void lay_out(Layout& l, const HostModel& m, Weights& w) {
  const int per_row = m.image_size / m.patch_size;
  w.patch_bytes = l.linear(m.patch_bytes);
  w.patch_floats = l.linear(m.patch_floats);
  w.cls = l.floats(m.cls, m.encoder_dim);
  w.patch_positions = l.floats(m.patch_positions, std::int64_t{per_row} * per_row * m.encoder_dim);
  w.encoder.clear();
  const int head_dim = m.encoder_dim / m.encoder_heads;
  const Heads heads{head_dim, padded(head_dim)};
  for (int i = 0; i < m.encoder_depth; ++i) {
    const HostEncoderLayer& from = m.encoder_layer[i];
    EncoderLayer layer;
    layer.query_key_value = l.stacked(from.query, from.key_value, heads);
    layer.query = rows_of(layer.query_key_value, 0, heads.width(from.query.n));
    layer.key_value = rows_of(layer.query_key_value, heads.width(from.query.n), heads.width(from.key_value.n));
    layer.attention_out = l.stacked(from.attention_out, {}, {}, heads);
    layer.mlp_in = l.linear(from.mlp_in);
    layer.mlp_out = l.linear(from.mlp_out);
    w.encoder.push_back(layer);
  }
  w.projector = l.head(m.projector);

  w.action_weight = l.floats(m.action_in.weight, std::int64_t{m.action_in.n} * m.action_in.k);
  w.action_bias = l.floats(m.action_in.bias, m.action_in.n);
  w.action_hidden = m.action_in.n;
  w.action_out = l.linear(m.action_out);
  w.modulation = l.linear(m.modulation);
  w.input = l.linear(m.input);
  w.positions = l.floats(m.positions, std::int64_t{m.history} * m.predictor_dim);
  w.predictor.clear();
  for (int i = 0; i < m.predictor_depth; ++i) {
    const HostPredictorLayer& from = m.predictor_layer[i];
    w.predictor.push_back({l.linear(from.query), l.linear(from.key_value), l.linear(from.attention_out),
                           l.linear(from.attention_alone), l.linear(from.mlp_in), l.linear(from.mlp_out)});
  }
  w.pred_proj = l.head(m.pred_proj);
}

}  // namespace

void run_linear(const Linear& layer, const std::uint16_t* x, std::int64_t x_stride, std::int64_t rows,
                GemmEpilogue epilogue, void* y, std::int64_t y_stride, cudaStream_t stream) {
  epilogue.bias = layer.bias;
  launch_gemm(
      {x, x_stride, layer.weight, padded(layer.k), static_cast<int>(rows), layer.n, layer.k, epilogue, y, y_stride},
      stream);
}

Weights::Weights(const HostModel& model, int on_device) : device(on_device), sizes(model) {
  check_sizes(model);
  check_device(device);
  const OnDevice guard(device);
  if (!LEWM_FAULT(kLoadedInCapture)) load_kernels();
  Layout measure;
  lay_out(measure, model, *this);
  memory_ = Buffer<std::uint8_t>(measure.bytes());
  std::vector<std::uint8_t> host(static_cast<std::size_t>(measure.bytes()));
  Layout place(memory_.get(), host);
  lay_out(place, model, *this);
  const Stream stream;
  copy<std::uint8_t>(memory_.get(), host.data(), measure.bytes(), stream);
  synchronise(stream);
}

}  // namespace lewm::cuda
