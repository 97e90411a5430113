/* lewm: world-model inference and planning. The C interface (C99).
 *
 * Sections: version, errors, model, workspace (encode, rollout, cost), frames, planner, background planner, controller.
 *
 * Conventions, unless a function says otherwise:
 *   - Handles are opaque and typed. *_open and *_create allocate; *_close and *_destroy free, and accept null. Nothing
 *     else allocates or locks, except that a call which is refused may allocate its message. An object keeps alive
 *     what it was created from: destroy in any order, each object once, while no call on it is running.
 *   - A function that can fail returns lewm_status. When that is not LEWM_OK, lewm_last_error() says why, naming the
 *     argument, what was expected and what came; outputs are then unspecified and the handle is as it was.
 *   - No pointer may be null unless "may be null" is said. Arrays belong to the caller and are not kept after the call.
 *   - Different handles may be used by different threads at once, over one model too; one handle by one thread at a
 *     time. What only reads a model is for any thread at any time.
 *   - There is no global state, and no exception leaves the library. Its own threads have all signals blocked.
 *   - Calls need 256 KiB of the calling thread's stack.
 *   - After fork() the child may use and destroy the handles on which no call was running: they then work on the
 *     calling thread alone, and a background planner only answers with what was finished before.
 *   - Functions of the caller (log, cost) must return: no exception, no longjmp. They must not use the handle that
 *     calls them.
 *   - Structs begin with struct_size, set by the caller to the struct's sizeof (or by its *_init function); zero all
 *     other fields that are not set. The size tells the library which version of the struct the caller knows: a library
 *     refuses fields that it does not know, unless they are zero.
 *
 * Letters in shapes: B problems, C context frames, S candidates, H blocks of a horizon, A numbers in a block
 * (action_dim * frame_skip), D numbers in a latent. Arrays are dense and row-major. Actions are standardised as the
 * model was trained on them, except for those that a controller hands out. Times are in seconds.
 *
 * On a GPU (a model opened with LEWM_DEVICE_CUDA): arrays of workspaces, of lewm_plan, lewm_plan_frames and
 * lewm_planner_cost may lie in that GPU's memory, where they are read and written in place and not checked for numbers
 * that are not finite. Calls return when their results are there, except for those of a workspace that has a stream
 * and arrays in the GPU's memory alone: they return when the work is enqueued on the stream. Without a stream the work
 * is ordered with nobody else's: what it reads must be there. Everything else takes arrays in host memory.
 */
#ifndef LEWM_LEWM_H
#define LEWM_LEWM_H

#include <stddef.h>
#include <stdint.h>

#if defined(LEWM_BUILDING) && defined(__GNUC__)
#define LEWM_API __attribute__((visibility("default")))
#else
#define LEWM_API
#endif

/* After an enum's name: in C it holds any int, and so it shall in C++. */
#ifdef __cplusplus
#define LEWM_INT : int
#else
#define LEWM_INT
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Errors
 * ------------------------------------------------------------------------------------------------------------------ */

typedef enum lewm_status LEWM_INT {
  LEWM_OK = 0,
  LEWM_INVALID_ARGUMENT = 1, /* the caller can mend it; the message names the argument */
  LEWM_FILE_NOT_FOUND = 2,
  LEWM_BAD_FILE = 3,       /* truncated, lying about its contents, or of another kind */
  LEWM_UNSUPPORTED = 4,    /* valid, but this build, machine or model cannot serve it */
  LEWM_OUT_OF_MEMORY = 5,  /* memory or threads; everything was given back */
  LEWM_NO_FINITE_COST = 6, /* fewer candidates with a finite cost than elites */
  LEWM_INTERNAL = 7        /* a bug in the library: please report it */
} lewm_status;

/* Why this thread's last failed call failed; "" before the first. Valid until this thread's next failed call. */
LEWM_API const char* lewm_last_error(void);

/* "ok", "invalid_argument", ... ; "unknown" for other numbers. Static. */
LEWM_API const char* lewm_status_name(lewm_status status);

/* ------------------------------------------------------------------------------------------------------------------
 * Version
 * ------------------------------------------------------------------------------------------------------------------ */

#define LEWM_VERSION_MAJOR 0
#define LEWM_VERSION_MINOR 1
#define LEWM_VERSION_PATCH 0

