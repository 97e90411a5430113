// What the table's handles are: a model, an engine for its functions one by one, and a search.
#pragma once

#include <memory>
#include <vector>

#include "cuda/calls.h"
#include "cuda/encoder.h"
#include "cuda/frame.cuh"
#include "cuda/rollout.h"
#include "plan/options.h"
#include "plan/prediction.h"

namespace lewm::cuda {

struct DeviceModel {
  DeviceModel(const HostModel& model, int device) : weights(model, device) {}
  const Weights weights;
};

// The filters of a frame resizer.
struct DeviceResizer {
  DeviceResizer(const DeviceModel& model, const HostResizer& resizer);
  const int device;

  // All but the frames themselves.
  const Resize& arguments() const { return arguments_; }

 private:
  ResizeFilter upload(const HostFilter& filter, std::int64_t size, const Stream& stream);

  Resize arguments_{};
  std::vector<Buffer<std::int32_t>> integers_;
  std::vector<Buffer<float>> floats_;
};

struct Engine {
  Engine(const DeviceModel& model, const Limits& limits);

  void encode(const Frames& frames, std::int64_t n, float* latents, cudaStream_t stream);
  void rollout(const Seen& seen, const float* actions, std::int64_t samples, std::int64_t horizon, float* latents,
               cudaStream_t stream);
  void cost(const Seen& seen, const float* goals, const float* actions, std::int64_t samples, std::int64_t horizon,
            float* cost, cudaStream_t stream);

  const Weights& weights;

 private:
  void prepare(const Seen& seen, std::int64_t samples, std::int64_t horizon, cudaStream_t stream);

  Limits limits_;
  Turn turn_;
  std::unique_ptr<Encoder> encoder_;  // made when first needed, as is the rest
  std::unique_ptr<Rollout> rollout_;
  Growing<float> actions_, goals_, results_;
};

// A plan: one captured graph an iteration, launched as often as there are iterations.
struct Search {
  Search(const DeviceModel& model, const SearchOptions& options);

  void plan(PlanArguments& arguments, cudaStream_t stream);
  void evaluate(const Seen& seen, const float* goals, const float* actions, std::int64_t samples, float* cost,
                cudaStream_t stream);

  const Weights& weights;

 private:
  struct Recorded;
  void begin(const PlanArguments& arguments, cudaStream_t stream);
  void iterate(cudaStream_t stream);
  void run_iterations(PlanArguments& arguments, Recorded& iteration, cudaStream_t stream);
  void evaluate_means(std::int64_t completed, cudaStream_t stream);
  void costs(const float* actions, std::int64_t samples, float* cost, cudaStream_t stream);
  void fetch(PlanArguments& arguments, cudaStream_t stream);
  void check_found(std::int64_t problems) const;
  void check_costs(std::int64_t problems) const;
  Recorded& recorded_iteration();
  double now() const { return options_.now(options_.now_context); }

  const SearchOptions options_;  // its arrays are not to be followed
  const Method method_;
  const int samples_, elements_, elites_, needed_, kept_;  // elites_: K of a refit
  Turn turn_;
  Rollout rollout_;

  struct Recorded {
    std::int64_t problems, context;
    Graph graph;
    Prediction time, finish;  // with a deadline: of an iteration, and of what comes after the last one
  };
  std::vector<Recorded> graphs_;
  Event iterated_;

  Buffer<float> low_, high_, colour_;                                // [elements] or null, alike, [H] or null
  Buffer<float> goals_, warm_start_;                                 // [B, D], [B, elements]
  Buffer<std::uint32_t> plan_, problem_ids_, iteration_;             // [1], [B], [B]
  Buffer<float> mean_, std_, initial_, best_;                        // [B, elements]
  Buffer<float> mean_cost_, best_cost_, elite_cost_, initial_cost_;  // [B]
  Buffer<float> candidates_, noise_, cost_;                          // [B, N, elements], the same if coloured, [B, N]
  Buffer<float> kept_candidates_;                                    // [B, kept, elements]
  Buffer<std::int32_t> rank_, found_, failed_iteration_, failed_found_;  // [B, K], [B], ...
  Growing<float> given_, given_cost_;                                    // of evaluate()
  // On the host: what tells a good plan from a bad one.
  std::vector<float> host_cost_;
  std::vector<std::int32_t> host_failed_iteration_, host_failed_found_;
};

}  // namespace lewm::cuda
