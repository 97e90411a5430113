#include "cuda/search.cuh"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <string>
#include <thread>

#include "cuda/engine.h"

namespace lewm::cuda {
namespace {

Limits limits_of(const SearchOptions& options) { return {options.problems, options.horizon, options.tile, 1}; }

int elites_of(const SearchOptions& options) {
  if (options.method == static_cast<int>(Method::predictive_sampling)) return 1;
  return static_cast<int>(options.elites ? options.elites : options.samples);
}

const SearchOptions& checked(const SearchOptions& options) {
  if (options.samples > kMostSamples) {
    throw Error(Status::unsupported, "samples: expected at most " + std::to_string(kMostSamples) + " on cuda, got " +
                                         std::to_string(options.samples));
  }
  return options;
}

template <class T>
Buffer<T> upload(const T* values, std::int64_t count, cudaStream_t stream) {
  if (!values) return {};
  Buffer<T> buffer(count);
  copy(buffer.get(), values, count, stream);
  return buffer;
}

}  // namespace

Search::Search(const DeviceModel& model, const SearchOptions& options)
    : weights(model.weights),
      options_(checked(options)),
      method_(static_cast<Method>(options.method)),
      samples_(static_cast<int>(options.samples)),
      elements_(static_cast<int>(options.horizon) * model.weights.sizes.block_dim),
      elites_(elites_of(options)),
      needed_(method_ == Method::mppi && options.elites == 0 ? 1 : elites_),
      kept_(method_ == Method::icem
                ? static_cast<int>(std::min({options.kept_elites, std::int64_t{elites_}, options.samples - 1}))
                : 0),
      turn_(model.weights.device),
      rollout_(model.weights, limits_of(options), options.problems * options.samples),
      low_(upload(options.low, elements_, turn_.own())),
      high_(upload(options.high, elements_, turn_.own())),
      colour_(upload(options.colour, options.horizon, turn_.own())),
      goals_(options.problems * model.weights.sizes.latent_dim),
      warm_start_(options.problems * elements_),
      plan_(1),
      problem_ids_(options.problems),
      iteration_(options.problems),
      mean_(options.problems * elements_),
      std_(options.problems * elements_),
      initial_(options.problems * elements_),
      best_(options.problems * elements_),
      mean_cost_(options.problems),
      best_cost_(options.problems),
      elite_cost_(options.problems),
      initial_cost_(options.problems),
      candidates_(options.problems * samples_ * elements_),
      noise_(options.colour ? options.problems * samples_ * elements_ : 0),
      cost_(options.problems * samples_),
      kept_candidates_(options.problems * kept_ * elements_),
      rank_(options.problems * elites_),
      found_(options.problems),
      failed_iteration_(options.problems),
      failed_found_(options.problems),
      given_(model.weights.device),
      given_cost_(model.weights.device),
      host_cost_(static_cast<std::size_t>(options.problems)),
      host_failed_iteration_(static_cast<std::size_t>(options.problems)),
      host_failed_found_(static_cast<std::size_t>(options.problems)) {
  synchronise(turn_.own());  // the options' arrays are the caller's
}

// Copies the request in and resets what the iterations change.
void Search::begin(const PlanArguments& a, cudaStream_t stream) {
  const std::int64_t problems = a.seen.problems;
  const int warm = a.warm_start ? static_cast<int>(a.warm_blocks) * weights.sizes.block_dim : 0;
  copy(goals_.get(), a.goals, problems * weights.sizes.latent_dim, stream);
  if (warm) copy(warm_start_.get(), a.warm_start, problems * warm, stream);
  copy(plan_.get(), &a.plan_index, 1, stream);
  if (a.problem_ids) {
    copy(problem_ids_.get(), a.problem_ids, problems, stream);
  } else {
    check(cudaMemsetAsync(problem_ids_.get(), 0, static_cast<std::size_t>(problems) * sizeof(std::uint32_t), stream),
          "cudaMemsetAsync");
  }
  launch_begin_search({static_cast<int>(problems), elements_, elites_, warm, warm_start_.get(), options_.std_init,
                       low_.get(), high_.get(), mean_.get(), std_.get(), initial_.get(), initial_cost_.get(),
                       elite_cost_.get(), rank_.get(), failed_iteration_.get(), iteration_.get()},
                      stream);
  rollout_.prepare(a.seen, stream);
}

// cost [B, samples] of candidates [B, samples, H, A], under the search's cost.
void Search::costs(const float* actions, std::int64_t samples, float* cost, cudaStream_t stream) {
  const auto mode = static_cast<CostMode>(options_.cost_mode);
  const std::int64_t horizon = options_.horizon;
  const int d = weights.sizes.latent_dim;
  rollout_.run(actions, samples, horizon, stream, [&](const Rollout::Tile& tile) {
    float weight = 1.0f;
    for (std::int64_t step = mode == CostMode::final ? horizon - 1 : 0; step < horizon; ++step) {
      const bool add = mode != CostMode::final && step > 0;
      launch_squared_distance({static_cast<int>(tile.count), d, tile.first, samples, weight, add,
                               tile.latents + step * tile.count * d, goals_.get(), cost},
                              stream);
      if (mode == CostMode::discounted) weight *= options_.discount;
    }
  });
  if (options_.action_penalty != 0.0f) {
    launch_action_penalty({rollout_.problems() * samples, elements_, options_.action_penalty, actions, cost}, stream);
  }
}

// Candidates, their costs, and the next distribution.
void Search::iterate(cudaStream_t stream) {
  const int problems = static_cast<int>(rollout_.problems());
  launch_sample({problems, samples_, elements_, options_.seed, plan_.get(), iteration_.get(), problem_ids_.get(),
                 mean_.get(), std_.get(), low_.get(), high_.get(), kept_, kept_candidates_.get(),
                 static_cast<int>(options_.horizon), static_cast<int>(options_.action_dim),
                 static_cast<int>(options_.action_hold), colour_.get(), noise_.get(), candidates_.get()},
                stream);
  costs(candidates_.get(), samples_, cost_.get(), stream);
  launch_select_elites({problems, samples_, elites_, cost_.get(), rank_.get(), found_.get()}, stream);
  const Refit refit{problems,          samples_,          elements_,        elites_,
                    needed_,           options_.momentum, options_.std_min, options_.temperature,
                    candidates_.get(), cost_.get(),       rank_.get(),      found_.get(),
                    low_.get(),        high_.get(),       mean_.get(),      std_.get()};
  switch (method_) {
    case Method::cem:
    case Method::icem:
      launch_refit_normal(refit, stream);
      break;
    case Method::mppi:
      launch_refit_softmax(refit, stream);
      break;
    case Method::predictive_sampling:
      launch_refit_best(refit, stream);
      break;
  }
  launch_close_iteration(
      {problems, samples_, elements_, elites_, needed_, kept_, candidates_.get(), cost_.get(), rank_.get(),
       found_.get(), best_.get(), best_cost_.get(), kept_candidates_.get(), elite_cost_.get(), initial_cost_.get(),
       failed_iteration_.get(), failed_found_.get(), iteration_.get()},
      stream);
}

// The prepared problems' iteration, recorded when their number and context are new.
Search::Recorded& Search::recorded_iteration() {
  const std::int64_t problems = rollout_.problems(), context = rollout_.context();
  for (Recorded& recorded : graphs_) {
    if (recorded.problems == problems && recorded.context == context) return recorded;
  }
  graphs_.push_back({problems, context, Graph(turn_.own(), [this](cudaStream_t stream) { iterate(stream); }), {}, {}});
  return graphs_.back();
}

// Without a deadline nothing is waited for. With one, an iteration is launched when the one before has ended and it,
// and what comes after, will fit as the last ones did.
void Search::run_iterations(PlanArguments& a, Recorded& iteration, cudaStream_t stream) {
  const bool limited = a.end < std::numeric_limits<double>::infinity();
  for (a.iterations = 0; a.iterations < options_.iterations; ++a.iterations) {
    const double began = limited ? now() : 0.0;
    if (limited && began + iteration.time.seconds() + iteration.finish.seconds() > a.end) {
      if (a.iterations == 0) {  // never tried again unless less is expected
        constexpr double kRelaxation = 0.7;
        iteration.time.expect_at_most(kRelaxation * iteration.time.seconds());
        iteration.finish.expect_at_most(kRelaxation * iteration.finish.seconds());
      }
      return;
    }
    iteration.graph.launch(stream);
    if (!limited) continue;
    iterated_.record(stream);
    while (!iterated_.reached()) std::this_thread::yield();
    iteration.time.observe(now() - began);
  }
}

// mean_cost = the cost of the mean; the best candidates take its place where they are what is asked for.
void Search::evaluate_means(std::int64_t completed, cudaStream_t stream) {
  const std::int64_t problems = rollout_.problems();
  const bool takes_best = options_.return_best && method_ != Method::mppi;
  if (completed > 0 && (takes_best || method_ == Method::predictive_sampling)) {
    copy<float>(mean_.get(), best_.get(), problems * elements_, stream);
    copy<float>(mean_cost_.get(), best_cost_.get(), problems, stream);
    return;
  }
  costs(mean_.get(), 1, mean_cost_.get(), stream);
}

void Search::fetch(PlanArguments& a, cudaStream_t stream) {
  const std::int64_t problems = a.seen.problems;
  copy<float>(a.actions, mean_.get(), problems * elements_, stream);
  copy<float>(a.cost, mean_cost_.get(), problems, stream);
  if (a.elite_cost) copy<float>(a.elite_cost, elite_cost_.get(), problems, stream);
  if (a.std) copy<float>(a.std, std_.get(), problems * elements_, stream);
  if (a.elites) copy<std::int32_t>(a.elites, rank_.get(), problems * elites_, stream);
  copy<float>(host_cost_.data(), mean_cost_.get(), problems, stream);
  copy<std::int32_t>(host_failed_iteration_.data(), failed_iteration_.get(), problems, stream);
  copy<std::int32_t>(host_failed_found_.data(), failed_found_.get(), problems, stream);
}

// Throws for the first problem of the first iteration that had too few finite costs.
void Search::check_found(std::int64_t problems) const {
  const auto fewer_costs = [this](std::int64_t problem, std::int64_t found) {
    throw Error(Status::no_finite_cost, "problem " + std::to_string(problem) + ": " + std::to_string(found) + " of " +
                                            std::to_string(samples_) + " candidates have a finite cost, " +
                                            std::to_string(needed_) + " are needed");
  };
  std::int64_t first = -1;
  for (std::int64_t b = 0; b < problems; ++b) {
    const std::int32_t failed = host_failed_iteration_[static_cast<std::size_t>(b)];
    if (failed >= 0 && (first < 0 || failed < host_failed_iteration_[static_cast<std::size_t>(first)])) first = b;
  }
  if (first >= 0) fewer_costs(first, host_failed_found_[static_cast<std::size_t>(first)]);
}

// A plan without a finite cost is an error.
void Search::check_costs(std::int64_t problems) const {
  for (std::int64_t b = 0; b < problems; ++b) {
    if (std::isfinite(host_cost_[static_cast<std::size_t>(b)])) continue;
    throw Error(Status::no_finite_cost,
                "problem " + std::to_string(b) + ": neither the plan nor its start has a finite cost");
  }
}

void Search::plan(PlanArguments& a, cudaStream_t stream) {
  stream = turn_.begin(stream, {});
  begin(a, stream);
  Recorded& iteration = recorded_iteration();
  run_iterations(a, iteration, stream);
  const bool limited = a.end < std::numeric_limits<double>::infinity();
  const double began = limited ? now() : 0.0;
  evaluate_means(a.iterations, stream);
  if (limited) {
    launch_settle({static_cast<int>(a.seen.problems), elements_, initial_.get(), initial_cost_.get(), mean_.get(),
                   mean_cost_.get()},
                  stream);
  }
  fetch(a, stream);
  turn_.end_and_wait(stream);
  if (limited) iteration.finish.observe(now() - began);
  check_found(a.seen.problems);
  check_costs(a.seen.problems);
}

void Search::evaluate(const Seen& seen, const float* goals, const float* actions, std::int64_t samples, float* cost,
                      cudaStream_t stream) {
  stream = turn_.begin(stream, {seen.latents, seen.past_actions, goals, actions, cost});
  rollout_.prepare(seen, stream);
  copy(goals_.get(), goals, seen.problems * weights.sizes.latent_dim, stream);
  const std::int64_t candidates = seen.problems * samples;
  actions = given_.input(actions, candidates * elements_, stream);
  float* out = given_cost_.output(cost, candidates, stream);
  costs(actions, samples, out, stream);
  given_cost_.deliver(cost, candidates, stream);
  turn_.end(stream);
}

}  // namespace lewm::cuda
