// lewm._core.Model: loading, encoding, rollouts and costs.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <optional>
#include <vector>

#include "model/rollout_schedule.h"
#include "python/bindings.h"
#include "python/model_handle.h"

namespace lewm::python {
namespace {

// The arrays of a Python dict, held: one that is not row-major comes as a copy that nobody else holds.
class ArraySource : public TensorSource {
 public:
  explicit ArraySource(const nb::dict& arrays) {
    for (const auto [key, value] : arrays) {
      std::string name;
      if (!nb::try_cast(key, name)) throw nb::type_error("tensors: expected names of type str");
      Array array;
      const std::optional<DType> dtype = nb::try_cast(value, array) ? dtype_of(array.dtype()) : std::nullopt;
      if (!dtype) {
        const nb::str got(nb::getattr(value, "dtype", value.type()));
        throw nb::type_error(("tensors: " + name + ": expected a float32, float64 or int64 array in the CPU's memory " +
                              "and byte order, got " + got.c_str())
                                 .c_str());
      }
      TensorView view{*dtype, {}, array.data()};
      for (std::size_t i = 0; i < array.ndim(); ++i) view.shape.push_back(size_of(array, i));
      tensors_.emplace(std::move(name), std::move(view));
      arrays_.push_back(std::move(array));
    }
  }
  const TensorView* find(std::string_view name) const override {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second;
  }
  std::vector<std::string_view> names() const override {
    std::vector<std::string_view> names;
    for (const auto& [name, view] : tensors_) names.push_back(name);
    return names;
  }

 private:
  using Array = nb::ndarray<nb::c_contig, nb::device::cpu, nb::ro>;

