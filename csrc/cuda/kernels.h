// Every kernel source of a model has a function that brings its kernels to the current device (device.cuh,
// load_kernel).
#pragma once

namespace lewm::cuda {

void load_frame_kernels();
void load_full_attention_kernels();
void load_gemm_kernels();
void load_norm_kernels();
void load_refit_kernels();
void load_sample_kernels();
void load_tokens_kernels();
void load_window_attention_kernels();

inline void load_kernels() {
  load_frame_kernels();
  load_full_attention_kernels();
  load_gemm_kernels();
  load_norm_kernels();
  load_refit_kernels();
  load_sample_kernels();
  load_tokens_kernels();
  load_window_attention_kernels();
}

}  // namespace lewm::cuda
