/* consumer_c MODEL: plans from a grey frame to a white one and prints the plan. */
#include <lewm/lewm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char* what) {
  fprintf(stderr, "%s: %s\n", what, lewm_last_error());
  return 1;
}

int main(int argc, char** argv) {
  if (argc != 2) return fprintf(stderr, "usage: consumer_c MODEL\n"), 2;
  lewm_model* model;
  if (lewm_model_open(argv[1], NULL, &model)) return fail("open");
  lewm_model_info info;
  info.struct_size = sizeof info;
  if (lewm_model_get_info(model, &info)) return fail("info");

  lewm_planner_config config;
  if (lewm_planner_config_init(&config, sizeof config, LEWM_CEM)) return fail("config");
  config.samples = 64;
  config.elites = 8;
  config.iterations = 4;
  lewm_planner* planner;
  if (lewm_planner_create(model, &config, &planner)) return fail("planner");

  const size_t bytes = (size_t)(3 * info.image_size * info.image_size);
  uint8_t* frame = malloc(bytes);
  uint8_t* goal = malloc(bytes);
  float* actions = malloc((size_t)(config.horizon * info.block_dim) * sizeof(float));
  if (!frame || !goal || !actions) return fputs("out of memory\n", stderr), 1;
  memset(frame, 128, bytes);
  memset(goal, 255, bytes);

  float cost;
  const lewm_plan_request request = {.struct_size = sizeof request};
  lewm_plan_result result = {.struct_size = sizeof result, .actions = actions, .cost = &cost};
  if (lewm_plan_frames(planner, frame, goal, &request, &result)) return fail("plan");
  printf("lewm %s, %s: cost %.9g\n", lewm_version(), info.isa, cost);
  for (int64_t i = 0; i < config.horizon * info.block_dim; ++i) printf("%.9g\n", actions[i]);

  free(actions);
  free(goal);
  free(frame);
  lewm_planner_destroy(planner);
  lewm_model_close(model);
  return 0;
}
