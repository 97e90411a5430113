// What the core and the CUDA module say to each other: plain structs and one table of functions. Neither side links the
// other; the core loads the module at run time (plan/device_module.h) and refuses a table of another version.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lewm::cuda {

constexpr std::int32_t kTableVersion = 2;

// ---------------------------------------------------------------------------------------------------------------------
// A model, as the host has it: folded weights in fp32 (model/folding.h). Read by model_create alone.
// ---------------------------------------------------------------------------------------------------------------------

struct HostLinear {
  std::int32_t n = 0, k = 0;
  const float* weight = nullptr;  // [n, k]; null: the model does not have this layer
  const float* bias = nullptr;    // [n]
};

// As lewm::HeadWeights.
struct HostHead {
  float eps = 0;
  std::int32_t in = 0;
  const float* gamma = nullptr;  // [in], null when folded
  const float* beta = nullptr;
  HostLinear first, second;
  const float* hidden_gamma = nullptr;  // [hidden], null when folded
  const float* hidden_beta = nullptr;
};

struct HostEncoderLayer {
  HostLinear query, key_value, attention_out, mlp_in, mlp_out;
};

struct HostPredictorLayer {
  HostLinear query, key_value, attention_out, attention_alone, mlp_in, mlp_out;
};

struct HostModel {
  std::int32_t image_size, patch_size, encoder_dim, encoder_heads, encoder_depth;
  std::int32_t latent_dim, block_dim, history;
  std::int32_t predictor_dim, predictor_heads, predictor_head_dim, predictor_depth;

  HostLinear patch_bytes, patch_floats;
  const float* cls;                       // [encoder_dim]
  const float* patch_positions;           // [patches, encoder_dim]
  const HostEncoderLayer* encoder_layer;  // [encoder_depth]
  HostHead projector;

  HostLinear action_in, action_out, modulation, input;
  const float* positions;                     // [history, predictor_dim]
  const HostPredictorLayer* predictor_layer;  // [predictor_depth]
  HostHead pred_proj;
};

// ---------------------------------------------------------------------------------------------------------------------
// Work. Every array may lie in host memory or in that of the model's device. With a stream (a cudaStream_t) everything
// is ordered on it, and a call whose arrays all lie in device memory returns when the work is enqueued; without one
// (null) the engine's own is used. Every other call returns when its results are there, and plans always do. One thread
// at a time per engine.
// ---------------------------------------------------------------------------------------------------------------------

struct Limits {
  std::int64_t problems = 1;  // B, most problems of a call
  std::int64_t horizon = 5;   // H, most blocks of a candidate
  std::int64_t tile = 0;      // candidates that go through the network together; 0: as many as 256 MiB of modulations
  std::int64_t frames = 64;   // that go through the encoder together
};

struct Seen {
  std::int64_t problems, context;  // B, C
  const float* latents;            // [B, C, D]
  const float* past_actions;       // [B, C - 1, A]; null when C is 1
};

// The options of a search (plan/options.h); bounds per element of a candidate.
struct SearchOptions {
  std::int32_t method;               // lewm::Method
  std::int64_t samples, elites;      // N, K; elites 0 (mppi): all finite candidates
  std::int64_t iterations, horizon;  // horizon <= Limits::horizon
  std::int64_t problems, tile;       // as in Limits
  std::uint64_t seed;
  const float* low;   // [H * A] or null
  const float* high;  // [H * A] or null
  float std_init, std_min, momentum;
  bool return_best;
  std::int64_t action_dim, action_hold;  // plan/options.h
  const float* colour;                   // [H], the kernel of lewm::ColouredNoise; null: white
  std::int64_t kept_elites;              // icem, else 0
  float temperature;
  std::int32_t cost_mode;  // lewm::CostMode
  float discount, action_penalty;
  double (*now)(void* context);  // seconds
  void* now_context;
};

struct PlanArguments {
  Seen seen;
  const float* goals;       // [B, D]
  const float* warm_start;  // [B, warm_blocks, A] or null
  std::int64_t warm_blocks;
  const std::uint32_t* problem_ids;  // [B] or null
  std::uint32_t plan_index;
  double end;  // by `now`; infinity: no deadline
  // Results; those marked optional may be null.
  float* actions;        // [B, H, A]
  float* cost;           // [B]
  float* elite_cost;     // [B], optional
  float* std;            // [B, H, A], optional
  std::int32_t* elites;  // [B, K], optional
  std::int64_t iterations;
};

// lewm::FrameResizer and its filters (model/frame.h). Read by resizer_create alone.
struct HostFilter {
  std::int32_t taps;
  const std::int32_t* first;  // [inner size]
  const std::int32_t* count;  // [inner size]
  const float* weight;        // [inner size, taps]
};

