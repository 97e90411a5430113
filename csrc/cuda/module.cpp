// The table: exceptions become statuses, calls happen on the model's device.
#include <cstdio>
#include <new>

#include "cuda/engine.h"
#include "cuda/sigreg_pass.h"
#include "cuda/table.h"

namespace lewm::cuda {
namespace {

std::int32_t fail(Status status, const char* what, Message* message) {
  std::snprintf(message->text, sizeof message->text, "%s", what);
  return static_cast<std::int32_t>(status);
}

template <class Body>
std::int32_t guarded(Message* message, const Body& body) {
  try {
    body();
    return static_cast<std::int32_t>(Status::ok);
  } catch (const Error& error) {
    return fail(error.status(), error.what(), message);
  } catch (const std::bad_alloc&) {
    return fail(Status::out_of_memory, "out of memory", message);
  } catch (const std::exception& error) {
    return fail(Status::internal, error.what(), message);
  }
}

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

std::int32_t devices(std::int32_t* count, Message* message) {
  return guarded(message, [&] {
    int found = 0;
    const cudaError_t error = cudaGetDeviceCount(&found);
    if (error == cudaErrorNoDevice) {
      forget_error();
      found = 0;
    } else {
      check(error, "cudaGetDeviceCount");
    }
    *count = found;
  });
}

std::int32_t model_create(const HostModel* model, std::int32_t device, DeviceModel** out, Message* message) {
  return guarded(message, [&] { *out = new DeviceModel(*model, device); });
}
void model_destroy(DeviceModel* model) {
  const OnDevice guard(model->weights.device, std::nothrow);
  delete model;
}

std::int32_t is_on_device(const DeviceModel* model, const void* pointer, bool* result, Message* message) {
  return guarded(message, [&] { *result = on_device(pointer, model->weights.device); });
}

std::int32_t resizer_create(const DeviceModel* model, const HostResizer* resizer, DeviceResizer** out,
                            Message* message) {
  return guarded(message, [&] {
    const OnDevice guard(model->weights.device);
    *out = new DeviceResizer(*model, *resizer);
  });
}
void resizer_destroy(DeviceResizer* resizer) {
  const OnDevice guard(resizer->device, std::nothrow);
  delete resizer;
}

std::int32_t engine_create(const DeviceModel* model, const Limits* limits, Engine** out, Message* message) {
  return guarded(message, [&] {
    const OnDevice guard(model->weights.device);
    *out = new Engine(*model, *limits);
  });
}
void engine_destroy(Engine* engine) {
  const OnDevice guard(engine->weights.device, std::nothrow);
  delete engine;
}

std::int32_t encode_bytes(Engine* engine, const std::uint8_t* frames, std::int64_t n, float* latents, void* stream,
                          Message* message) {
  return guarded(message, [&] {
    const OnDevice guard(engine->weights.device);
    engine->encode({.bytes = frames}, n, latents, stream_of(stream));
  });
}

std::int32_t encode_floats(Engine* engine, const float* frames, std::int64_t n, float* latents, void* stream,
                           Message* message) {
  return guarded(message, [&] {
    const OnDevice guard(engine->weights.device);
    engine->encode({.floats = frames}, n, latents, stream_of(stream));
  });
}

std::int32_t encode_camera(Engine* engine, const DeviceResizer* resizer, const std::uint8_t* frames, std::int64_t n,
                           float* latents, void* stream, Message* message) {
  return guarded(message, [&] {
    const OnDevice guard(engine->weights.device);
    engine->encode({.camera = frames, .resize = &resizer->arguments()}, n, latents, stream_of(stream));
  });
}

std::int32_t rollout(Engine* engine, const Seen* seen, const float* actions, std::int64_t samples, std::int64_t horizon,
                     float* latents, void* stream, Message* message) {
  return guarded(message, [&] {
    const OnDevice guard(engine->weights.device);
    engine->rollout(*seen, actions, samples, horizon, latents, stream_of(stream));
  });
}

std::int32_t cost(Engine* engine, const Seen* seen, const float* goals, const float* actions, std::int64_t samples,
                  std::int64_t horizon, float* cost, void* stream, Message* message) {
  return guarded(message, [&] {
    const OnDevice guard(engine->weights.device);
    engine->cost(*seen, goals, actions, samples, horizon, cost, stream_of(stream));
  });
}

std::int32_t search_create(const DeviceModel* model, const SearchOptions* options, Search** out, Message* message) {
  return guarded(message, [&] {
    const OnDevice guard(model->weights.device);
    *out = new Search(*model, *options);
  });
}
void search_destroy(Search* search) {
  const OnDevice guard(search->weights.device, std::nothrow);
  delete search;
}

std::int32_t plan(Search* search, PlanArguments* arguments, void* stream, Message* message) {
  return guarded(message, [&] {
    const OnDevice guard(search->weights.device);
    search->plan(*arguments, stream_of(stream));
  });
}

std::int32_t evaluate(Search* search, const Seen* seen, const float* goals, const float* actions, std::int64_t samples,
                      float* cost, void* stream, Message* message) {
  return guarded(message, [&] {
    const OnDevice guard(search->weights.device);
    search->evaluate(*seen, goals, actions, samples, cost, stream_of(stream));
  });
}

std::int64_t sigreg_workspace(const SigregArguments* a) { return sigreg_workspace_floats(*a); }

std::int32_t sigreg_sums(const SigregArguments* a, double* sums, void* stream, Message* message) {
  return guarded(message, [&] {
    const OnDevice guard(a->device);
    enqueue_sigreg_sums(*a, sums, stream_of(stream));
  });
}

std::int32_t sigreg_statistic(const SigregArguments* a, const double* sums, double total, double* statistic,
                              void* stream, Message* message) {
  return guarded(message, [&] {
    const OnDevice guard(a->device);
    enqueue_sigreg_statistic(*a, sums, total, statistic, stream_of(stream));
  });
}

std::int32_t sigreg_gradient(const SigregArguments* a, const double* sums, double total, double scale, float* gradient,
                             void* stream, Message* message) {
  return guarded(message, [&] {
    const OnDevice guard(a->device);
    enqueue_sigreg_gradient(*a, sums, total, scale, gradient, stream_of(stream));
  });
}

constexpr Table kTable = {kTableVersion, sizeof(Table),    LEWM_VERSION_STRING,
                          devices,       model_create,     model_destroy,
                          is_on_device,  resizer_create,   resizer_destroy,
                          engine_create, engine_destroy,   encode_bytes,
                          encode_floats, encode_camera,    rollout,
                          cost,          search_create,    search_destroy,
                          plan,          evaluate,         sigreg_workspace,
                          sigreg_sums,   sigreg_statistic, sigreg_gradient};

}  // namespace
}  // namespace lewm::cuda

extern "C" __attribute__((visibility("default"))) const lewm::cuda::Table* lewm_cuda_table() {
  return &lewm::cuda::kTable;
}