/* "major.minor.patch" of the library. Static. */
LEWM_API const char* lewm_version(void);

/* Call it as lewm_version_check(LEWM_VERSION_MAJOR, LEWM_VERSION_MINOR, LEWM_VERSION_PATCH). LEWM_OK when a program
 * compiled with that header can use this library: the same major version, the same minor version while major is 0, and
 * not newer than the library; else LEWM_UNSUPPORTED. */
LEWM_API lewm_status lewm_version_check(int major, int minor, int patch);

/* ------------------------------------------------------------------------------------------------------------------
 * Model: read-only weights, shared by everything that is created over it
 * ------------------------------------------------------------------------------------------------------------------ */

typedef struct lewm_model lewm_model;

typedef enum lewm_precision LEWM_INT {
  LEWM_PRECISION_AUTO = 0, /* the fastest that keeps predicted latents within a cosine of 0.999 of fp32's */
  LEWM_PRECISION_FP32 = 1,
  LEWM_PRECISION_BF16 = 2, /* or 10 to 12 bits, scaled by row, where the CPU multiplies these faster */
  LEWM_PRECISION_INT8 = 3
} lewm_precision;

typedef enum lewm_device LEWM_INT {
  LEWM_DEVICE_CPU = 0,
  LEWM_DEVICE_CUDA = 1 /* an NVIDIA GPU: needs the CUDA module beside the library, and a driver */
} lewm_device;

/* How many devices of a kind there are; 1 for the CPU. Fails with LEWM_UNSUPPORTED where the kind cannot be used; the
 * message says why and what to do. Any thread. */
LEWM_API lewm_status lewm_device_count(lewm_device device, int32_t* count);

/* Receives one line of text, without newline, valid during the call: what was opened and chosen (on the thread that
 * opens) and why a plan failed in the background (on that planner's thread, so other threads may be calling too). */
typedef void (*lewm_log_function)(void* context, const char* line);

typedef struct lewm_model_config {
  size_t struct_size;
  lewm_precision precision;
  lewm_log_function log; /* may be null: no log. Used until the last of what was created over the model is destroyed. */
  void* log_context;     /* handed to log; may be null */
  lewm_device device;    /* what encodes, rolls out and plans. CUDA: in bf16; precision is AUTO or BF16 */
  int32_t device_index;  /* which GPU; not read for the CPU */
  /* Of the encoder. AUTO: fp32, since trained models scale small differences between frames up, and with them what
   * lower precision rounds away. CUDA: AUTO or BF16. */
  lewm_precision encoder_precision;
} lewm_model_config;

typedef struct lewm_model_info {
  size_t struct_size;
  int64_t image_size;       /* of the square input, pixels */
  int64_t latent_dim;       /* D */
  int64_t action_dim;       /* of one environment step */
  int64_t frame_skip;       /* environment steps in a block */
  int64_t block_dim;        /* A */
  int64_t history;          /* most context frames */
  lewm_precision precision; /* the one in use, never AUTO */
  const char* isa;          /* instruction set in use: "scalar", "avx2", "avx512", "amx", "neon". Static. */
  uint64_t weight_bytes;    /* memory of the packed weights */
  lewm_device device;
  int32_t device_index; /* 0 for the CPU */
} lewm_model_info;

/* Opens a deployment file (.safetensors, written by lewm.save or lewm.convert). config: may be null, all defaults. The
 * file is not needed after the call. Fails on a missing, truncated or foreign file, on one that is written to while the
 * call runs (to replace a model, rename a new file over it, as lewm.save does), on a disk that fails, and on a
 * precision or device that this machine does not have; never with a signal. Environment: LEWM_ISA forces an instruction
 * set. */
LEWM_API lewm_status lewm_model_open(const char* path, const lewm_model_config* config, lewm_model** model);
/* May be null. What was created over the model lives on. */
LEWM_API void lewm_model_close(lewm_model* model);

/* Fills info; info->struct_size is the caller's. Any thread at any time. */
LEWM_API lewm_status lewm_model_get_info(const lewm_model* model, lewm_model_info* info);

/* Standardised = (action - mean) / std. mean, std: [action_dim], 0 and 1 where the file has none. Any thread. */
LEWM_API lewm_status lewm_model_get_action_scaling(const lewm_model* model, float* mean, float* std);