struct HostResizer {
  std::int32_t width, height, channels;               // of the source
  bool reversed;                                      // blue first
  std::int32_t left, top, inner_width, inner_height;  // of the picture inside the square target; the rest is black
  HostFilter horizontal, vertical;
};

// SIGReg (cpu/sigreg.h); all arrays in the memory of `device`.
struct SigregArguments {
  std::int32_t device;
  const float* z;           // [T, B, D]
  const float* directions;  // [D, M]
  std::int64_t steps, batch, dim, num_proj, knots;
  double t_max;
  float* workspace;  // sigreg_workspace() floats
};

struct Message {
  char text[256];
};

struct DeviceModel;
struct DeviceResizer;
struct Engine;
struct Search;

// Functions that return std::int32_t return a lewm::Status, and say in `message` what was wrong.
struct Table {
  std::int32_t version;  // kTableVersion
  std::int32_t bytes;    // sizeof(Table)
  const char* library;   // the version of lewm that this module was built with

  // GPUs that the driver shows; unsupported where there is no driver, or one that is too old.
  std::int32_t (*devices)(std::int32_t* count, Message* message);

  std::int32_t (*model_create)(const HostModel* model, std::int32_t device, DeviceModel** out, Message* message);
  void (*model_destroy)(DeviceModel* model);  // after everything that was made from it

  // Whether a pointer is the device's: not to be followed by the host.
  std::int32_t (*on_device)(const DeviceModel* model, const void* pointer, bool* result, Message* message);

  std::int32_t (*resizer_create)(const DeviceModel* model, const HostResizer* resizer, DeviceResizer** out,
                                 Message* message);
  void (*resizer_destroy)(DeviceResizer* resizer);  // after the work that it was used for

  std::int32_t (*engine_create)(const DeviceModel* model, const Limits* limits, Engine** out, Message* message);
  void (*engine_destroy)(Engine* engine);
  // frames: [n, size, size, 3] bytes, or [n, 3, size, size] normalised floats; latents: [n, D]
  std::int32_t (*encode_bytes)(Engine* engine, const std::uint8_t* frames, std::int64_t n, float* latents, void* stream,
                               Message* message);
  std::int32_t (*encode_floats)(Engine* engine, const float* frames, std::int64_t n, float* latents, void* stream,
                                Message* message);
  // frames: [n, height, width, channels] of the resizer
  std::int32_t (*encode_camera)(Engine* engine, const DeviceResizer* resizer, const std::uint8_t* frames,
                                std::int64_t n, float* latents, void* stream, Message* message);
  // actions: [B, S, H, A]; latents: [B, S, H, D]
  std::int32_t (*rollout)(Engine* engine, const Seen* seen, const float* actions, std::int64_t samples,
                          std::int64_t horizon, float* latents, void* stream, Message* message);
  // goals: [B, D]; cost: [B, S]
  std::int32_t (*cost)(Engine* engine, const Seen* seen, const float* goals, const float* actions, std::int64_t samples,
                       std::int64_t horizon, float* cost, void* stream, Message* message);

  // A search has its own engine, and with it its own stream.
  std::int32_t (*search_create)(const DeviceModel* model, const SearchOptions* options, Search** out, Message* message);
  void (*search_destroy)(Search* search);
  std::int32_t (*plan)(Search* search, PlanArguments* arguments, void* stream, Message* message);
  // Costs of given candidates under the search's cost. actions: [B, S, H, A]; cost: [B, S]
  std::int32_t (*evaluate)(Search* search, const Seen* seen, const float* goals, const float* actions,
                           std::int64_t samples, float* cost, void* stream, Message* message);

  std::int64_t (*sigreg_workspace)(const SigregArguments* arguments);  // in floats
  // sums: [T, M, 2, K]
  std::int32_t (*sigreg_sums)(const SigregArguments* arguments, double* sums, void* stream, Message* message);
  // statistic: [T * M], the terms of SIGReg; `total` samples are in the sums
  std::int32_t (*sigreg_statistic)(const SigregArguments* arguments, const double* sums, double total,
                                   double* statistic, void* stream, Message* message);
  // gradient: [T, B, D] of the mean of the statistics, times `scale`
  std::int32_t (*sigreg_gradient)(const SigregArguments* arguments, const double* sums, double total, double scale,
                                  float* gradient, void* stream, Message* message);
};

// The module's one symbol.
using GetTable = const Table* (*)();
constexpr const char* kTableSymbol = "lewm_cuda_table";

}  // namespace lewm::cuda
