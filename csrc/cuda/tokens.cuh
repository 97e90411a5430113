// What stands between the GEMMs: pixels to patches, tokens in their places, action blocks into the network.
#pragma once

#include "cuda/api.h"

namespace lewm::cuda {

// Rows of the patch embedding's GEMM: patches of `patch` x `patch` pixels, row by row of the image.
//   bytes [n, size, size, 3]: byte - 128 in (y, x, channel) order; floats [n, 3, size, size]: (channel, y, x) order.
struct GatherPatches {
  std::int64_t frames;  // n
  int size, patch;
  const std::uint8_t* bytes;  // or null
  const float* floats;
  std::uint16_t* rows;  // [n * patches, stride] bf16; elements beyond 3 * patch * patch of a row are set to zero
  int stride;
};

// x = CLS token, then patch + position of each patch.
struct AssembleTokens {
  std::int64_t frames;  // n
  int patches, d;
  const float* cls;        // [d]
  const float* positions;  // [patches, d]
  const float* embedded;   // [n * patches, d]
  float* x;                // [n, 1 + patches, d]
};

// SiLU(W a + b) of action blocks, in fp32 because actions lose most from rounding. Row step * count + i is block `step`
// of sequence i.
struct EncodeActions {
  int count, steps, block_dim, hidden;
  const float* actions;  // [count, steps, block_dim]
  const float* weight;   // [hidden, block_dim]
  const float* bias;     // [hidden]
  std::uint16_t* rows;   // [steps * count, stride] bf16; elements beyond `hidden` of a row are set to zero
  int stride;
};

// The fresh tokens of one step (model/rollout_schedule.h) for `count` sequences: row slot * count + i is sequence i's
// token of frame first_frame + slot. Sequence i belongs to problem (first + i) / samples.
struct OpenPass {
  int count, fresh, d;
  std::int64_t first, samples;
  int problems, history, context;
  int window;       // the first frame that the step sees
  int first_frame;  // of the fresh tokens
  int own;          // frames before it are shared by a problem's candidates
  int own_row;      // of the cache: frame f's keys of sequence i, f >= own, are row own_row + (f - own) * count + i
  int block_row;    // modulation of candidate block s of sequence i: row block_row + s * count + i; executed blocks
                    // come before: block f of problem b is row f * problems + b

  const float* context_latents;  // [problems, context, d]
  const float* predicted;        // [steps, count, d]: of frame context + step
  const float* positions;        // [history, d] to add, or null: they are added behind the input layer
  float* x;                      // [fresh * count, d], or null with an input layer:
  std::uint16_t* input;          // [fresh * count, input_stride] bf16
  int input_stride;
  std::int32_t* modulation_row;  // [fresh * count]
  std::int32_t* keys;            // [fresh * count], how many the token attends to
  std::int32_t* key_row;         // [fresh * count, history]
};

void launch_gather_patches(const GatherPatches& args, cudaStream_t stream);
void launch_assemble_tokens(const AssembleTokens& args, cudaStream_t stream);
void launch_encode_actions(const EncodeActions& args, cudaStream_t stream);
void launch_open_pass(const OpenPass& args, cudaStream_t stream);

}  // namespace lewm::cuda
