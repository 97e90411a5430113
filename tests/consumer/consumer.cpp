// consumer_cpp MODEL: the same plan as consumer_c, through the C++17 header.
#include <cstdio>
#include <exception>
#include <lewm/lewm.hpp>
#include <vector>

int main(int argc, char** argv) try {
  if (argc != 2) return std::fprintf(stderr, "usage: consumer_cpp MODEL\n"), 2;
  lewm::check_version();
  const lewm::Model model(argv[1]);
  lewm_planner_config config = lewm::planner_config(LEWM_CEM);
  config.samples = 64;
  config.elites = 8;
  config.iterations = 4;
  lewm::Planner planner(model, config);
  const std::vector<std::uint8_t> frame(model.frame_size(), 128), goal(model.frame_size(), 255);
  const lewm::Plan& plan = planner.plan(frame, goal);
  std::printf("lewm %s, %s: cost %.9g\n", lewm_version(), model.info().isa, static_cast<double>(plan.cost));
  for (const float action : plan.actions) std::printf("%.9g\n", static_cast<double>(action));
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
