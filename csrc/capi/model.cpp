// The C interface: a model and its functions one by one.
#include "capi/support.h"
#include "plan/device_module.h"

using namespace lewm;
using namespace lewm::capi;

namespace {

const char* const kPrecisionNames[] = {"fp32", "bf16", "int8"};

bool on_gpu(lewm_device device) {
  if (device == LEWM_DEVICE_CPU || device == LEWM_DEVICE_CUDA) return device == LEWM_DEVICE_CUDA;
  throw Error(Status::invalid_argument, "device: expected a lewm_device, got " + std::to_string(device));
}

// What a field of lewm_model_config asks for, of the CPU's weights; a GPU's are read from these. `automatic`: what AUTO
// means on the CPU.
Precision choose_precision(const std::string& field, lewm_precision precision, Precision automatic, lewm_device device,
                           cpu::Isa isa) {
  if (on_gpu(device)) {
    if (precision != LEWM_PRECISION_AUTO && precision != LEWM_PRECISION_BF16) {
      throw Error(Status::unsupported, field + ": expected auto or bf16 on cuda, got " + std::to_string(precision));
    }
    return cpu::precision_for_gpu(cpu::kernels(isa));
  }
  if (precision == LEWM_PRECISION_AUTO) return automatic;
  if (precision < LEWM_PRECISION_FP32 || precision > LEWM_PRECISION_INT8) {
    throw Error(Status::invalid_argument,
                field + ": expected auto, fp32, bf16 or int8, got " + std::to_string(precision));
  }
  return static_cast<Precision>(precision - 1);
}

History history_of(const lewm_history& history) {
  return {or_default(history.problems, 1), or_default(history.context, 1), history.latents, history.past_actions};
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------------------
// Model
// ---------------------------------------------------------------------------------------------------------------------

lewm_status lewm_model_open(const char* path, const lewm_model_config* config, lewm_model** model) {
  return guarded([&] {
    need("path", path);
    need("model", model);
    *model = nullptr;
    const lewm_model_config chosen = read_or_default("config", config);
    const cpu::Isa isa = cpu::active_isa();
    const Precision precision =
        choose_precision("precision", chosen.precision, cpu::auto_precision(isa), chosen.device, isa);
    const Precision encoder_precision =
        choose_precision("encoder_precision", chosen.encoder_precision, Precision::fp32, chosen.device, isa);
    auto opened = std::make_unique<lewm_model>(
        lewm_model{Model::open(path, precision, isa, encoder_precision), nullptr, {chosen.log, chosen.log_context}});
    if (on_gpu(chosen.device)) opened->device = Device::upload(*opened->model, chosen.device_index);
    char chosen_for_it[128];
    std::snprintf(chosen_for_it, sizeof chosen_for_it, ": %s on %s, %.1f MB of weights",
                  opened->device ? "bf16" : kPrecisionNames[static_cast<int>(precision)],
                  opened->device ? "cuda" : cpu::isa_name(isa),
                  static_cast<double>(opened->model->weight_bytes()) / 1e6);
    opened->log(("lewm " LEWM_VERSION_STRING ": " + std::string(path) + chosen_for_it).c_str());
    *model = opened.release();
    return LEWM_OK;
  });
}

void lewm_model_close(lewm_model* model) { delete model; }

lewm_status lewm_device_count(lewm_device device, int32_t* count) {
  return guarded([&] {
    need("count", count);
    *count = 0;
    if (!on_gpu(device)) {
      *count = 1;
      return LEWM_OK;
    }
    const DeviceModule& module = device_module();
    if (!module.table) throw Error(Status::unsupported, "device: 'cuda' is not available: " + module.reason);
    *count = module.devices;
    return LEWM_OK;
  });
}

lewm_status lewm_model_get_info(const lewm_model* model, lewm_model_info* info) {
  return guarded([&] {
    need("model", model);
    check_size("info", info);
    const Config& config = model->model->config();
    const std::shared_ptr<const Device>& device = model->device;
    write(info,
          {0, config.image_size, config.latent_dim, config.action_dim, config.frame_skip, config.block_dim(),
           config.history,
           device ? LEWM_PRECISION_BF16 : static_cast<lewm_precision>(static_cast<int>(model->model->precision()) + 1),
           cpu::isa_name(model->model->isa()), model->model->weight_bytes(),
           device ? LEWM_DEVICE_CUDA : LEWM_DEVICE_CPU, device ? device->index() : 0});
    return LEWM_OK;
  });
}

lewm_status lewm_model_get_action_scaling(const lewm_model* model, float* mean, float* std) {
  return guarded([&] {
    need("model", model);
    need("mean", mean);
    need("std", std);
    const ActionScaling& scaling = model->model->action_scaling();
    for (std::int64_t d = 0; d < model->model->config().action_dim; ++d) {
      mean[d] = scaling.mean.empty() ? 0.0f : scaling.mean[static_cast<std::size_t>(d)];
      std[d] = scaling.std.empty() ? 1.0f : scaling.std[static_cast<std::size_t>(d)];
    }
    return LEWM_OK;
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// Workspace
// ---------------------------------------------------------------------------------------------------------------------

lewm_status lewm_workspace_create(const lewm_model* model, const lewm_workspace_config* config,
                                  lewm_workspace** workspace) {
  return guarded([&] {
    need("model", model);
    need("workspace", workspace);
    *workspace = nullptr;
    const lewm_workspace_config chosen = read_or_default("config", config);
    const WorkspaceLimits limits{or_default(chosen.problems, 1), or_default(chosen.horizon, 5), model->device};
    *workspace = new lewm_workspace{model->device, {model->model, limits, make_pool(threads_of(chosen.threads))}};
    return LEWM_OK;
  });
}

void lewm_workspace_destroy(lewm_workspace* workspace) { delete workspace; }

lewm_status lewm_encode_u8(lewm_workspace* workspace, const uint8_t* frames, int64_t n, float* latents) {
  return guarded([&] {
    need("workspace", workspace);
    return finish(workspace->workspace.encode(frames, n, latents), workspace->workspace);
  });
}

lewm_status lewm_encode_f32(lewm_workspace* workspace, const float* frames, int64_t n, float* latents) {
  return guarded([&] {
    need("workspace", workspace);
    return finish(workspace->workspace.encode(frames, n, latents), workspace->workspace);
  });
}

lewm_status lewm_encode_frames(lewm_workspace* workspace, lewm_resizer* resizer, const uint8_t* frames, int64_t n,
                               float* latents) {
  return guarded([&] {
    need("workspace", workspace);
    need("resizer", resizer);
    if (resizer->device != workspace->device ||
        resizer->image_size != workspace->workspace.model().config().image_size) {
      throw Error(Status::invalid_argument, "resizer: expected one of the workspace's model");
    }
    return finish(workspace->workspace.encode(resizer->resizer, resizer->on_device.get(), frames, n, latents),
                  workspace->workspace);
  });
}

lewm_status lewm_workspace_set_stream(lewm_workspace* workspace, void* stream) {
  return guarded([&] {
    need("workspace", workspace);
    need_device(workspace->device, stream);
    workspace->workspace.set_stream(stream);
    return LEWM_OK;
  });
}

lewm_status lewm_rollout(lewm_workspace* workspace, const lewm_history* history, const float* actions, int64_t samples,
                         int64_t horizon, float* latents) {
  return guarded([&] {
    need("workspace", workspace);
    const History seen = history_of(read("history", history));
    return finish(workspace->workspace.rollout(seen, actions, samples, horizon, latents), workspace->workspace);
  });
}

lewm_status lewm_cost(lewm_workspace* workspace, const lewm_history* history, const float* goals, const float* actions,
                      int64_t samples, int64_t horizon, float* cost) {
  return guarded([&] {
    need("workspace", workspace);
    const History seen = history_of(read("history", history));
    return finish(workspace->workspace.cost(seen, goals, actions, samples, horizon, cost), workspace->workspace);
  });
}
