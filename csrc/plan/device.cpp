#include "plan/device.h"

#include <algorithm>
#include <deque>
#include <string>
#include <utility>

#include "model/encoder_weights.h"
#include "model/predictor_weights.h"
#include "plan/clock.h"
#include "plan/device_module.h"

namespace lewm {
namespace {

// A model's weights unpacked into plain matrices. What a packed layer holds is read by applying it to unit vectors: the
// products are exact, whatever the instruction set's layout.
class Unpacked {
 public:
  explicit Unpacked(const Model& model) : kernels_(model.kernels()) {
    const Config& c = model.config();
    const EncoderWeights& encoder = model.encoder();
    const PredictorWeights& predictor = model.predictor();
    const auto i32 = [](std::int64_t n) { return static_cast<std::int32_t>(n); };
    host_.image_size = i32(c.image_size);
    host_.patch_size = i32(c.patch_size);
    host_.encoder_dim = i32(c.encoder_dim);
    host_.encoder_heads = i32(c.encoder_heads);
    host_.encoder_depth = i32(c.encoder_depth);
    host_.latent_dim = i32(c.latent_dim);
    host_.block_dim = i32(c.block_dim());
    host_.history = i32(c.history);
    host_.predictor_dim = i32(c.predictor_dim);
    host_.predictor_heads = i32(c.predictor_heads);
    host_.predictor_head_dim = i32(c.predictor_head_dim);
    host_.predictor_depth = i32(c.predictor_depth);

    host_.patch_bytes = linear(encoder.patch_bytes);
    host_.patch_floats = linear(encoder.patch_floats);
    host_.cls = encoder.cls;
    host_.patch_positions = encoder.positions;
    for (const EncoderLayerWeights& w : encoder.layers) {
      encoder_.push_back(
          {linear(w.query), linear(w.key_value), linear(w.attention_out), linear(w.mlp_in), linear(w.mlp_out)});
    }
    host_.encoder_layer = encoder_.data();
    host_.projector = head(encoder.projector);

    host_.action_in = linear(predictor.action_in);
    host_.action_out = linear(predictor.action_out);
    host_.modulation = linear(predictor.modulation);
    host_.input = linear(predictor.input);
    host_.positions = predictor.positions;
    for (const PredictorLayerWeights& w : predictor.layers) {
      predictor_.push_back({linear(w.query), linear(w.key_value), linear(w.attention_out), linear(w.attention_alone),
                            linear(w.mlp_in), linear(w.mlp_out)});
    }
    host_.predictor_layer = predictor_.data();
    host_.pred_proj = head(predictor.pred_proj);
  }

  const cuda::HostModel& host() const { return host_; }

 private:
  cuda::HostLinear linear(const Linear& layer) {
    if (!layer) return {};
    constexpr std::int64_t kAtOnce = 256;
    const std::int64_t n = layer.out(), k = layer.in();
    const cpu::Gemm& gemm = kernels_.gemm[static_cast<int>(layer.precision)];
    std::vector<float>& weight = kept_.emplace_back(static_cast<std::size_t>(n * k));
    std::vector<float> no_bias(static_cast<std::size_t>(gemm.padded_n(n)));
    cpu::PackedMatrix matrix = layer.matrix;
    matrix.bias = no_bias.data();
    cpu::Rows rows;
    const Arena arena([&](Arena& a) { rows = take_rows(a, kernels_, layer.precision, std::min(kAtOnce, k), k); });
    std::vector<float> columns(static_cast<std::size_t>(std::min(kAtOnce, k) * n));
    for (std::int64_t first = 0; first < k; first += kAtOnce) {
      const std::int64_t count = std::min(kAtOnce, k - first);
      std::vector<float> units(static_cast<std::size_t>(count * k));
      for (std::int64_t i = 0; i < count; ++i) units[static_cast<std::size_t>(i * k + first + i)] = 1.0f;
      convert_rows(kernels_, layer.precision, units.data(), k, count, k, rows);
      gemm.run(rows, count, matrix, {}, columns.data(), n);
      for (std::int64_t i = 0; i < count; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          weight[static_cast<std::size_t>(j * k + first + i)] = columns[static_cast<std::size_t>(i * n + j)];
        }
      }
    }
    return {static_cast<std::int32_t>(n), static_cast<std::int32_t>(k), weight.data(), layer.matrix.bias};
  }

