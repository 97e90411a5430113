// Frames -> latents: the ViT encoder and its projector.
#pragma once

#include <cstdint>
#include <memory>

#include "core/thread_pool.h"
#include "model/model.h"

namespace lewm {

// A workspace over a shared model. Construction allocates; encode does not allocate or throw on valid input. One thread
// at a time.
class Encoder {
 public:
  Encoder(std::shared_ptr<const Model> model, ThreadPool& pool);
  ~Encoder();

  // frames: [n, image_size, image_size, 3] uint8 RGB -> latents: [n, D]
  void encode(const std::uint8_t* frames, std::int64_t n, float* latents);
  // frames: [n, 3, image_size, image_size] float, already normalised with the model's preprocessing.
  void encode(const float* frames, std::int64_t n, float* latents);

 private:
  struct Workspace;
  std::shared_ptr<const Model> model_;
  ThreadPool& pool_;
  std::unique_ptr<Workspace> workspace_;
};

// Floating-point operations of the products that encoding a frame costs, counting a multiply-add as two. In the last
// layer only CLS has a query, an output and an MLP.
std::int64_t encode_flops(const Config& config);

}  // namespace lewm
