// What this build and machine can do.
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "cpu/isa.h"
#include "model/frame.h"
#include "plan/device_module.h"
#include "plan/noise.h"
#include "python/bindings.h"

namespace lewm::python {
namespace {

constexpr const char* kPrecisionNames[kLayerPrecisions] = {"fp32", "bf16", "int8", "int16", "int24"};

template <class Predicate>
std::vector<std::string> isas_with(Predicate predicate) {
  std::vector<std::string> names;
  for (int i = 0; i < cpu::kIsas; ++i) {
    const auto isa = static_cast<cpu::Isa>(i);
    if (predicate(isa)) names.emplace_back(cpu::isa_name(isa));
  }
  return names;
}

// Precisions that an instruction set computes with instructions of its own.
std::vector<std::string> precisions(const std::string& isa) {
  const cpu::Kernels& kernels = cpu::kernels(isa_from_name(isa));
  std::vector<std::string> names;
  for (int p = 0; p < kPrecisions; ++p) {
    if (cpu::has(kernels, static_cast<Precision>(p))) names.emplace_back(kPrecisionNames[p]);
  }
  return names;
}

// What most layers of a model of `precision` are multiplied in.
const char* layer_precision(const std::string& precision, const std::string& isa) {
  const cpu::Kernels& kernels = cpu::kernels(isa_from_name(isa));
  return precision_name(cpu::layer_precisions(kernels, precision_from_name(precision)).main);
}

// Of the CPU's weights that a GPU's are read from.
const char* precision_for_gpu(const std::string& isa) {
  return precision_name(cpu::precision_for_gpu(cpu::kernels(isa_from_name(isa))));
}

// normals(seed, plan, iteration, problem, out): out[sample, element], the white noise of one iteration.
void normals(std::uint64_t seed, std::uint32_t plan, std::uint32_t iteration, std::uint32_t problem,
             Output<float> out) {
  check_rank("out", out, 2);
  const std::int64_t samples = size_of(out, 0), elements = size_of(out, 1);
  if (iteration >= philox::kMaxIterations || elements > 4 * static_cast<std::int64_t>(philox::kMaxQuads)) {
    throw Error(Status::invalid_argument, "normals: an iteration or element beyond the counter");
  }
  const philox::Stream stream{seed, plan, iteration, problem};
  for (std::int64_t s = 0; s < samples; ++s) {
    fill_normals(stream, static_cast<std::uint32_t>(s), elements, out.data() + s * elements);
  }
}

// resize(frame (H, W, 3), out (size, size, 3), fit): 0 stretch, 1 crop, 2 letterbox.
void resize(Input<std::uint8_t> frame, Output<std::uint8_t> out, int fit) {
  check_rank("frame", frame, 3);
  check_shape("frame", frame, {size_of(frame, 0), size_of(frame, 1), 3});
  check_rank("out", out, 3);
  check_shape("out", out, {size_of(out, 0), size_of(out, 0), 3});
  FrameResizer resizer(size_of(frame, 1), size_of(frame, 0), PixelFormat::rgb, size_of(out, 0), static_cast<Fit>(fit));
  resizer.run(frame.data(), static_cast<std::ptrdiff_t>(frame.shape(1) * 3), out.data());
}

}  // namespace

Precision precision_from_name(std::string_view name) {
  for (int p = 0; p < kPrecisions; ++p) {
    if (name == kPrecisionNames[p]) return static_cast<Precision>(p);
  }
  throw Error(Status::invalid_argument, "precision: expected fp32, bf16 or int8, got '" + std::string(name) + "'");
}

const char* precision_name(Precision precision) { return kPrecisionNames[static_cast<int>(precision)]; }

cpu::Isa isa_from_name(std::string_view name) {
  if (name.empty()) return cpu::active_isa();
  std::string known;
  for (const std::string& candidate : isas_with([](cpu::Isa) { return true; })) {
    known += (known.empty() ? "" : ", ") + candidate;
  }
  for (int i = 0; i < cpu::kIsas; ++i) {
    if (name == cpu::isa_name(static_cast<cpu::Isa>(i))) return static_cast<cpu::Isa>(i);
  }
  throw Error(Status::invalid_argument, "isa: expected one of " + known + ", got '" + std::string(name) + "'");
}

void bind_build(nb::module_& module) {
  module.def("isas_built", [] { return isas_with(cpu::isa_built); });
  module.def("isas_available", [] { return isas_with(cpu::isa_available); });
  module.def("active_isa", [] { return std::string(cpu::isa_name(cpu::active_isa())); });
  module.def("precisions", &precisions, nb::arg("isa"));
  module.def("layer_precision", &layer_precision, nb::arg("precision"), nb::arg("isa"));
  module.def("precision_for_gpu", &precision_for_gpu, nb::arg("isa"));
  module.def(
      "auto_precision", [](const std::string& isa) { return precision_name(cpu::auto_precision(isa_from_name(isa))); },
      nb::arg("isa"));
  module.def("available_threads", [] { return ThreadPool(0).threads(); });
  module.def("normals", &normals, nb::arg("seed"), nb::arg("plan"), nb::arg("iteration"), nb::arg("problem"),
             nb::arg("out"));
  module.def("resize", &resize, nb::arg("frame"), nb::arg("out"), nb::arg("fit"));
  // (GPUs that can be used, why there are none and what to do, where the CUDA module is or was looked for)
  module.def("cuda_module", [] {
    const DeviceModule& device = device_module();
    return std::tuple(device.devices, device.reason, device.path);
  });
  module.attr("version") = LEWM_VERSION_STRING;
}

}  // namespace lewm::python
