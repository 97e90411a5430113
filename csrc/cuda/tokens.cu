#include "cuda/device.cuh"
#include "cuda/tokens.cuh"

namespace lewm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsOfAThread = 8;      // of encode_actions_kernel
constexpr float kByteCentre = 128.0f;  // as in model/encoder_weights.h

__device__ __forceinline__ std::int64_t global_thread() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }

// A block a patch.
__global__ void __launch_bounds__(kThreads) gather_patches_kernel(const GatherPatches a) {
  const int per_row = a.size / a.patch, patches = per_row * per_row, values = 3 * a.patch * a.patch;
  const std::int64_t row = blockIdx.x, frame = row / patches;
  const int top = static_cast<int>(row % patches) / per_row * a.patch;
  const int left = static_cast<int>(row % per_row) * a.patch;
  for (int column = static_cast<int>(threadIdx.x); column < a.stride; column += kThreads) {
    float value = 0.0f;
    if (column < values && a.bytes) {
      const int y = top + column / (3 * a.patch), x = left + column / 3 % a.patch;
      value = static_cast<float>(a.bytes[((frame * a.size + y) * a.size + x) * 3 + column % 3]) - kByteCentre;
    } else if (column < values) {
      const int channel = column / (a.patch * a.patch);
      const int y = top + column / a.patch % a.patch, x = left + column % a.patch;
      value = a.floats[((frame * 3 + channel) * a.size + y) * a.size + x];
    }
    a.rows[row * a.stride + column] = float_to_bf16(value);
  }
}

__global__ void __launch_bounds__(kThreads) assemble_tokens_kernel(const AssembleTokens a) {
  const std::int64_t index = global_thread();
  if (index >= a.frames * (a.patches + 1) * a.d) return;
  const int d = static_cast<int>(index % a.d), token = static_cast<int>(index / a.d % (a.patches + 1));
  const std::int64_t frame = index / a.d / (a.patches + 1);
  const int patch = token - 1;
  a.x[index] = patch < 0
                   ? a.cls[d]
                   : a.embedded[(frame * a.patches + patch) * a.d + d] + a.positions[std::int64_t{patch} * a.d + d];
}

// A thread a unit of kRowsOfAThread rows.
__global__ void __launch_bounds__(kThreads) encode_actions_kernel(const EncodeActions a) {
  const int unit = static_cast<int>(blockIdx.y * kThreads + threadIdx.x), rows = a.steps * a.count;
  if (unit >= a.stride) return;
  const int first = static_cast<int>(blockIdx.x) * kRowsOfAThread;
  const bool inside = unit < a.hidden;
  const float* block[kRowsOfAThread];
  float value[kRowsOfAThread];
  LEWM_UNROLL
  for (int r = 0; r < kRowsOfAThread; ++r) {
    const int row = first + r < rows ? first + r : rows - 1;
    block[r] = a.actions + (std::int64_t{row % a.count} * a.steps + row / a.count) * a.block_dim;
    value[r] = inside ? a.bias[unit] : 0.0f;
  }
  for (int i = 0; inside && i < a.block_dim; ++i) {
    const float weight = a.weight[std::int64_t{unit} * a.block_dim + i];
    LEWM_UNROLL
    for (int r = 0; r < kRowsOfAThread; ++r) value[r] = fmaf(weight, block[r][i], value[r]);
  }
  LEWM_UNROLL
  for (int r = 0; r < kRowsOfAThread; ++r) {
    if (first + r >= rows) break;
    a.rows[std::int64_t{first + r} * a.stride + unit] = float_to_bf16(silu(value[r]));
  }
}

// A warp a token.
__global__ void __launch_bounds__(kThreads) open_pass_kernel(const OpenPass a) {
  const int row = static_cast<int>(global_thread() / kWarp), lane = static_cast<int>(threadIdx.x) % kWarp;
  if (row >= a.fresh * a.count) return;
  const int slot = row / a.count, sequence = row % a.count, frame = a.first_frame + slot;
  const int problem = static_cast<int>((a.first + sequence) / a.samples);
  const float* latent = frame < a.context ? a.context_latents + (std::int64_t{problem} * a.context + frame) * a.d
                                          : a.predicted + (std::int64_t{frame - a.context} * a.count + sequence) * a.d;
  if (a.x) {
    const float* position = a.positions + std::int64_t{frame - a.window} * a.d;
    for (int i = lane; i < a.d; i += kWarp) a.x[std::int64_t{row} * a.d + i] = latent[i] + position[i];
  } else {
    for (int i = lane; i < a.input_stride; i += kWarp)
      a.input[std::int64_t{row} * a.input_stride + i] = i < a.d ? float_to_bf16(latent[i]) : 0;
  }
  const int block = frame - (a.context - 1);  // negative: an executed one
  if (lane == 0) {
    a.modulation_row[row] = block < 0 ? frame * a.problems + problem : a.block_row + block * a.count + sequence;
    a.keys[row] = frame - a.window + 1;
  }
  for (int j = lane; j < frame - a.window + 1; j += kWarp) {
    const int key = a.window + j;
    const int shared_row = (a.window * (a.history - 1) + j) * a.problems + problem;
    a.key_row[row * a.history + j] = key < a.own ? shared_row : a.own_row + (key - a.own) * a.count + sequence;
  }
}

dim3 grid_for(std::int64_t threads) { return dim3(static_cast<unsigned>((threads + kThreads - 1) / kThreads)); }

}  // namespace

void load_tokens_kernels() {
  load_kernel(gather_patches_kernel);
  load_kernel(assemble_tokens_kernel);
  load_kernel(encode_actions_kernel);
  load_kernel(open_pass_kernel);
}

void launch_gather_patches(const GatherPatches& args, cudaStream_t stream) {
  const int per_row = args.size / args.patch;
  LEWM_LAUNCH(gather_patches_kernel, dim3(static_cast<unsigned>(args.frames * per_row * per_row)), dim3(kThreads), 0,
              stream, args);
}

void launch_assemble_tokens(const AssembleTokens& args, cudaStream_t stream) {
  LEWM_LAUNCH(assemble_tokens_kernel, grid_for(args.frames * (args.patches + 1) * args.d), dim3(kThreads), 0, stream,
              args);
}

void launch_encode_actions(const EncodeActions& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((args.steps * args.count + kRowsOfAThread - 1) / kRowsOfAThread),
                  static_cast<unsigned>((args.stride + kThreads - 1) / kThreads));
  LEWM_LAUNCH(encode_actions_kernel, grid, dim3(kThreads), 0, stream, args);
}

void launch_open_pass(const OpenPass& args, cudaStream_t stream) {
  LEWM_LAUNCH(open_pass_kernel, grid_for(std::int64_t{args.fresh} * args.count * kWarp), dim3(kThreads), 0, stream,
              args);
}

}  // namespace lewm::cuda
