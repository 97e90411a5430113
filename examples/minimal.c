/* From a frame and a goal to actions, in C.
 *   cc minimal.c $(pkg-config --cflags --libs lewm) -o minimal && ./minimal model.safetensors */
#include <lewm/lewm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) \
  if (call) return fprintf(stderr, "%s\n", lewm_last_error()), 1

int main(int argc, char** argv) {
  if (argc != 2) return fprintf(stderr, "usage: %s model.safetensors\n", argv[0]), 2;
  lewm_model* model;
  lewm_planner* planner;
  lewm_controller* controller;
  lewm_model_info info = {.struct_size = sizeof info};
  lewm_planner_config config;

  TRY(lewm_model_open(argv[1], NULL, &model));
  TRY(lewm_model_get_info(model, &info));
  TRY(lewm_planner_config_init(&config, sizeof config, LEWM_CEM));
  TRY(lewm_planner_create(model, &config, &planner));
  TRY(lewm_controller_create(planner, NULL, &controller));

  size_t bytes = 3 * info.image_size * info.image_size;
  uint8_t* frame = memset(malloc(bytes), 64, bytes); /* put the camera's picture here */
  uint8_t* goal = memset(malloc(bytes), 192, bytes);
  float* action = malloc(info.action_dim * sizeof *action);
  TRY(lewm_controller_set_goal(controller, goal, 0));
  for (int step = 0; step < 10; ++step) {
    TRY(lewm_controller_act(controller, frame, 0, action));
    for (int64_t i = 0; i < info.action_dim; ++i) printf("%g ", action[i]);
    printf("\n");
  }
  free(action), free(goal), free(frame);
  lewm_controller_destroy(controller);
  lewm_planner_destroy(planner);
  lewm_model_close(model);
  return 0;
}
