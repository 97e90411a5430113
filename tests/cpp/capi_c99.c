/* capi_c99 MODEL: every part of the C interface once, from C. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lewm/lewm.h"

#define CALL(call)                                                                 \
  do {                                                                             \
    const lewm_status status_ = (call);                                            \
    if (status_ != LEWM_OK) {                                                      \
      printf("%s: %s: %s\n", #call, lewm_status_name(status_), lewm_last_error()); \
      exit(1);                                                                     \
    }                                                                              \
  } while (0)

#define EXPECT(condition)                                    \
  do {                                                       \
    if (!(condition)) {                                      \
      printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                               \
    }                                                        \
  } while (0)

static void log_line(void* context, const char* line) { *(int*)context += strstr(line, "weights") != NULL; }

int main(int argc, char** argv) {
  EXPECT(argc == 2);
  CALL(lewm_version_check(LEWM_VERSION_MAJOR, LEWM_VERSION_MINOR, LEWM_VERSION_PATCH));
  EXPECT(lewm_version_check(LEWM_VERSION_MAJOR + 1, 0, 0) == LEWM_UNSUPPORTED);

  int logged = 0;
  lewm_model_config model_config;
  memset(&model_config, 0, sizeof model_config);
  model_config.struct_size = sizeof model_config;
  model_config.precision = LEWM_PRECISION_FP32;
  model_config.log = log_line;
  model_config.log_context = &logged;
  lewm_model* model = NULL;
  CALL(lewm_model_open(argv[1], &model_config, &model));
  EXPECT(logged == 1);

  lewm_model_info info;
  info.struct_size = sizeof info;
  CALL(lewm_model_get_info(model, &info));
  EXPECT(info.block_dim == info.action_dim * info.frame_skip && info.precision == LEWM_PRECISION_FP32);
  const size_t frame_bytes = (size_t)(3 * info.image_size * info.image_size);

  uint8_t* frames = malloc(2 * frame_bytes);
  for (size_t i = 0; i < 2 * frame_bytes; ++i) frames[i] = (uint8_t)(i * 37 % 251);
  float* latents = malloc(2 * (size_t)info.latent_dim * sizeof(float));

  lewm_workspace* workspace = NULL;
  CALL(lewm_workspace_create(model, NULL, &workspace));
  CALL(lewm_encode_u8(workspace, frames, 2, latents));

  lewm_planner_config config;
  CALL(lewm_planner_config_init(&config, sizeof config, LEWM_CEM));
  config.samples = 32;
  config.elites = 4;
  config.iterations = 3;
  config.threads.count = 2;
  lewm_planner* planner = NULL;
  CALL(lewm_planner_create(model, &config, &planner));
  lewm_background* background = NULL;
  CALL(lewm_background_create(model, &config, &background));
  lewm_model_close(model); /* everything else keeps what it needs */

  const size_t elements = (size_t)(config.horizon * info.block_dim);
  float* actions = malloc(elements * sizeof(float));
  float* background_actions = malloc(elements * sizeof(float));
  float cost = -1, background_cost = -1, checked_cost = -1;
  lewm_plan_request request;
  memset(&request, 0, sizeof request);
  request.struct_size = sizeof request;
  request.latents = latents;
  request.goals = latents + info.latent_dim;
  lewm_plan_result result;
  memset(&result, 0, sizeof result);
  result.struct_size = sizeof result;
  result.actions = actions;
  result.cost = &cost;
  CALL(lewm_plan(planner, &request, &result));
  EXPECT(result.iterations == 3 && isfinite(cost));

  lewm_history history;
  memset(&history, 0, sizeof history);
  history.struct_size = sizeof history;
  history.latents = latents;
  CALL(lewm_cost(workspace, &history, request.goals, actions, 1, config.horizon, &checked_cost));
  EXPECT(checked_cost == cost);

  uint64_t submitted = 0, finished = 0;
  CALL(lewm_plan_async(background, &request, &submitted));
  result.actions = background_actions;
  result.cost = &background_cost;
  while (finished != submitted) CALL(lewm_latest(background, &result, &finished));
  EXPECT(memcmp(actions, background_actions, elements * sizeof(float)) == 0 && background_cost == cost);
  lewm_background_destroy(background);

  lewm_controller* controller = NULL;
  CALL(lewm_controller_create(planner, NULL, &controller));
  lewm_planner_destroy(planner);
  float* action = malloc((size_t)info.action_dim * sizeof(float));
  EXPECT(lewm_controller_act(controller, frames, 0, action) == LEWM_INVALID_ARGUMENT);
  EXPECT(strstr(lewm_last_error(), "goal") != NULL);
  CALL(lewm_controller_set_goal(controller, frames + frame_bytes, 0));
  CALL(lewm_controller_act(controller, frames, 0, action));
  EXPECT(isfinite(action[0]));

  lewm_controller_destroy(controller);
  lewm_workspace_destroy(workspace);
  free(action);
  free(background_actions);
  free(actions);
  free(latents);
  free(frames);
  printf("ok\n");
  return 0;
}
