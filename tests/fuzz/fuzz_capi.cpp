// Bytes as a sequence of C calls with any numbers in their structs, on handles that come and go in any order: every
// call succeeds, or fails with a status other than "internal" and a message. The arrays have exactly the sizes that the
// header asks for, so that AddressSanitizer sees a step beyond.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "../cpp/make_model.h"
#include "lewm/lewm.h"

namespace {

constexpr std::int64_t kMostProblems = 2, kMostHorizon = 4, kMostSamples = 24;

// The input, read from the front; zeros once it is used up.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}
  bool empty() const { return at_ == end_; }
  std::uint8_t byte() { return empty() ? std::uint8_t{0} : *at_++; }
  bool flag() { return byte() & 1; }

  // Mostly in [0, most], sometimes what no call may accept.
  std::int64_t number(std::int64_t most) {
    constexpr std::int64_t kOdd[] = {-1, std::numeric_limits<std::int64_t>::min(),
                                     std::numeric_limits<std::int64_t>::max(), std::int64_t{1} << 40};
    const std::uint8_t choice = byte();
    return choice >= 252 ? kOdd[choice - 252] : choice % (most + 1);
  }

  // Mostly of the size of a standardised number; sometimes any bits: NaN, infinity, denormal, huge.
  float real() {
    const std::uint8_t choice = byte();
    if (choice < 240) return (static_cast<float>(choice) - 120.0f) / 40.0f;
    std::uint32_t bits = 0;
    for (int i = 0; i < 4; ++i) bits = bits << 8 | byte();
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  std::vector<float> reals(std::int64_t n) {
    std::vector<float> values(static_cast<std::size_t>(n), real());
    if (!values.empty()) values[byte() % values.size()] = real();
    return values;
  }
  std::vector<std::uint8_t> bytes(std::int64_t n) {
    std::vector<std::uint8_t> values(static_cast<std::size_t>(n), byte());
    if (!values.empty()) values[byte() % values.size()] = byte();
    return values;
  }

 private:
  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

lewm_model* shared_model() {
  static lewm_model* const model = [] {
    const std::string path = "/tmp/lewm_fuzz_" + std::to_string(getpid()) + ".safetensors";
    model_file::write_small(path);
    lewm_model* opened = nullptr;
    if (lewm_model_open(path.c_str(), nullptr, &opened) != LEWM_OK) std::abort();
    std::remove(path.c_str());
    return opened;
  }();
  return model;
}

void judge(lewm_status status) {
  if (status == LEWM_OK) return;
  if (status < LEWM_OK || status >= LEWM_INTERNAL || !lewm_last_error()[0]) {
    std::fprintf(stderr, "status %d: %s\n", status, lewm_last_error());
    std::abort();
  }
}

// An array as wide as asked for, or none.
template <class T>
const T* present(const std::vector<T>& values, Input& input) {
  return input.byte() == 255 ? nullptr : values.data();
}

class Session {
 public:
  explicit Session(Input& input) : input_(input), model_(shared_model()) {
    info_.struct_size = sizeof info_;
    judge(lewm_model_get_info(model_, &info_));
  }
  ~Session() {
    lewm_controller_destroy(controller_);
    lewm_background_destroy(background_);
    lewm_planner_destroy(planner_);
    lewm_resizer_destroy(resizer_);
    lewm_workspace_destroy(workspace_);
  }

  void step() {
    switch (input_.byte() % 12) {
      case 0:
        return create_planner();
      case 1:
        return create_workspace();
      case 2:
        return create_resizer();
      case 3:
        return create_controller();
      case 4:
        return plan();
      case 5:
        return planner_cost();
      case 6:
        return work();
      case 7:
        return resize();
      case 8:
        return set_goal();
      case 9:
        return act();
      case 10:
        return ask_background();
      default:
        return look();
    }
  }

 private:
  std::int64_t frame_bytes() const { return 3 * info_.image_size * info_.image_size; }

  lewm_planner_config planner_config() {
    lewm_planner_config config;
    judge(lewm_planner_config_init(&config, sizeof config, LEWM_CEM));
    config.method = static_cast<lewm_method>(input_.byte() % 5);
    config.samples = input_.number(kMostSamples);
    config.elites = input_.number(8);
    config.iterations = input_.number(3);
    config.horizon = input_.number(kMostHorizon);
    config.problems = input_.number(kMostProblems);
    config.seed = input_.byte();
    config.std_init = input_.real();
    config.std_min = input_.real();
    config.momentum = input_.real();
    config.return_best = input_.byte();
    config.noise_exponent = input_.real();
    config.kept_elites = input_.number(8);
    config.temperature = input_.real();
    config.cost_mode = static_cast<lewm_cost_mode>(input_.byte() % 4);
    config.discount = input_.real();
    config.action_penalty = input_.real();
    config.threads.count = static_cast<std::int32_t>(input_.byte() % 3);
    config.action_hold = static_cast<std::int64_t>(config.seed % 4);  // no byte of its own: recorded inputs stay
    if (input_.byte() == 255) config.struct_size = input_.byte() % sizeof config;  // more would be a lie
    return config;
  }

  // Bounds and the rest may be refused; what stood before is then kept.
  void create_planner() {
    lewm_planner_config config = planner_config();
    const bool bounded = input_.flag();
    config.bound_dim = input_.flag() ? info_.action_dim : info_.block_dim;
    const std::vector<float> low = input_.reals(config.bound_dim), high = input_.reals(config.bound_dim);
    if (bounded) config.low = low.data(), config.high = present(high, input_);
    lewm_planner* made = nullptr;
    const lewm_status status = lewm_planner_create(model_, &config, &made);
    judge(status);
    if (status != LEWM_OK) return;
    lewm_controller_destroy(controller_);  // its planner is its alone
    controller_ = nullptr;
    lewm_planner_destroy(planner_);
    planner_ = made;
    config_ = config;
    lewm_background_destroy(background_);
    background_ = nullptr;
    if (input_.byte() % 4 == 0) judge(lewm_background_create(model_, &config, &background_));
  }

  void create_workspace() {
    lewm_workspace_config config{};
    config.struct_size = sizeof config;
    config.problems = input_.number(kMostProblems);
    config.horizon = input_.number(kMostHorizon);
    config.threads.count = 1;
    lewm_workspace* made = nullptr;
    judge(lewm_workspace_create(model_, &config, &made));
    if (!made) return;
    lewm_workspace_destroy(workspace_);
    workspace_ = made;
  }

  void create_resizer() {
    width_ = input_.number(64);
    height_ = input_.number(64);
    format_ = static_cast<lewm_pixel_format>(input_.byte() % 6);
    lewm_resizer_destroy(resizer_);
    resizer_ = nullptr;
    judge(lewm_resizer_create(model_, width_, height_, format_, static_cast<lewm_fit>(input_.byte() % 4), &resizer_));
  }

  void create_controller() {
    if (!planner_) return;
    lewm_controller_config config{};
    config.struct_size = sizeof config;
    config.replan_every = input_.number(kMostHorizon);
    config.context = input_.number(info_.history);
    config.no_warm_start = input_.byte() & 1;
    config.deadline = input_.real();
    const std::vector<float> low = input_.reals(info_.action_dim), high = input_.reals(info_.action_dim);
    if (input_.flag()) config.low = low.data(), config.high = high.data();
    lewm_controller* made = nullptr;
    judge(lewm_controller_create(planner_, &config, &made));
    if (!made) return;
    lewm_controller_destroy(controller_);
    controller_ = made;
  }

  // A request and the arrays that it points to.
  struct Request {
    lewm_plan_request c{};
    std::vector<float> latents, past, goals, warm;
  };
  void fill(Request& request) {
    lewm_plan_request& c = request.c;
    c.struct_size = sizeof c;
    c.problems = input_.number(kMostProblems);
    c.context = input_.number(info_.history);
    const std::int64_t problems = std::clamp<std::int64_t>(c.problems, 1, kMostProblems);
    const std::int64_t context = std::clamp<std::int64_t>(c.context, 1, info_.history);
    c.warm_blocks = input_.number(kMostHorizon);
    const std::int64_t warm = std::clamp<std::int64_t>(c.warm_blocks, 0, kMostHorizon);
    request.latents = input_.reals(problems * context * info_.latent_dim);
    request.past = input_.reals(problems * (context - 1) * info_.block_dim);
    request.goals = input_.reals(problems * info_.latent_dim);
    request.warm = input_.reals(problems * warm * info_.block_dim);
    c.latents = present(request.latents, input_);
    c.past_actions = present(request.past, input_);
    c.goals = present(request.goals, input_);
    c.warm_start = input_.flag() ? request.warm.data() : nullptr;
    c.plan_index = input_.byte();
    c.deadline = input_.flag() ? static_cast<double>(input_.real()) : 0.0;
  }
  struct Result {
    lewm_plan_result c{};
    std::vector<float> actions, cost, elite_cost, std;
  };
  void fill(Result& result) {
    const auto problems = static_cast<std::size_t>(config_.problems);
    result.actions.resize(problems * static_cast<std::size_t>(config_.horizon * info_.block_dim));
    result.std.resize(result.actions.size());
    result.cost.resize(problems);
    result.elite_cost.resize(problems);
    result.c.struct_size = sizeof result.c;
    result.c.actions = result.actions.data();
    result.c.cost = result.cost.data();
    result.c.elite_cost = input_.flag() ? result.elite_cost.data() : nullptr;
    result.c.std = input_.flag() ? result.std.data() : nullptr;
  }

  void plan() {
    if (!planner_) return;
    Request request;
    Result result;
    fill(request);
    fill(result);
    if (input_.flag()) {
      const auto frames = input_.bytes(kMostProblems * info_.history * frame_bytes());
      const auto goals = input_.bytes(kMostProblems * frame_bytes());
      judge(lewm_plan_frames(planner_, present(frames, input_), present(goals, input_), &request.c, &result.c));
    } else {
      judge(lewm_plan(planner_, &request.c, &result.c));
    }
  }

  void planner_cost() {
    if (!planner_) return;
    Request request;
    fill(request);
    const std::int64_t samples = input_.number(kMostSamples);
    const std::int64_t n = kMostProblems * std::clamp<std::int64_t>(samples, 0, kMostSamples);
    const std::vector<float> actions = input_.reals(n * config_.horizon * info_.block_dim);
    std::vector<float> cost(static_cast<std::size_t>(n));
    judge(lewm_planner_cost(planner_, &request.c, actions.data(), samples, cost.data()));
  }

  void work() {
    if (!workspace_) return;
    lewm_history history{};
    history.struct_size = sizeof history;
    history.problems = input_.number(kMostProblems);
    history.context = input_.number(info_.history);
    const std::int64_t samples = input_.number(kMostSamples), horizon = input_.number(kMostHorizon);
    const std::int64_t n = kMostProblems * std::clamp<std::int64_t>(samples, 0, kMostSamples);
    const std::int64_t blocks = n * std::clamp<std::int64_t>(horizon, 0, kMostHorizon);
    const std::vector<float> latents = input_.reals(kMostProblems * info_.history * info_.latent_dim);
    const std::vector<float> past = input_.reals(kMostProblems * (info_.history - 1) * info_.block_dim);
    const std::vector<float> actions = input_.reals(blocks * info_.block_dim);
    history.latents = present(latents, input_);
    history.past_actions = present(past, input_);
    std::vector<float> out(static_cast<std::size_t>(blocks * info_.latent_dim));
    if (input_.flag()) {
      judge(lewm_rollout(workspace_, &history, actions.data(), samples, horizon, out.data()));
      return;
    }
    const std::vector<float> goals = input_.reals(kMostProblems * info_.latent_dim);
    std::vector<float> cost(static_cast<std::size_t>(n));
    judge(lewm_cost(workspace_, &history, goals.data(), actions.data(), samples, horizon, cost.data()));
    const std::int64_t frames = input_.byte() % 3;
    const auto pixels = input_.bytes(frames * frame_bytes());
    std::vector<float> encoded(static_cast<std::size_t>(frames * info_.latent_dim));
    judge(lewm_encode_u8(workspace_, pixels.data(), frames, encoded.data()));
    const std::vector<float> normalised = input_.reals(frames * frame_bytes());
    judge(lewm_encode_f32(workspace_, normalised.data(), frames, encoded.data()));
  }

  void resize() {
    if (!resizer_) return;
    const std::int64_t row = width_ * (format_ == LEWM_GREY ? 1 : format_ == LEWM_RGB || format_ == LEWM_BGR ? 3 : 4);
    const std::int64_t padding = input_.byte() % 8;
    const auto source = input_.bytes(height_ * (row + padding));
    std::vector<std::uint8_t> target(static_cast<std::size_t>(frame_bytes()));
    const bool upside_down = input_.flag();
    const std::uint8_t* top = source.data() + (upside_down ? (height_ - 1) * (row + padding) : 0);
    judge(lewm_resize(resizer_, top, upside_down ? -(row + padding) : row + padding, target.data()));
  }

  void set_goal() {
    if (!controller_) return;
    if (input_.flag()) {
      const std::vector<float> latent = input_.reals(info_.latent_dim);
      judge(lewm_controller_set_goal_latent(controller_, present(latent, input_)));
    } else {
      const auto goal = input_.bytes(frame_bytes());
      judge(lewm_controller_set_goal(controller_, present(goal, input_), 0));
    }
  }

  void act() {
    if (!controller_) return;
    std::vector<float> action(static_cast<std::size_t>(info_.action_dim));
    const auto frame = input_.bytes(frame_bytes());
    for (int i = 1 + input_.byte() % 8; i > 0; --i) {
      judge(lewm_controller_act(controller_, present(frame, input_), 0, action.data()));
    }
  }

  void ask_background() {
    if (!background_) return;
    Request request;
    fill(request);
    std::uint64_t ticket = 0;
    if (input_.flag()) {
      const auto frames = input_.bytes(kMostProblems * info_.history * frame_bytes());
      const auto goals = input_.bytes(kMostProblems * frame_bytes());
      judge(lewm_plan_async_frames(background_, present(frames, input_), goals.data(), &request.c, &ticket));
    } else {
      judge(lewm_plan_async(background_, &request.c, &ticket));
    }
  }

  void look() {
    if (background_) {
      Result result;
      fill(result);
      std::uint64_t ticket = 0;
      judge(lewm_latest(background_, &result.c, &ticket));
    }
    if (!controller_) return;
    lewm_controller_info info{};
    info.struct_size = sizeof info;
    judge(lewm_controller_get_info(controller_, &info));
    if (input_.byte() % 8 == 0) judge(lewm_controller_reset(controller_));
  }

  Input& input_;
  lewm_model* model_;
  lewm_model_info info_{};
  lewm_planner_config config_{};  // of the planner
  lewm_planner* planner_ = nullptr;
  lewm_workspace* workspace_ = nullptr;
  lewm_resizer* resizer_ = nullptr;
  lewm_background* background_ = nullptr;
  lewm_controller* controller_ = nullptr;
  std::int64_t width_ = 0, height_ = 0;
  lewm_pixel_format format_ = LEWM_RGB;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  Session session(input);
  while (!input.empty()) session.step();
  return 0;
}
