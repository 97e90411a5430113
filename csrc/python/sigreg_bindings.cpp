// lewm._core's SIGReg functions, which lewm.nn.sigreg registers with torch.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <optional>

#include "cpu/sigreg.h"
#include "python/bindings.h"

namespace lewm::python {
namespace {

using Embeddings = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;  // float32 or bfloat16
using Directions = std::optional<Input<float>>;

cpu::Store storage_of(nb::dlpack::dtype dtype) {
  constexpr std::uint8_t kBfloat = 4;  // DLPack's code, which nanobind does not name
  if (dtype == nb::dtype<float>()) return cpu::Store::f32;
  if (dtype.code == kBfloat && dtype.bits == 16 && dtype.lanes == 1) return cpu::Store::bf16;
  throw Error(Status::invalid_argument, "z: expected float32 or bfloat16");
}

cpu::SigregInput input_of(const Embeddings& z, const Directions& directions, std::uint64_t seed, std::int64_t num_proj,
                          std::int64_t knots, double t_max) {
  check_rank("z", z, 3);
  cpu::SigregInput in;
  in.z = z.data();
  in.storage = storage_of(z.dtype());
  in.steps = size_of(z, 0);
  in.batch = size_of(z, 1);
  in.dim = size_of(z, 2);
  if (directions) check_shape("directions", *directions, {in.dim, num_proj});
  in.directions = directions ? directions->data() : nullptr;
  in.seed = seed;
  in.num_proj = num_proj;
  in.knots = knots;
  in.t_max = t_max;
  return in;
}

// The process's one Sigreg, made anew when other threads or another instruction set are asked for, and in a forked
// child, where its threads do not exist.
template <class Body>
auto with_sigreg(cpu::Isa isa, int threads, const Body& body) {
  static std::mutex mutex;
  static std::unique_ptr<cpu::Sigreg> sigreg;
  static cpu::Isa made_for = isa;
  static int made_threads = 0;
  static pid_t owner = 0;
  const ReleasedGil released;
  const std::lock_guard<std::mutex> lock(mutex);
  if (!sigreg || made_threads != threads || made_for != isa || owner != getpid()) {
    sigreg.reset();
    sigreg = std::make_unique<cpu::Sigreg>(isa, threads);
    made_for = isa;
    made_threads = threads;
    owner = getpid();
  }
  return body(*sigreg);
}

double value(const Embeddings& z, const Directions& directions, std::uint64_t seed, std::int64_t num_proj,
             std::int64_t knots, double t_max, std::optional<Output<float>> gradient, int threads,
             const std::string& isa) {
  const cpu::SigregInput in = input_of(z, directions, seed, num_proj, knots, t_max);
  if (gradient) check_shape("gradient", *gradient, {in.steps, in.batch, in.dim});
  float* out = gradient ? gradient->data() : nullptr;
  return with_sigreg(isa_from_name(isa), threads, [&](cpu::Sigreg& sigreg) { return sigreg.value(in, out); });
}

void sums(const Embeddings& z, const Directions& directions, std::uint64_t seed, std::int64_t num_proj,
          std::int64_t knots, double t_max, const Output<double>& out, int threads, const std::string& isa) {
  const cpu::SigregInput in = input_of(z, directions, seed, num_proj, knots, t_max);
  check_shape("out", out, {in.steps, num_proj, 2, knots});
  with_sigreg(isa_from_name(isa), threads, [&](cpu::Sigreg& sigreg) { sigreg.sums(in, out.data()); });
}

void gradient(const Embeddings& z, const Directions& directions, std::uint64_t seed, std::int64_t num_proj,
              std::int64_t knots, double t_max, const Input<double>& sums, double total, double scale,
              const Output<float>& out, int threads, const std::string& isa) {
  const cpu::SigregInput in = input_of(z, directions, seed, num_proj, knots, t_max);
  check_shape("sums", sums, {in.steps, num_proj, 2, knots});
  check_shape("out", out, {in.steps, in.batch, in.dim});
  with_sigreg(isa_from_name(isa), threads,
              [&](cpu::Sigreg& sigreg) { sigreg.gradient(in, sums.data(), total, scale, out.data()); });
}

void directions(std::uint64_t seed, const Output<float>& out) {
  check_rank("out", out, 2);
  const ReleasedGil released;
  cpu::sigreg_directions(seed, size_of(out, 0), size_of(out, 1), out.data());
}

}  // namespace

void bind_sigreg(nb::module_& module) {
  module.def("sigreg_value", &value, nb::arg("z").noconvert(), nb::arg("directions").noconvert().none(),
             nb::arg("seed"), nb::arg("num_proj"), nb::arg("knots"), nb::arg("t_max"),
             nb::arg("gradient").noconvert().none(), nb::arg("threads"), nb::arg("isa") = "");
  module.def("sigreg_sums", &sums, nb::arg("z").noconvert(), nb::arg("directions").noconvert().none(), nb::arg("seed"),
             nb::arg("num_proj"), nb::arg("knots"), nb::arg("t_max"), nb::arg("out").noconvert(), nb::arg("threads"),
             nb::arg("isa") = "");
  module.def("sigreg_gradient", &gradient, nb::arg("z").noconvert(), nb::arg("directions").noconvert().none(),
             nb::arg("seed"), nb::arg("num_proj"), nb::arg("knots"), nb::arg("t_max"), nb::arg("sums").noconvert(),
             nb::arg("total"), nb::arg("scale"), nb::arg("out").noconvert(), nb::arg("threads"), nb::arg("isa") = "");
  module.def("sigreg_directions", &directions, nb::arg("seed"), nb::arg("out").noconvert());
}

}  // namespace lewm::python