/* ------------------------------------------------------------------------------------------------------------------
 * Threads of a handle
 * ------------------------------------------------------------------------------------------------------------------ */

/* The threads that share a call's work: count - 1 that the handle starts, and the one that calls, whose own priority
 * and cores are left alone (of a background planner they are all its own). All zeros: every core, placed as the thread
 * that creates. Placing fails with LEWM_UNSUPPORTED where the system refuses it (SCHED_FIFO needs CAP_SYS_NICE or an
 * RLIMIT_RTPRIO; a core must exist). */
typedef struct lewm_threads {
  int32_t count;     /* 1..1024; 0: one per core that may be used */
  int32_t priority;  /* 1..99: SCHED_FIFO at that priority; 0: as the creating thread */
  uint64_t cpu_mask; /* bit i: core i (of the first 64) may be used; 0: as the creating thread */
} lewm_threads;

/* ------------------------------------------------------------------------------------------------------------------
 * Workspace: the model's functions one by one
 * ------------------------------------------------------------------------------------------------------------------ */

typedef struct lewm_workspace lewm_workspace;

typedef struct lewm_workspace_config {
  size_t struct_size;
  int64_t problems; /* most B of a call; 0: 1 */
  int64_t horizon;  /* most H of a call; 0: 5 */
  lewm_threads threads;
} lewm_workspace_config;

/* What has been seen and done of B problems. */
typedef struct lewm_history {
  size_t struct_size;
  int64_t problems;          /* B; 0: 1 */
  int64_t context;           /* C, 1..history; 0: 1 */
  const float* latents;      /* [B, C, D], oldest first */
  const float* past_actions; /* [B, C - 1, A]: block i was executed from frame i. May be null when C is 1. */
} lewm_history;

/* config: may be null, all defaults. Starts threads.count - 1 threads. */
LEWM_API lewm_status lewm_workspace_create(const lewm_model* model, const lewm_workspace_config* config,
                                           lewm_workspace** workspace);
LEWM_API void lewm_workspace_destroy(lewm_workspace* workspace);

/* frames: [n, image_size, image_size, 3] uint8 RGB -> latents: [n, D]. With n = 0 both may be null. */
LEWM_API lewm_status lewm_encode_u8(lewm_workspace* workspace, const uint8_t* frames, int64_t n, float* latents);
/* frames: [n, 3, image_size, image_size], (pixel / 255 - mean) / std with the model's preprocessing -> latents: [n, D].
 * A frame with numbers that are not finite spoils its own latent (NaN), no other. */
LEWM_API lewm_status lewm_encode_f32(lewm_workspace* workspace, const float* frames, int64_t n, float* latents);

/* On a GPU: what this workspace's calls from now on are ordered on, a cudaStream_t of that GPU; null: a stream of its
 * own. Fails for a stream of a model on the CPU. */
LEWM_API lewm_status lewm_workspace_set_stream(lewm_workspace* workspace, void* stream);

/* actions: [B, S, H, A] -> latents: [B, S, H, D], the predicted ones. Fails on numbers that are not finite. */
LEWM_API lewm_status lewm_rollout(lewm_workspace* workspace, const lewm_history* history, const float* actions,
                                  int64_t samples, int64_t horizon, float* latents);

/* goals: [B, D], actions: [B, S, H, A] -> cost: [B, S], the squared distance of the last predicted latent to the goal,
 * summed over D. Fails on numbers that are not finite. */
LEWM_API lewm_status lewm_cost(lewm_workspace* workspace, const lewm_history* history, const float* goals,
                               const float* actions, int64_t samples, int64_t horizon, float* cost);

/* ------------------------------------------------------------------------------------------------------------------
 * Frames: what a camera gives -> the square RGB image that the model reads
 * ------------------------------------------------------------------------------------------------------------------ */

typedef enum lewm_pixel_format LEWM_INT {
  LEWM_RGB = 0,
  LEWM_BGR = 1,
  LEWM_RGBA = 2, /* alpha is ignored */
  LEWM_BGRA = 3,
  LEWM_GREY = 4
} lewm_pixel_format;

typedef enum lewm_fit LEWM_INT {
  LEWM_STRETCH = 0,  /* the whole frame, its aspect ratio not kept */
  LEWM_CROP = 1,     /* the largest centred square */
  LEWM_LETTERBOX = 2 /* the whole frame, its aspect ratio kept, black bars */
} lewm_fit;

