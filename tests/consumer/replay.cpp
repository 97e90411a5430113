// replay MODEL EPISODE ACTIONS PRECISION: drives a controller with a recorded episode and writes its actions.
//   EPISODE: frames [1 + steps, image_size, image_size, 3] uint8, the goal first. ACTIONS: [steps, action_dim] float32.
//   PRECISION: auto, fp32, bf16 or int8.
// tests/python/test_recorded_episode.py does the same in Python and compares the bytes.
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <lewm/lewm.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

lewm_precision precision_of(const std::string& name) {
  const char* const names[] = {"auto", "fp32", "bf16", "int8"};
  for (int i = 0; i < 4; ++i) {
    if (name == names[i]) return static_cast<lewm_precision>(i);
  }
  throw std::runtime_error("precision: expected auto, fp32, bf16 or int8, got " + name);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 5) return std::fprintf(stderr, "usage: replay MODEL EPISODE ACTIONS PRECISION\n"), 2;
  const lewm::Model model(argv[1], precision_of(argv[4]));
  std::ifstream file(argv[2], std::ios::binary);
  const std::vector<char> text{std::istreambuf_iterator<char>(file), {}};
  const std::vector<std::uint8_t> episode(text.begin(), text.end());
  const std::size_t frame = model.frame_size();
  if (episode.size() < 2 * frame || episode.size() % frame) throw std::runtime_error("not an episode of this model");

  lewm_planner_config config = lewm::planner_config(LEWM_ICEM);
  config.samples = 24;
  config.elites = 4;
  config.iterations = 3;
  config.horizon = 4;
  config.seed = 7;
  const lewm::Planner planner(model, config);
  lewm_controller_config control = lewm::controller_config();
  control.replan_every = 2;
  control.context = 2;
  lewm::Controller controller(planner, control);

  controller.set_goal(episode.data());
  std::ofstream out(argv[3], std::ios::binary);
  for (std::size_t at = frame; at < episode.size(); at += frame) {
    const lewm::Span<const float> action = controller.act(episode.data() + at);
    out.write(reinterpret_cast<const char*>(action.data()),
              static_cast<std::streamsize>(action.size() * sizeof(float)));
  }
  return out.flush() ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
