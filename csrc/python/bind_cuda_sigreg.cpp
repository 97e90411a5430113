// lewm._core's SIGReg on a GPU: addresses of device memory and a stream go straight to the CUDA module.
// lewm.nn.sigreg_cuda owns the tensors behind them and checks their shapes.
#include <nanobind/stl/tuple.h>

#include <tuple>

#include "plan/device_module.h"
#include "python/bindings.h"

namespace lewm::python {
namespace {

using Address = std::uintptr_t;
// T, B, D, M, K, and the GPU
using Sizes = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int32_t>;

const cuda::Table& table() {
  const DeviceModule& module = device_module();
  if (!module.table) throw Error(Status::unsupported, "device: 'cuda' is not available: " + module.reason);
  return *module.table;
}

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

cuda::SigregArguments arguments_of(const Sizes& sizes, double t_max, Address z, Address directions, Address workspace) {
  const auto [steps, batch, dim, num_proj, knots, device] = sizes;
  if (steps < 1 || batch < 0 || dim < 1 || num_proj < 1 || knots < 2 || !(t_max > 0)) {
    throw Error(Status::invalid_argument, "sigreg: a size out of range");
  }
  return {device, pointer<const float>(z),  pointer<const float>(directions), steps, batch, dim, num_proj, knots,
          t_max,  pointer<float>(workspace)};
}

void throw_unless_ok(std::int32_t status, const cuda::Message& message) {
  if (status != 0) throw Error(static_cast<Status>(status), message.text);
}

std::int64_t workspace_floats(const Sizes& sizes, double t_max) {
  const cuda::SigregArguments a = arguments_of(sizes, t_max, 0, 0, 0);
  return table().sigreg_workspace(&a);
}

void sums(const Sizes& sizes, double t_max, Address z, Address directions, Address workspace, Address out,
          Address stream) {
  const cuda::SigregArguments a = arguments_of(sizes, t_max, z, directions, workspace);
  cuda::Message message{};
  throw_unless_ok(table().sigreg_sums(&a, pointer<double>(out), pointer<void>(stream), &message), message);
}

void statistic(const Sizes& sizes, double t_max, Address given, double total, Address out, Address stream) {
  const cuda::SigregArguments a = arguments_of(sizes, t_max, 0, 0, 0);
  cuda::Message message{};
  throw_unless_ok(table().sigreg_statistic(&a, pointer<const double>(given), total, pointer<double>(out),
                                           pointer<void>(stream), &message),
                  message);
}

void gradient(const Sizes& sizes, double t_max, Address z, Address directions, Address workspace, Address given,
              double total, double scale, Address out, Address stream) {
  const cuda::SigregArguments a = arguments_of(sizes, t_max, z, directions, workspace);
  cuda::Message message{};
  throw_unless_ok(table().sigreg_gradient(&a, pointer<const double>(given), total, scale, pointer<float>(out),
                                          pointer<void>(stream), &message),
                  message);
}

}  // namespace

void bind_cuda_sigreg(nb::module_& module) {
  module.def("cuda_sigreg_workspace", &workspace_floats, nb::arg("sizes"), nb::arg("t_max"));
  module.def("cuda_sigreg_sums", &sums, nb::arg("sizes"), nb::arg("t_max"), nb::arg("z"), nb::arg("directions"),
             nb::arg("workspace"), nb::arg("out"), nb::arg("stream"));
  module.def("cuda_sigreg_statistic", &statistic, nb::arg("sizes"), nb::arg("t_max"), nb::arg("sums"), nb::arg("total"),
             nb::arg("out"), nb::arg("stream"));
  module.def("cuda_sigreg_gradient", &gradient, nb::arg("sizes"), nb::arg("t_max"), nb::arg("z"), nb::arg("directions"),
             nb::arg("workspace"), nb::arg("sums"), nb::arg("total"), nb::arg("scale"), nb::arg("out"),
             nb::arg("stream"));
}

}  // namespace lewm::python
