#include "plan/search.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <vector>

#include "model/rollout.h"
#include "plan/clock.h"
#include "plan/noise.h"
#include "plan/prediction.h"
#include "plan/refit.h"

namespace lewm {
namespace {

// How long a candidate of a task takes, in evaluations of a mean; no longer, as long as nothing is known. Those are
// timed in every plan that has no time for a task, so they tell when there would be time again.
class Ratio {
 public:
  double value() const { return value_; }
  // A larger one at once, a smaller one by and by.
  void observe(double measured) {
    value_ = known_ ? std::max(measured, value_ + kFollow * (measured - value_)) : measured;
    known_ = true;
  }
  // No task was tried. Should the ratio be wrong, a task is tried some hundred plans later all the same.
  void doubt() { value_ *= kDoubt; }

 private:
  static constexpr double kFollow = 0.25, kDoubt = 0.995;
  double value_ = 1;
  bool known_ = false;
};

enum class Outcome { complete, late, refused };

constexpr float kNotEvaluated = std::numeric_limits<float>::quiet_NaN();  // of a candidate, with a deadline

}  // namespace

struct Search::State {
  State(const PlannerOptions& planner_options, std::int64_t block_width, std::int64_t action_width,
        ThreadPool& threads);

  Status run(Objective& objective, const PlanRequest& request, double start, PlanResult& result);

  // --- the steps of run() ---
  void begin(const PlanRequest& request);
  std::int64_t task_size(std::int64_t problems, std::int64_t tile, double deadline) const;
  Status optimise(Objective& objective, const PlanRequest& request, std::int64_t& completed);
  Outcome iterate(Objective& objective, const PlanRequest& request, std::int64_t iteration);
  void sample(const PlanRequest& request, std::int64_t iteration, std::int64_t problem, std::int64_t index, int thread);
  bool refit(std::int64_t problem);
  void no_task_fitted();
  void keep_evaluated(std::int64_t problems, bool first_iteration);
  void prefer_start(std::int64_t problem);
  void take_best(std::int64_t problems);
  Outcome evaluate_means(Objective& objective, std::int64_t problems);
  bool stand_in(std::int64_t problem, std::int64_t completed);
  Status fewer_costs(std::int64_t problem, std::int64_t found);
  Status no_cost(std::int64_t problem);
  Status refused();

  bool limited() const { return deadline_at < kNoDeadline; }
  // Rounds in which the threads evaluate the means of so many problems, one each.
  double rounds(std::int64_t problems) const {
    return static_cast<double>((problems + pool.threads() - 1) / pool.threads());
  }
  // Seconds to keep for evaluating the means, and for a task before it; `slowest`: this iteration's slowest task so
  // far.
  double reserve() const { return std::max(evaluation.seconds() * means_rounds, candidate_time.seconds()); }
  double expected_task(double slowest) const {
    const double size = static_cast<double>(chunk);
    return std::max(candidate_time.seconds() * size, slowest) + std::max(reserve(), slowest / size);
  }
  void clip(float* actions) const;

  float* mean_of(std::int64_t problem) { return mean.data() + problem * elements; }
  float* std_of(std::int64_t problem) { return std.data() + problem * elements; }
  float* cost_of(std::int64_t problem) { return cost.data() + problem * samples; }
  float* candidate(std::int64_t problem, std::int64_t index) {
    return candidates.data() + (problem * samples + index) * elements;
  }

  const PlannerOptions options;
  ThreadPool& pool;
  const std::int64_t samples, block_dim, elements;  // N, A, H * A
  const std::int64_t action_dim;                    // of an environment step
  const std::int64_t elites;                        // K of a refit
  const std::int64_t kept;                          // elites carried over to the next iteration
  std::int64_t chunk = 1;                           // candidates of a task
  const ColouredNoise colour;

