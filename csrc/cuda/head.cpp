#include "cuda/head.h"

#include "cuda/norm.cuh"

namespace lewm::cuda {
namespace {

constexpr float kHiddenEps = 1e-5f;

}  // namespace

HeadWorkspace::HeadWorkspace(const Head& head, std::int64_t rows)
    : head_(head),
      normed_(head.first ? rows * padded(head.in) : 0),
      hidden_(head.second ? rows * padded(head.second.k) : 0),
      staging_(head.hidden_gamma ? rows * head.second.k : 0) {}

void HeadWorkspace::run(const float* x, std::int64_t x_stride, std::int64_t rows, float* y, std::int64_t y_stride,
                        cudaStream_t stream) {
  LayerNorm norm{x, x_stride, static_cast<int>(rows), head_.in, head_.eps, head_.gamma, head_.beta, nullptr, 0};
  if (!head_.first) {
    norm.y_float = y;
    norm.y_stride = y_stride;
    launch_layer_norm(norm, stream);
    return;
  }
  norm.y = normed_.get();
  norm.y_stride = padded(head_.in);
  launch_layer_norm(norm, stream);
  if (!head_.second) {
    run_linear(head_.first, normed_.get(), norm.y_stride, rows, {}, y, y_stride, stream);
    return;
  }
  const int hidden = head_.second.k;
  if (head_.hidden_gamma) {
    run_linear(head_.first, normed_.get(), norm.y_stride, rows, {}, staging_.get(), hidden, stream);
    LayerNorm second{staging_.get(),    hidden,        norm.rows,     hidden, kHiddenEps, head_.hidden_gamma,
                     head_.hidden_beta, hidden_.get(), padded(hidden)};
    second.gelu = true;
    launch_layer_norm(second, stream);
  } else {
    GemmEpilogue gelu;
    gelu.activation = Activation::gelu;
    gelu.store_bf16 = true;
    run_linear(head_.first, normed_.get(), norm.y_stride, rows, gelu, hidden_.get(), padded(hidden), stream);
  }
  run_linear(head_.second, hidden_.get(), padded(hidden), rows, {}, y, y_stride, stream);
}

}  // namespace lewm::cuda
