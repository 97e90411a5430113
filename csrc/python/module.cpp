// The module itself, and how the core's errors become Python's.
#include <nanobind/nanobind.h>

#include <cstring>

#include "core/error.h"
#include "python/bindings.h"

namespace lewm::python {
namespace {

PyObject* exception_of(Status status) {
  switch (status) {
    case Status::invalid_argument:
      return PyExc_ValueError;
    case Status::file_not_found:
      return PyExc_FileNotFoundError;
    case Status::out_of_memory:
      return PyExc_MemoryError;
    default:
      return nullptr;  // lewm.Error
  }
}

void translate(const std::exception_ptr& thrown, void*) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    // A message may name a file, and a file's name need not be UTF-8.
    const auto length = static_cast<Py_ssize_t>(std::strlen(error.what()));
    const nb::object message = nb::steal(PyUnicode_DecodeUTF8(error.what(), length, "backslashreplace"));
    PyObject* type = exception_of(error.status());
    PyErr_SetObject(type ? type : nb::module_::import_("lewm.errors").attr("Error").ptr(), message.ptr());
  }
}

}  // namespace
}  // namespace lewm::python

NB_MODULE(_core, module) {
  module.doc() = "The compiled core of lewm. Private: use lewm.load, lewm.Planner and lewm.Controller.";
  nanobind::set_leak_warnings(false);  // planners that live until the interpreter ends are no leak
  nanobind::register_exception_translator(lewm::python::translate);
  lewm::python::bind_build(module);
  lewm::python::bind_model(module);
  lewm::python::bind_planner(module);
  lewm::python::bind_peak(module);
  lewm::python::bind_sigreg(module);
  lewm::python::bind_cuda_sigreg(module);
}