  cuda::HostHead head(const HeadWeights& head) {
    return {head.eps,           static_cast<std::int32_t>(head.in),
            head.gamma,         head.beta,
            linear(head.first), linear(head.second),
            head.hidden_gamma,  head.hidden_beta};
  }

  const cpu::Kernels& kernels_;
  cuda::HostModel host_{};
  std::deque<std::vector<float>> kept_;
  std::vector<cuda::HostEncoderLayer> encoder_;
  std::vector<cuda::HostPredictorLayer> predictor_;
};

void throw_unless_ok(std::int32_t status, const cuda::Message& message) {
  if (status != 0) throw Error(static_cast<Status>(status), message.text);
}

// A bound of a step or block of actions, repeated over a candidate.
std::vector<float> repeated(const std::vector<float>& bound, std::int64_t block_dim, std::int64_t elements) {
  std::vector<float> out;
  for (std::int64_t e = 0; e < elements && !bound.empty(); ++e) {
    out.push_back(bound[static_cast<std::size_t>(e % block_dim) % bound.size()]);
  }
  return out;
}

const float* data_or_null(const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); }

double now(void* clock) { return seconds(*static_cast<const Clock*>(clock)); }

cuda::Seen seen_of(const PlanRequest& request) {
  return {request.problems, request.context, request.latents, request.past_actions};
}

}  // namespace

Device::Device(const Model& model, int index, const cuda::Table& table) : table_(table), index_(index) {
  if (model.precision() == Precision::int8) {
    throw Error(Status::unsupported, "precision: expected bf16 or fp32 weights on cuda, got int8");
  }
  const Unpacked unpacked(model);
  cuda::Message message{};
  throw_unless_ok(table_.model_create(&unpacked.host(), index, &model_, &message), message);
}

Device::~Device() { table_.model_destroy(model_); }

std::shared_ptr<const Device> Device::upload(const Model& model, int index) {
  const DeviceModule& module = device_module();
  if (!module.table) throw Error(Status::unsupported, "device: 'cuda' is not available: " + module.reason);
  if (index < 0 || index >= module.devices) {
    throw Error(Status::invalid_argument, "device: expected a GPU of 0.." + std::to_string(module.devices - 1) +
                                              ", got " + std::to_string(index));
  }
  return std::make_shared<const Device>(model, index, *module.table);
}

Status check_finite(Checks& checks, const Device* device, const char* name, const float* values, std::int64_t n) {
  if (!device || !values) return checks.finite(name, values, n);
  bool there = false;
  cuda::Message message{};
  const auto status = static_cast<Status>(device->table().on_device(device->model(), values, &there, &message));
  if (status != Status::ok) return checks.refuse(status, "%s: %s", name, message.text);
  return there ? Status::ok : checks.finite(name, values, n);
}

bool on_host(const Device* device, const void* pointer) {
  bool there = false;
  cuda::Message message{};
  return !device || (device->table().on_device(device->model(), pointer, &there, &message) == 0 && !there);
}

DeviceResizer::DeviceResizer(std::shared_ptr<const Device> device, const FrameResizer& frames)
    : device_(std::move(device)) {
  const auto i32 = [](std::int64_t n) { return static_cast<std::int32_t>(n); };
  const auto filter = [&](const FrameResizer::Filter& from) {
    return cuda::HostFilter{i32(from.taps), from.first.data(), from.count.data(), from.weight.data()};
  };
  const FrameResizer::Picture picture = frames.picture();
  const PixelFormat format = frames.format();
  const cuda::HostResizer host{i32(frames.width()),
                               i32(frames.height()),
                               i32(bytes_per_pixel(format)),
                               format == PixelFormat::bgr || format == PixelFormat::bgra,
                               i32(picture.left),
                               i32(picture.top),
                               i32(picture.width),
                               i32(picture.height),
                               filter(frames.horizontal()),
                               filter(frames.vertical())};
  cuda::Message message{};
  throw_unless_ok(device_->table().resizer_create(device_->model(), &host, &resizer_, &message), message);
}

DeviceResizer::~DeviceResizer() { device_->table().resizer_destroy(resizer_); }

DeviceEngine::DeviceEngine(std::shared_ptr<const Device> device, const cuda::Limits& limits)
    : device_(std::move(device)) {
  throw_unless_ok(device_->table().engine_create(device_->model(), &limits, &engine_, &message_), message_);
}

DeviceEngine::~DeviceEngine() { device_->table().engine_destroy(engine_); }

