#include "cuda/device.cuh"
#include "cuda/frame.cuh"

namespace lewm::cuda {
namespace {

constexpr int kThreads = 256;

// A thread a target value: a column of vertical sums for every source column that it averages.
__global__ void __launch_bounds__(kThreads) resize_kernel(const Resize a) {
  const std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= a.frames * a.size * a.size * 3) return;
  const int colour = static_cast<int>(index % 3);
  const int x = static_cast<int>(index / 3 % a.size) - a.left;
  const int y = static_cast<int>(index / 3 / a.size % a.size) - a.top;
  if (x < 0 || x >= a.inner_width || y < 0 || y >= a.inner_height) {
    a.target[index] = 0;
    return;
  }
  const std::uint8_t* frame = a.source + index / 3 / a.size / a.size * a.height * a.width * a.channels;
  const int channel = a.channels == 1 ? 0 : a.reversed ? 2 - colour : colour;
  const std::int64_t row_bytes = std::int64_t{a.width} * a.channels;
  float sum = 0.0f;
  for (int j = 0; j < a.horizontal.count[x]; ++j) {
    const std::uint8_t* column = frame + (a.horizontal.first[x] + j) * a.channels + channel;
    float vertical = 0.0f;
    for (int i = 0; i < a.vertical.count[y]; ++i) {
      vertical += a.vertical.weight[y * a.vertical.taps + i] *
                  static_cast<float>(column[(a.vertical.first[y] + i) * row_bytes]);
    }
    sum += a.horizontal.weight[x * a.horizontal.taps + j] * vertical;
  }
  a.target[index] = static_cast<std::uint8_t>(fminf(fmaxf(sum + 0.5f, 0.0f), 255.0f));
}

}  // namespace

void load_frame_kernels() { load_kernel(resize_kernel); }

void launch_resize(const Resize& args, cudaStream_t stream) {
  const std::int64_t values = args.frames * args.size * args.size * 3;
  LEWM_LAUNCH(resize_kernel, dim3(static_cast<unsigned>((values + kThreads - 1) / kThreads)), dim3(kThreads), 0, stream,
              args);
}

}  // namespace lewm::cuda