typedef struct lewm_resizer lewm_resizer;

/* For frames of width x height pixels, each 1..32768, to the model's image_size: bilinear with antialiasing, as
 * torchvision's resize with antialias=True within one grey level. */
LEWM_API lewm_status lewm_resizer_create(const lewm_model* model, int64_t width, int64_t height,
                                         lewm_pixel_format format, lewm_fit fit, lewm_resizer** resizer);
LEWM_API void lewm_resizer_destroy(lewm_resizer* resizer);

/* source: height rows, row_stride bytes apart (0: dense; negative: source points to the top row of a bottom-up image).
 * target: [image_size, image_size, 3] uint8 RGB; must not overlap source. */
LEWM_API lewm_status lewm_resize(lewm_resizer* resizer, const uint8_t* source, ptrdiff_t row_stride, uint8_t* target);

/* Resizes and encodes, on a GPU both there. frames: [n, height, width, channels] as the resizer's, dense -> latents:
 * [n, D]. With n = 0 both may be null. The resizer is one of the workspace's model, and this thread's alone during the
 * call. */
LEWM_API lewm_status lewm_encode_frames(lewm_workspace* workspace, lewm_resizer* resizer, const uint8_t* frames,
                                        int64_t n, float* latents);

/* ------------------------------------------------------------------------------------------------------------------
 * Planner
 * ------------------------------------------------------------------------------------------------------------------ */

typedef struct lewm_planner lewm_planner;

typedef enum lewm_method LEWM_INT {
  LEWM_CEM = 0,
  LEWM_ICEM = 1,
  LEWM_MPPI = 2,
  LEWM_PREDICTIVE_SAMPLING = 3
} lewm_method;

typedef enum lewm_cost_mode LEWM_INT {
  LEWM_COST_FINAL = 0,     /* |z_H - goal|^2 */
  LEWM_COST_SUM = 1,       /* sum over the blocks h of |z_h - goal|^2 */
  LEWM_COST_DISCOUNTED = 2 /* the same with weights discount^(h - 1), h from 1 */
} lewm_cost_mode;

/* What a cost function of the caller sees: n candidates of one problem. */
typedef struct lewm_cost_arguments {
  size_t struct_size;   /* the library's */
  int64_t problem;      /* index in the batch */
  int64_t n;            /* candidates */
  int64_t horizon;      /* H */
  int64_t latent_dim;   /* D */
  int64_t block_dim;    /* A */
  const float* latents; /* [n, H, D], predicted */
  const float* actions; /* [n, H, A] */
  const float* goal;    /* [D] */
} lewm_cost_arguments;

/* Writes cost[n], smaller is better; NaN or infinity: never to be chosen. Return 0; anything else abandons the plan,
 * which then fails with LEWM_INVALID_ARGUMENT. Called from all of the planner's threads at once. */
typedef int (*lewm_cost_function)(void* context, const lewm_cost_arguments* arguments, float* cost);

typedef struct lewm_planner_config {
  size_t struct_size;
  lewm_method method;
  int64_t samples;    /* candidates of an iteration */
  int64_t elites;     /* mppi: 0 weighs all finite candidates; not used by predictive sampling */
  int64_t iterations; /* 1..65535 */
  int64_t horizon;    /* H */
  int64_t problems;   /* most B of a plan */
  uint64_t seed;

  /* Candidates are clipped to [low, high], standardised. Each null (no bound) or [bound_dim] finite numbers or the
   * infinity that bounds nothing; bound_dim: action_dim or block_dim. Copied. */
  const float* low;
  const float* high;
  int64_t bound_dim;

  float std_init;       /* of the noise before the first iteration */
  float std_min;        /* floor of the refitted std (cem, icem) */
  float momentum;       /* share of the old mean and std that a refit keeps (cem, icem), 0 <= momentum < 1 */
  int32_t return_best;  /* not 0: the best candidate of the last iteration instead of its mean (cem, icem) */
  float noise_exponent; /* icem: the noise has power spectrum 1 / f^exponent over the horizon */
  int64_t kept_elites;  /* icem: elites that are candidates of the next iteration again; more than elites: all */
  float temperature;    /* mppi: weights softmax(-cost / temperature) */

  lewm_cost_mode cost_mode;
  float discount;
  float action_penalty;    /* times the sum of a candidate's squared actions, added to the cost */
  lewm_cost_function cost; /* may be null; replaces cost_mode */
  void* cost_context;      /* may be null */

  lewm_threads threads;

  int64_t action_hold; /* environment steps that share a draw of noise within a block; divides its steps. 0: 1 */
} lewm_planner_config;