Status DeviceEngine::encode(const std::uint8_t* frames, std::int64_t n, float* latents, void* stream) {
  return static_cast<Status>(device_->table().encode_bytes(engine_, frames, n, latents, stream, &message_));
}

Status DeviceEngine::encode(const float* frames, std::int64_t n, float* latents, void* stream) {
  return static_cast<Status>(device_->table().encode_floats(engine_, frames, n, latents, stream, &message_));
}

Status DeviceEngine::encode(const DeviceResizer& resizer, const std::uint8_t* frames, std::int64_t n, float* latents,
                            void* stream) {
  return static_cast<Status>(
      device_->table().encode_camera(engine_, resizer.get(), frames, n, latents, stream, &message_));
}

Status DeviceEngine::rollout(const cuda::Seen& seen, const float* actions, std::int64_t samples, std::int64_t horizon,
                             float* latents, void* stream) {
  return static_cast<Status>(
      device_->table().rollout(engine_, &seen, actions, samples, horizon, latents, stream, &message_));
}

Status DeviceEngine::cost(const cuda::Seen& seen, const float* goals, const float* actions, std::int64_t samples,
                          std::int64_t horizon, float* cost, void* stream) {
  return static_cast<Status>(
      device_->table().cost(engine_, &seen, goals, actions, samples, horizon, cost, stream, &message_));
}

DeviceSearch::DeviceSearch(std::shared_ptr<const Device> device, const PlannerOptions& options, const Config& config,
                           std::int64_t tile)
    : device_(std::move(device)), clock_(options.clock) {
  check_options(options, config.block_dim(), config.action_dim);
  if (options.cost) throw Error(Status::unsupported, "cost: a cost function runs on the CPU; use device='cpu'");
  const std::int64_t elements = options.horizon * config.block_dim();
  const std::vector<float> low = repeated(options.low, config.block_dim(), elements);
  const std::vector<float> high = repeated(options.high, config.block_dim(), elements);
  const bool coloured = options.method == Method::icem && options.noise_exponent > 0;
  const ColouredNoise colour(coloured ? options.horizon : 0, options.noise_exponent);
  cuda::SearchOptions search{};
  search.method = static_cast<std::int32_t>(options.method);
  search.samples = options.samples;
  search.elites = options.elites;
  search.iterations = options.iterations;
  search.horizon = options.horizon;
  search.problems = options.problems;
  search.tile = tile;
  search.seed = options.seed;
  search.low = data_or_null(low);
  search.high = data_or_null(high);
  search.std_init = options.std_init;
  search.std_min = options.std_min;
  search.momentum = options.momentum;
  search.return_best = options.return_best;
  search.action_dim = config.action_dim;
  search.action_hold = options.action_hold;
  search.colour = data_or_null(colour.kernel());
  search.kept_elites = options.kept_elites;
  search.temperature = options.temperature;
  search.cost_mode = static_cast<std::int32_t>(options.cost_mode);
  search.discount = options.discount;
  search.action_penalty = options.action_penalty;
  search.now = &now;
  search.now_context = const_cast<Clock*>(&clock_);
  throw_unless_ok(device_->table().search_create(device_->model(), &search, &search_, &message_), message_);
}

DeviceSearch::~DeviceSearch() { device_->table().search_destroy(search_); }

Status DeviceSearch::plan(const PlanRequest& request, double start, PlanResult& result, void* stream) {
  cuda::PlanArguments a{};
  a.seen = seen_of(request);
  a.goals = request.goals;
  a.warm_start = request.warm_blocks ? request.warm_start : nullptr;
  a.warm_blocks = request.warm_blocks;
  a.problem_ids = request.problem_ids;
  a.plan_index = request.plan_index;
  a.end = start + request.deadline;
  a.actions = result.actions;
  a.cost = result.cost;
  a.elite_cost = result.elite_cost;
  a.std = result.std;
  a.elites = result.elites;
  const auto status = static_cast<Status>(device_->table().plan(search_, &a, stream, &message_));
  result.iterations = a.iterations;
  result.elapsed = seconds(clock_) - start;
  return status;
}

Status DeviceSearch::evaluate(const PlanRequest& request, const float* actions, std::int64_t samples, float* cost,
                              void* stream) {
  const cuda::Seen seen = seen_of(request);
  return static_cast<Status>(
      device_->table().evaluate(search_, &seen, request.goals, actions, samples, cost, stream, &message_));
}

}  // namespace lewm