  std::vector<float> low, high;          // [H * A] or empty
  std::vector<float> mean, std;          // [B, H * A]
  std::vector<float> initial;            // [B, H * A], the warm start
  std::vector<float> candidates;         // [B, N, H * A]
  std::vector<float> cost;               // [B, N]
  std::vector<float> kept_candidates;    // [B, kept, H * A]
  std::vector<float> best;               // [B, H * A], the best candidate of the last iteration
  std::vector<float> best_cost;          // [B]
  std::vector<std::int32_t> elite_rank;  // [B, K], best first
  std::vector<std::int32_t> order;       // [N]
  std::vector<float> weights;            // [N]
  std::vector<float> elite_cost;         // [B]
  std::vector<float> initial_cost;       // [B]
  std::vector<float> mean_cost_;         // [B]
  std::vector<std::uint8_t> mean_known;  // [B], mean_cost_ is the cost of mean
  std::vector<float> colour_scratch;     // [threads, H]
  std::vector<double> slowest_task;      // [threads], seconds

  double deadline_at = kNoDeadline;  // by the clock
  double means_rounds = 1;           // of this plan
  // Outlive a plan: what one candidate of a task and one round of evaluating means take.
  Prediction candidate_time, evaluation;
  Ratio candidate_per_evaluation;
  char text[256] = "";
};

Search::State::State(const PlannerOptions& planner_options, std::int64_t block_width, std::int64_t action_width,
                     ThreadPool& threads)
    : options((check_options(planner_options, block_width, action_width), planner_options)),
      pool(threads),
      samples(options.samples),
      block_dim(block_width),
      elements(options.horizon * block_width),
      action_dim(action_width),
      elites(options.method == Method::predictive_sampling ? 1
             : options.elites                              ? options.elites
                                                           : samples),
      kept(options.method == Method::icem ? std::min({options.kept_elites, elites, samples - 1}) : 0),
      colour(options.method == Method::icem && options.noise_exponent > 0 ? options.horizon : 0,
             options.noise_exponent) {
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  const std::int64_t problems = options.problems;
  const auto repeat = [&](const std::vector<float>& bound, std::vector<float>& out) {
    for (std::int64_t e = 0; e < elements && !bound.empty(); ++e)
      out.push_back(bound[size(e % block_dim) % bound.size()]);
  };
  repeat(options.low, low);
  repeat(options.high, high);
  for (auto* array : {&mean, &std, &initial, &best}) array->resize(size(problems * elements));
  candidates.resize(size(problems * samples * elements));
  cost.resize(size(problems * samples));
  kept_candidates.resize(size(problems * kept * elements));
  elite_rank.resize(size(problems * elites));
  order.resize(size(samples));
  weights.resize(size(samples));
  for (auto* array : {&best_cost, &elite_cost, &initial_cost, &mean_cost_}) array->resize(size(problems));
  mean_known.resize(size(problems));
  colour_scratch.resize(size(pool.threads() * options.horizon));
  slowest_task.resize(size(pool.threads()));
}

void Search::State::clip(float* actions) const {
  for (std::size_t e = 0; e < low.size(); ++e) actions[e] = std::max(actions[e], low[e]);
  for (std::size_t e = 0; e < high.size(); ++e) actions[e] = std::min(actions[e], high[e]);
}

// The distribution before the first iteration: the warm start, zero beyond its end, within the bounds.
void Search::State::begin(const PlanRequest& request) {
  const std::int64_t warm = request.warm_start ? request.warm_blocks * block_dim : 0;
  for (std::int64_t b = 0; b < request.problems; ++b) {
    std::fill_n(mean_of(b), elements, 0.0f);
    if (warm) std::copy_n(request.warm_start + b * warm, warm, mean_of(b));
    clip(mean_of(b));
  }
  std::copy_n(mean.data(), request.problems * elements, initial.data());
  std::fill_n(std.data(), request.problems * elements, options.std_init);
  std::fill_n(mean_known.data(), request.problems, std::uint8_t{0});
  std::fill_n(elite_cost.data(), request.problems, std::nanf(""));
  std::fill_n(initial_cost.data(), request.problems, std::nanf(""));
  std::fill_n(elite_rank.data(), request.problems * elites, -1);
}

// Candidates of a task. With a deadline they are few enough for its clock to be looked at often.
std::int64_t Search::State::task_size(std::int64_t problems, std::int64_t tile, double deadline) const {
  constexpr double kTasksInADeadline = 8;
  std::int64_t most = tile;
  if (limited()) {
    const double pace = candidate_time.seconds();  // 0 by a clock that is too coarse
    const double fitting = pace > 0 ? deadline / kTasksInADeadline / pace : static_cast<double>(tile);
    most = std::min(tile, std::max(kFewestCandidates, static_cast<std::int64_t>(std::min(fitting, 1e9))));
  }
  return candidates_of_task(problems, samples, most, pool.threads());
}

// Element e of candidate i: mean + std * noise. Candidate 0 is the mean itself; the next ones are kept elites, if any.
void Search::State::sample(const PlanRequest& request, std::int64_t iteration, std::int64_t problem, std::int64_t index,
                           int thread) {
  float* out = candidate(problem, index);
  const float* centre = mean_of(problem);
  if (index == 0) {
    std::copy_n(centre, elements, out);
    return;
  }
  if (iteration > 0 && index <= kept) {
    std::copy_n(kept_candidates.data() + (problem * kept + index - 1) * elements, elements, out);
    return;
  }
  const std::uint32_t id = request.problem_ids ? request.problem_ids[problem] : 0;
  const philox::Stream stream{options.seed, request.plan_index, static_cast<std::uint32_t>(iteration), id};
  fill_normals(stream, static_cast<std::uint32_t>(index), elements, out);
  hold_noise(out, elements, block_dim, action_dim, options.action_hold);
  colour.apply(out, block_dim, colour_scratch.data() + thread * options.horizon);
  const float* spread = std_of(problem);
  for (std::int64_t e = 0; e < elements; ++e) out[e] = philox::fused(spread[e], out[e], centre[e]);
  clip(out);
}

// Samples and evaluates all candidates. Late: the deadline came first, some candidates are not evaluated.
Outcome Search::State::iterate(Objective& objective, const PlanRequest& request, std::int64_t iteration) {
  const std::int64_t problems = request.problems;
  const std::int64_t tiles = (samples + chunk - 1) / chunk;
  std::atomic<Outcome> outcome{Outcome::complete};
  std::fill(slowest_task.begin(), slowest_task.end(), 0.0);
  // The first tile of every problem comes first: it holds the mean.
  pool.run(tiles * problems, [&](std::int64_t task, int thread) {
    if (outcome.load(std::memory_order_relaxed) != Outcome::complete) return;
    const std::int64_t problem = task % problems;
    const std::int64_t first = task / problems * chunk;
    const std::int64_t n = std::min(chunk, samples - first);
    const double began = limited() ? seconds(options.clock) : 0;
    double& slowest = slowest_task[static_cast<std::size_t>(thread)];
    if (limited() && began + expected_task(slowest) > deadline_at) {
      Outcome until_now = Outcome::complete;  // a refusal stays one
      outcome.compare_exchange_strong(until_now, Outcome::late, std::memory_order_relaxed);
      return;
    }
    for (std::int64_t i = first; i < first + n; ++i) sample(request, iteration, problem, i, thread);
    if (!objective.evaluate(thread, problem, candidate(problem, first), n, cost_of(problem) + first)) {
      outcome.store(Outcome::refused, std::memory_order_relaxed);
    }
    if (limited()) slowest = std::max(slowest, seconds(options.clock) - began);
  });
  if (!limited()) return outcome;
  const double slowest = *std::max_element(slowest_task.begin(), slowest_task.end());
  if (slowest > 0) {
    const double measured = slowest / static_cast<double>(chunk);
    candidate_time.observe(measured);
    if (evaluation.seconds() > 0) candidate_per_evaluation.observe(measured / evaluation.seconds());
  } else {
    no_task_fitted();
  }
  return outcome;
}

void Search::State::no_task_fitted() {
  if (evaluation.seconds() <= 0) return;
  candidate_time.expect_at_most(candidate_per_evaluation.value() * evaluation.seconds());
  candidate_per_evaluation.doubt();
}

// The next distribution of one problem. False: not enough finite costs.
bool Search::State::refit(std::int64_t problem) {
  float* costs = cost_of(problem);
  std::int32_t* rank = elite_rank.data() + problem * elites;
  const bool weigh_all = options.method == Method::mppi && options.elites == 0;
  const std::int64_t found = select_elites(costs, samples, elites, order.data());
  std::fill_n(std::copy_n(order.data(), found, rank), elites - found, -1);
  if (found < (weigh_all ? 1 : elites)) {
    fewer_costs(problem, found);
    return false;
  }
  const std::size_t b = static_cast<std::size_t>(problem);
  std::copy_n(candidate(problem, rank[0]), elements, best.data() + problem * elements);
  best_cost[b] = costs[rank[0]];
  for (std::int64_t i = 0; i < kept; ++i) {
    std::copy_n(candidate(problem, rank[i]), elements, kept_candidates.data() + (problem * kept + i) * elements);
  }
  std::sort(order.data(), order.data() + found);
  elite_cost[b] = mean_cost(costs, order.data(), found);

  const Elites chosen{candidate(problem, 0), elements, order.data(), found};
  switch (options.method) {
    case Method::cem:
    case Method::icem:
      refit_normal(chosen, options.momentum, options.std_min, mean_of(problem), std_of(problem));
      break;
    case Method::mppi:
      refit_softmax(chosen, costs, options.temperature, weights.data(), mean_of(problem));
      break;
    case Method::predictive_sampling:
      std::copy_n(candidate(problem, rank[0]), elements, mean_of(problem));
      break;
  }
  clip(mean_of(problem));
  const bool is_candidate = options.method == Method::predictive_sampling;
  mean_known[b] = is_candidate;
  if (is_candidate) mean_cost_[b] = costs[rank[0]];
  return true;
}

// After an iteration that came too late: what it evaluated still counts. The mean's own cost may be among it; in the
// first iteration, if the warm start was evaluated, the best candidate so far stands in for the mean.
void Search::State::keep_evaluated(std::int64_t problems, bool first_iteration) {
  const std::int64_t look_at = first_iteration ? samples : 1;
  for (std::int64_t b = 0; b < problems; ++b) {
    const std::size_t i = static_cast<std::size_t>(b);
    if ((mean_known[i] && !first_iteration) || std::isnan(cost_of(b)[0])) continue;
    if (!select_elites(cost_of(b), look_at, 1, order.data())) continue;
    const std::int32_t chosen = order[0];
    std::copy_n(candidate(b, chosen), elements, mean_of(b));
    mean_cost_[i] = cost_of(b)[chosen];
    mean_known[i] = 1;
  }
}

Outcome Search::State::evaluate_means(Objective& objective, std::int64_t problems) {
  const std::int64_t unknown = std::count(mean_known.begin(), mean_known.begin() + problems, std::uint8_t{0});
  if (unknown == 0) return Outcome::complete;
  const double began = limited() ? seconds(options.clock) : 0;
  std::atomic<Outcome> outcome{Outcome::complete};
  pool.run(problems, [&](std::int64_t b, int thread) {
    const std::size_t i = static_cast<std::size_t>(b);
    if (mean_known[i]) return;
    if (!objective.evaluate(thread, b, mean_of(b), 1, &mean_cost_[i])) {
      outcome.store(Outcome::refused, std::memory_order_relaxed);
    }
    mean_known[i] = 1;
  });
  if (limited()) evaluation.observe((seconds(options.clock) - began) / rounds(unknown));
  return outcome;
}

// With a deadline: the warm start where the plan is worse.
void Search::State::prefer_start(std::int64_t problem) {
  const std::size_t b = static_cast<std::size_t>(problem);
  if (!std::isfinite(initial_cost[b]) || mean_cost_[b] <= initial_cost[b]) return;
  std::copy_n(initial.data() + problem * elements, elements, mean_of(problem));
  mean_cost_[b] = initial_cost[b];
}

// The best candidate where the mean has no finite cost. False: nor has any candidate.
bool Search::State::stand_in(std::int64_t problem, std::int64_t completed) {
  const std::size_t b = static_cast<std::size_t>(problem);
  if (std::isfinite(mean_cost_[b])) return true;
  if (completed > 0) {
    std::copy_n(best.data() + problem * elements, elements, mean_of(problem));
    mean_cost_[b] = best_cost[b];
    return true;
  }
  if (!select_elites(cost_of(problem), samples, 1, order.data())) return false;
  std::copy_n(candidate(problem, order[0]), elements, mean_of(problem));
  mean_cost_[b] = cost_of(problem)[order[0]];
  return true;
}

Status Search::State::fewer_costs(std::int64_t problem, std::int64_t found) {
  std::snprintf(text, sizeof text, "problem %lld: %lld of %lld candidates have a finite cost, %lld are needed",
                static_cast<long long>(problem), static_cast<long long>(found), static_cast<long long>(samples),
                static_cast<long long>(options.method == Method::mppi && options.elites == 0 ? 1 : elites));
  return Status::no_finite_cost;
}

Status Search::State::no_cost(std::int64_t problem) {
  std::snprintf(text, sizeof text,
                "problem %lld: neither the start nor a candidate evaluated in time has a finite cost",
                static_cast<long long>(problem));
  return Status::no_finite_cost;
}

Status Search::State::refused() {
  std::snprintf(text, sizeof text, "cost: the cost function reported an error");
  return Status::invalid_argument;
}

// Iterates until done or the deadline is near; `completed` counts the iterations whose refit is in the mean.
Status Search::State::optimise(Objective& objective, const PlanRequest& request, std::int64_t& completed) {
  Prediction iteration_time;
  for (completed = 0; completed < options.iterations; ++completed) {
    if (limited()) std::fill_n(cost.data(), request.problems * samples, kNotEvaluated);
    const double began = limited() ? seconds(options.clock) : 0;
    if (limited() && began + iteration_time.seconds() + reserve() > deadline_at) {
      if (completed == 0) no_task_fitted();
      break;
    }
    const Outcome outcome = iterate(objective, request, completed);
    if (outcome == Outcome::refused) return refused();
    for (std::int64_t b = 0; completed == 0 && b < request.problems; ++b) {
      initial_cost[static_cast<std::size_t>(b)] = cost_of(b)[0];
    }
    if (outcome == Outcome::late) {
      keep_evaluated(request.problems, completed == 0);
      break;
    }
    for (std::int64_t b = 0; b < request.problems; ++b) {
      if (!refit(b)) return Status::no_finite_cost;
    }
    if (limited()) iteration_time.observe(seconds(options.clock) - began);
  }
  return Status::ok;
}

// What is returned instead of the mean: the last iteration's best candidate.
void Search::State::take_best(std::int64_t problems) {
  std::copy_n(best.data(), problems * elements, mean.data());
  std::copy_n(best_cost.data(), problems, mean_cost_.data());
  std::fill_n(mean_known.data(), problems, std::uint8_t{1});
}

Status Search::State::run(Objective& objective, const PlanRequest& request, double start, PlanResult& result) {
  const std::int64_t problems = request.problems;
  deadline_at = request.deadline < kNoDeadline ? start + request.deadline : kNoDeadline;
  means_rounds = rounds(problems);
  begin(request);
  if (limited() && candidate_time.seconds() <= 0) {  // nothing was measured yet; alone, a candidate is slowest
    if (evaluate_means(objective, problems) == Outcome::refused) return refused();
    candidate_time.observe(evaluation.seconds());
  }
  chunk = task_size(problems, objective.tile(), request.deadline);

  std::int64_t completed = 0;
  const Status status = optimise(objective, request, completed);
  if (status != Status::ok) return status;

  const bool has_mean = options.method == Method::cem || options.method == Method::icem;
  if (options.return_best && has_mean && completed > 0) take_best(problems);
  if (evaluate_means(objective, problems) == Outcome::refused) return refused();
  for (std::int64_t b = 0; b < problems; ++b) {
    if (limited()) prefer_start(b);
    if (!stand_in(b, completed)) return no_cost(b);
  }

  std::copy_n(mean.data(), problems * elements, result.actions);
  std::copy_n(mean_cost_.data(), problems, result.cost);
  if (result.elite_cost) std::copy_n(elite_cost.data(), problems, result.elite_cost);
  if (result.std) std::copy_n(std.data(), problems * elements, result.std);
  if (result.elites) std::copy_n(elite_rank.data(), problems * elites, result.elites);
  result.iterations = completed;
  result.elapsed = seconds(options.clock) - start;
  return Status::ok;
}

Search::Search(const PlannerOptions& options, std::int64_t block_dim, std::int64_t action_dim, ThreadPool& pool)
    : state_(std::make_unique<State>(options, block_dim, action_dim, pool)) {}
Search::~Search() = default;

Status Search::run(Objective& objective, const PlanRequest& request, double start, PlanResult& result) noexcept {
  state_->text[0] = 0;
  return state_->run(objective, request, start, result);
}

const char* Search::message() const { return state_->text; }

}  // namespace lewm