/* The published settings of a method; threads: all available. struct_size: sizeof(lewm_planner_config). */
LEWM_API lewm_status lewm_planner_config_init(lewm_planner_config* config, size_t struct_size, lewm_method method);

/* B problems to plan for. Equal requests give equal plans, byte for byte, whatever the thread count and whichever other
 * problems are in the batch (as long as no deadline cuts them short). */
typedef struct lewm_plan_request {
  size_t struct_size;
  int64_t problems;            /* B; 0: 1 */
  int64_t context;             /* C, 1..history; 0: 1 */
  const float* latents;        /* [B, C, D], oldest first; not read by *_frames */
  const float* past_actions;   /* [B, C - 1, A]. May be null when C is 1. */
  const float* goals;          /* [B, D]; not read by *_frames */
  const float* warm_start;     /* [B, warm_blocks, A], the mean to start from, zero beyond. May be null: zeros. */
  int64_t warm_blocks;         /* 0..H; not read without warm_start */
  const uint32_t* problem_ids; /* [B]: problems with equal ids draw equal noise. May be null: all 0. */
  uint32_t plan_index;         /* other indices draw other noise: count the plans of an episode here */
  double deadline;             /* seconds from the call (encoding counts); 0: none */
} lewm_plan_request;

typedef struct lewm_plan_result {
  size_t struct_size;
  float* actions;     /* [B, H, A], written */
  float* cost;        /* [B], written: the model's cost of actions */
  float* elite_cost;  /* [B], written: mean cost of the last elites. May be null. */
  float* std;         /* [B, H, A], written: std after the last iteration. May be null. */
  int64_t iterations; /* written: how many were completed */
  double elapsed;     /* written: seconds */
} lewm_plan_result;

/* Starts threads.count - 1 threads. Fails on a config out of range, naming the field. */
LEWM_API lewm_status lewm_planner_create(const lewm_model* model, const lewm_planner_config* config,
                                         lewm_planner** planner);
LEWM_API void lewm_planner_destroy(lewm_planner* planner);

/* As lewm_workspace_set_stream, for this planner's calls. */
LEWM_API lewm_status lewm_planner_set_stream(lewm_planner* planner, void* stream);

/* Fails on numbers that are not finite, and with LEWM_NO_FINITE_COST when fewer candidates of a problem than elites
 * have a finite cost. Where the mean has none, the last iteration's best candidate is the plan (on a GPU the call
 * fails so). With a deadline it returns no worse than the warm start, however short the time, and is late by one tile
 * of candidates at most (on a GPU: by one iteration); what cannot be cut is encoding the frames and evaluating each
 * problem's start once. */
LEWM_API lewm_status lewm_plan(lewm_planner* planner, const lewm_plan_request* request, lewm_plan_result* result);
/* The same from pixels. frames: [B, C, image_size, image_size, 3] uint8 RGB; goals: [B, image_size, image_size, 3].
 * Goals that are those of the call before are not encoded again. */
LEWM_API lewm_status lewm_plan_frames(lewm_planner* planner, const uint8_t* frames, const uint8_t* goals,
                                      const lewm_plan_request* request, lewm_plan_result* result);

/* Cost of given candidates under the planner's cost. actions: [B, S, H, A] -> cost: [B, S]. The request's warm start,
 * ids and deadline are not looked at. */
LEWM_API lewm_status lewm_planner_cost(lewm_planner* planner, const lewm_plan_request* request, const float* actions,
                                       int64_t samples, float* cost);

/* ------------------------------------------------------------------------------------------------------------------
 * Background planner: plans on a thread of its own while the control loop executes the last finished plan
 * ------------------------------------------------------------------------------------------------------------------ */

typedef struct lewm_background lewm_background;

/* Starts the planning thread and the threads that share its work, all placed by config->threads. */
LEWM_API lewm_status lewm_background_create(const lewm_model* model, const lewm_planner_config* config,
                                            lewm_background** background);