  static std::optional<DType> dtype_of(nb::dlpack::dtype dtype) {
    if (dtype == nb::dtype<float>()) return DType::f32;
    if (dtype == nb::dtype<double>()) return DType::f64;
    if (dtype == nb::dtype<std::int64_t>()) return DType::i64;
    return {};
  }
  std::vector<Array> arrays_;
  std::map<std::string, TensorView, std::less<>> tensors_;
};

// "": the model's own.
std::optional<Precision> encoder_from_name(const std::string& name) {
  if (name.empty()) return {};
  return precision_from_name(name);
}

std::shared_ptr<ModelHandle> create(const std::string& config, const nb::dict& tensors,
                                    const std::vector<float>& pixel_mean, const std::vector<float>& pixel_std,
                                    std::vector<float> action_mean, std::vector<float> action_std,
                                    const std::string& precision, int threads, const std::string& isa, int device,
                                    const std::string& encoder_precision) {
  if (pixel_mean.size() != 3 || pixel_std.size() != 3) {
    throw Error(Status::invalid_argument, "preprocessing: expected 3 channels");
  }
  Preprocessing preprocessing;
  for (std::size_t c = 0; c < 3; ++c) {
    preprocessing.mean[c] = pixel_mean[c];
    preprocessing.std[c] = pixel_std[c];
  }
  const ArraySource source(tensors);
  const ReleasedGil released;
  auto model = Model::create(config_from_json(config), source, preprocessing,
                             ActionScaling{std::move(action_mean), std::move(action_std)},
                             precision_from_name(precision), isa_from_name(isa), encoder_from_name(encoder_precision));
  return std::make_shared<ModelHandle>(std::move(model), threads, device);
}

// path: bytes, as the file system has it; a name need not be UTF-8.
std::shared_ptr<ModelHandle> open(const nb::bytes& path, const std::string& precision, int threads,
                                  const std::string& isa, int device, const std::string& encoder_precision) {
  const std::string name(path.c_str(), path.size());
  const ReleasedGil released;
  auto model =
      Model::open(name, precision_from_name(precision), isa_from_name(isa), encoder_from_name(encoder_precision));
  return std::make_shared<ModelHandle>(std::move(model), threads, device);
}

// Arrays in the host's memory, and in a GPU's.
template <class T>
using OnCpu = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
template <class T>
using OnGpu = nb::ndarray<T, nb::c_contig, nb::device::cuda>;

void* stream_of(std::uintptr_t stream) { return reinterpret_cast<void*>(stream); }

template <class Frames, class Latents>
void encode(ModelHandle& handle, Frames frames, Latents latents, std::uintptr_t stream) {
  const Config& config = handle.model()->config();
  check_rank("frames", frames, 4);
  const std::int64_t n = size_of(frames, 0), size = config.image_size;
  if constexpr (sizeof(*frames.data()) == 1) {
    check_shape("frames", frames, {n, size, size, 3});
  } else {
    check_shape("frames", frames, {n, 3, size, size});
  }
  check_shape("out", latents, {n, config.latent_dim});
  const ReleasedGil released;
  handle.encode(frames.data(), n, latents.data(), stream_of(stream));
}

// fit: 0 stretch, 1 crop, 2 letterbox.
template <class Frames, class Latents>
void encode_camera(ModelHandle& handle, Frames frames, Latents latents, int fit, std::uintptr_t stream) {
  check_rank("frames", frames, 4);
  const std::int64_t n = size_of(frames, 0), height = size_of(frames, 1), width = size_of(frames, 2);
  check_shape("frames", frames, {n, height, width, 3});
  check_shape("out", latents, {n, handle.model()->config().latent_dim});
  if (fit < 0 || fit > 2) throw Error(Status::invalid_argument, "fit: expected 0..2, got " + std::to_string(fit));
  const ReleasedGil released;
  handle.encode_camera(frames.data(), n, height, width, static_cast<Fit>(fit), latents.data(), stream_of(stream));
}

template <class Array>
ModelHandle::Candidates candidates_of(const Config& config, const Array& latents, const Array& actions,
                                      const std::optional<Array>& past) {
  check_rank("latents", latents, 3);
  check_rank("actions", actions, 4);
  const std::int64_t problems = size_of(latents, 0), context = size_of(latents, 1);
  const std::int64_t samples = size_of(actions, 1), horizon = size_of(actions, 2);
  check_shape("latents", latents, {problems, context, config.latent_dim});
  check_shape("actions", actions, {problems, samples, horizon, config.block_dim()});
  if (context < 1 || context > config.history) {
    throw Error(Status::invalid_argument, "latents: expected 1.." + std::to_string(config.history) +
                                              " context frames, got " + std::to_string(context));
  }
  if (problems < 1 || samples < 1 || horizon < 1)
    throw Error(Status::invalid_argument, "actions: expected some, got none");
  if (past) {
    check_shape("past_actions", *past, {problems, context - 1, config.block_dim()});
  } else if (context > 1) {
    throw Error(Status::invalid_argument, "past_actions: needed with more than one context frame");
  }
  return {latents.data(), past && context > 1 ? past->data() : nullptr, actions.data(), problems, context, samples,
          horizon};
}

template <class Array, class Out>
void rollout(ModelHandle& handle, Array latents, Array actions, std::optional<Array> past, Out out,
             std::uintptr_t stream) {
  const auto candidates = candidates_of(handle.model()->config(), latents, actions, past);
  check_shape("out", out,
              {candidates.problems, candidates.samples, candidates.horizon, handle.model()->config().latent_dim});
  const ReleasedGil released;
  handle.rollout(candidates, out.data(), stream_of(stream));
}

template <class Array, class Out>
void cost(ModelHandle& handle, Array latents, Array goal, Array actions, std::optional<Array> past, Out out,
          std::uintptr_t stream) {
  const auto candidates = candidates_of(handle.model()->config(), latents, actions, past);
  check_shape("goal", goal, {candidates.problems, handle.model()->config().latent_dim});
  check_shape("out", out, {candidates.problems, candidates.samples});
  const ReleasedGil released;
  handle.cost(candidates, goal.data(), out.data(), stream_of(stream));
}

// Adds encode, rollout and cost for arrays of one kind of memory; `stream` orders work on a GPU (0: the model's own).
template <template <class> class Array>
void bind_functions(nb::class_<ModelHandle>& model) {
  model
      .def("encode", &encode<Array<const std::uint8_t>, Array<float>>, nb::arg("frames").noconvert(),
           nb::arg("out").noconvert(), nb::arg("stream") = 0)
      .def("encode", &encode<Array<const float>, Array<float>>, nb::arg("frames").noconvert(),
           nb::arg("out").noconvert(), nb::arg("stream") = 0)
      .def("encode_camera", &encode_camera<Array<const std::uint8_t>, Array<float>>, nb::arg("frames").noconvert(),
           nb::arg("out").noconvert(), nb::arg("fit"), nb::arg("stream") = 0)
      .def("rollout", &rollout<Array<const float>, Array<float>>, nb::arg("latents").noconvert(),
           nb::arg("actions").noconvert(), nb::arg("past").noconvert().none(), nb::arg("out").noconvert(),
           nb::arg("stream") = 0)
      .def("cost", &cost<Array<const float>, Array<float>>, nb::arg("latents").noconvert(), nb::arg("goal").noconvert(),
           nb::arg("actions").noconvert(), nb::arg("past").noconvert().none(), nb::arg("out").noconvert(),
           nb::arg("stream") = 0);
}

}  // namespace

void bind_model(nb::module_& module) {
  nb::class_<ModelHandle> model(module, "Model");
  bind_functions<OnCpu>(model);
  bind_functions<OnGpu>(model);
  model
      .def_static("create", &create, nb::arg("config"), nb::arg("tensors"), nb::arg("pixel_mean"), nb::arg("pixel_std"),
                  nb::arg("action_mean"), nb::arg("action_std"), nb::arg("precision"), nb::arg("threads"),
                  nb::arg("isa") = "", nb::arg("device") = -1, nb::arg("encoder_precision") = "")
      .def_static("open", &open, nb::arg("path"), nb::arg("precision"), nb::arg("threads"), nb::arg("isa") = "",
                  nb::arg("device") = -1, nb::arg("encoder_precision") = "")
      .def_prop_ro("config", [](const ModelHandle& handle) { return config_to_json(handle.model()->config()); })
      .def_prop_ro("precision",
                   [](const ModelHandle& handle) { return std::string(precision_name(handle.model()->precision())); })
      .def_prop_ro(
          "encoder_precision",
          [](const ModelHandle& handle) { return std::string(precision_name(handle.model()->encoder_precision())); })
      .def_prop_ro("isa", [](const ModelHandle& handle) { return std::string(cpu::isa_name(handle.model()->isa())); })
      .def_prop_ro("threads", &ModelHandle::threads)
      .def_prop_ro("encode_flops", [](const ModelHandle& handle) { return encode_flops(handle.model()->config()); })
      .def(
          "rollout_flops",
          [](const ModelHandle& handle, std::int64_t horizon, std::int64_t context) {
            return rollout_flops(handle.model()->config(), context, horizon);
          },
          nb::arg("horizon"), nb::arg("context"))
      .def_prop_ro("weight_bytes", [](const ModelHandle& handle) { return handle.model()->weight_bytes(); })
      .def_prop_ro("pixel_scaling",
                   [](const ModelHandle& handle) {
                     const Preprocessing& scale = handle.model()->preprocessing();
                     return std::pair(std::vector<float>(scale.mean, scale.mean + 3),
                                      std::vector<float>(scale.std, scale.std + 3));
                   })
      .def_prop_ro("action_scaling", [](const ModelHandle& handle) {
        const ActionScaling& scale = handle.model()->action_scaling();
        return std::pair(scale.mean, scale.std);
      });
}

}  // namespace lewm::python