/* Waits for the plan that is being made. May be null. */
LEWM_API void lewm_background_destroy(lewm_background* background);

/* Hands a request over, copying what it points to, and returns at once: no wait, lock or allocation. A request that has
 * not begun when the next one comes is dropped for it. The deadline counts from when the plan begins. *ticket: the
 * request's number, from 1; may be null. One thread at a time, which need not be the one of lewm_latest. */
LEWM_API lewm_status lewm_plan_async(lewm_background* background, const lewm_plan_request* request, uint64_t* ticket);
/* frames, goals: as lewm_plan_frames. */
LEWM_API lewm_status lewm_plan_async_frames(lewm_background* background, const uint8_t* frames, const uint8_t* goals,
                                            const lewm_plan_request* request, uint64_t* ticket);

/* Copies the newest finished plan and returns at once. *ticket: the number of its request, 0 while there is none
 * (result is then not touched). Fails when that plan failed, with its status and message. elite_cost and std are not
 * written. actions and cost must hold the planner's most problems. */
LEWM_API lewm_status lewm_latest(lewm_background* background, lewm_plan_result* result, uint64_t* ticket);

/* ------------------------------------------------------------------------------------------------------------------
 * Controller: frames in, environment actions out (model-predictive control)
 * ------------------------------------------------------------------------------------------------------------------ */

typedef struct lewm_controller lewm_controller;

typedef struct lewm_controller_config {
  size_t struct_size;
  int64_t replan_every;  /* blocks executed before the next plan, 1..H; 0: the whole horizon */
  int64_t context;       /* frames that a plan sees, 1..history; 0: 1 */
  int32_t no_warm_start; /* not 0: every plan starts from zeros, not from the shifted rest of the last one */
  double deadline;       /* seconds of an act() that plans, encoding included; 0: none */
  const float* low; /* [action_dim], bounds of what is handed out, in the environment's units. Null: none. Copied. */
  const float* high;
  /* What frames and goals look like; all zeros: [image_size, image_size, 3] RGB, the model's own. */
  int64_t frame_width, frame_height; /* pixels, each 1..32768; both 0: image_size */
  lewm_pixel_format frame_format;
  lewm_fit frame_fit;
} lewm_controller_config;

typedef struct lewm_controller_info {
  size_t struct_size;
  int64_t plans;        /* made since creation or reset */
  int32_t needs_plan;   /* 1: the next act() plans */
  int32_t needs_frame;  /* 1: the next act() looks at its frame */
  const float* actions; /* [H, A], the plan being executed; null before the first. Valid until the next act or reset. */
  float cost;           /* of that plan */
  int64_t iterations;   /* of that plan */
  double elapsed;       /* seconds of that plan, encoding included */
} lewm_controller_info;

/* Plans with `planner` (of one problem or more; one is used): for threads, the planner and all controllers over it are
 * one handle. config: may be null, all defaults. */
LEWM_API lewm_status lewm_controller_create(lewm_planner* planner, const lewm_controller_config* config,
                                            lewm_controller** controller);
LEWM_API void lewm_controller_destroy(lewm_controller* controller);

/* Forgets everything, the goal too: what follows is what a new controller does, byte for byte. */
LEWM_API lewm_status lewm_controller_reset(lewm_controller* controller);

/* pixels: rows of the config's frames, row_stride bytes apart (0: dense). Encoded only when they differ from the last
 * goal's. Takes effect at the next plan. */
LEWM_API lewm_status lewm_controller_set_goal(lewm_controller* controller, const uint8_t* pixels, ptrdiff_t row_stride);
/* latent: [D]. */
LEWM_API lewm_status lewm_controller_set_goal_latent(lewm_controller* controller, const float* latent);

/* One environment step. pixels: as set_goal; may be null when needs_frame is 0. action: [action_dim], in the
 * environment's units, clipped to the bounds. Fails before a goal is set; after a failure the call can be repeated. */
LEWM_API lewm_status lewm_controller_act(lewm_controller* controller, const uint8_t* pixels, ptrdiff_t row_stride,
                                         float* action);

/* Fills info; info->struct_size is the caller's. */
LEWM_API lewm_status lewm_controller_get_info(const lewm_controller* controller, lewm_controller_info* info);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LEWM_LEWM_H */
