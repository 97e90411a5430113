// Patches, tokens, action blocks and frames of the CUDA backend, on the host run.
#include <algorithm>
#include <random>
#include <vector>

#include "arrays.h"
#include "check.h"
#include "cuda/device.cuh"
#include "cuda/frame.cuh"
#include "cuda/tokens.cuh"
#include "model/frame.h"
#include "model/rollout_schedule.h"

using namespace lewm::cuda;
using namespace cuda_test;

namespace {

Bytes random_bytes(std::int64_t count) {
  std::mt19937 random(7);
  Bytes bytes(size(count));
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random() >> 11);
  return bytes;
}

// Every pixel of every patch, in both layouts.
void check_patches(int frames, int side, int patch) {
  const int per_row = side / patch, values = 3 * patch * patch, stride = (values + 7) / 8 * 8;
  const Bytes bytes = random_bytes(std::int64_t{frames} * side * side * 3);
  const Floats floats = normal(std::int64_t{frames} * side * side * 3, 1);
  Halves from_bytes(size(frames * per_row * per_row * stride), 0x7fc0), from_floats(from_bytes);
  launch_gather_patches({frames, side, patch, bytes.data(), nullptr, from_bytes.data(), stride}, nullptr);
  launch_gather_patches({frames, side, patch, nullptr, floats.data(), from_floats.data(), stride}, nullptr);
  for (int f = 0; f < frames; ++f) {
    for (int y = 0; y < per_row * patch; ++y) {
      for (int x = 0; x < per_row * patch; ++x) {
        for (int c = 0; c < 3; ++c) {
          const int row = (f * per_row + y / patch) * per_row + x / patch;
          const int in_y = y % patch, in_x = x % patch;
          CHECK_EQ(bf16_to_float(from_bytes[size(row * stride + (in_y * patch + in_x) * 3 + c)]),
                   static_cast<float>(bytes[size(((f * side + y) * side + x) * 3 + c)]) - 128.0f);
          CHECK_EQ(from_floats[size(row * stride + (c * patch + in_y) * patch + in_x)],
                   float_to_bf16(floats[size(((f * 3 + c) * side + y) * side + x)]));
        }
      }
    }
  }
  for (int row = 0; row < frames * per_row * per_row; ++row) {
    for (int i = values; i < stride; ++i)
      CHECK(from_bytes[size(row * stride + i)] == 0 && from_floats[size(row * stride + i)] == 0);
  }
}

void check_tokens(int frames, int patches, int d) {
  const Floats cls = normal(d, 1), positions = normal(patches * d, 2), embedded = normal(frames * patches * d, 3);
  Floats x(size(frames * (patches + 1) * d), NAN);
  launch_assemble_tokens({frames, patches, d, cls.data(), positions.data(), embedded.data(), x.data()}, nullptr);
  for (int f = 0; f < frames; ++f) {
    for (int t = 0; t <= patches; ++t) {
      for (int i = 0; i < d; ++i) {
        const float expected =
            t == 0 ? cls[size(i)] : embedded[size((f * patches + t - 1) * d + i)] + positions[size((t - 1) * d + i)];
        CHECK_EQ(x[size((f * (patches + 1) + t) * d + i)], expected);
      }
    }
  }
}

void check_actions(int count, int steps, int block_dim, int hidden) {
  const int stride = (hidden + 7) / 8 * 8;
  const Floats actions = normal(count * steps * block_dim, 1), weight = normal(hidden * block_dim, 2),
               bias = normal(hidden, 3);
  Halves rows(size(count * steps * stride), 0x7fc0);
  launch_encode_actions(
      {count, steps, block_dim, hidden, actions.data(), weight.data(), bias.data(), rows.data(), stride}, nullptr);
  for (int s = 0; s < steps; ++s) {
    for (int i = 0; i < count; ++i) {
      for (int u = 0; u < stride; ++u) {
        double sum = u < hidden ? bias[size(u)] : 0.0;
        for (int a = 0; u < hidden && a < block_dim; ++a) {
          sum += static_cast<double>(weight[size(u * block_dim + a)]) * actions[size((i * steps + s) * block_dim + a)];
        }
        const double expected = sum / (1.0 + std::exp(-sum));
        CHECK_NEAR(bf16_to_float(rows[size((s * count + i) * stride + u)]), expected,
                   0.004 * std::fabs(expected) + 1e-6);
      }
    }
  }
}

// The tokens of every step of a rollout against the schedule's own words: which latent at which position, whose
// modulation, whose keys.
void check_passes(int problems, int samples, std::int64_t first, int count, int history, int context, int horizon,
                  bool input) {
  constexpr int kDim = 5, kStride = 8, kOwn = 1000, kBlocks = 500;
  const Floats seen = normal(problems * context * kDim, 1), predicted = normal(horizon * count * kDim, 2),
               positions = normal(history * kDim, 3);
  for (int step = 0; step < horizon; ++step) {
    const lewm::RolloutStep s = lewm::rollout_step(history, context, step, horizon);
    const int fresh = static_cast<int>(s.fresh), rows = fresh * count, window = static_cast<int>(s.window);
    const int first_frame = context + step - fresh, own = first_frame - static_cast<int>(s.cached);
    Floats x(size(rows * kDim), NAN);
    Halves given(size(rows * kStride), 0x7fc0);
    Indices modulation(size(rows), -1), keys(size(rows), -1), key_row(size(rows * history), -1);
    OpenPass open{count,
                  fresh,
                  kDim,
                  first,
                  samples,
                  problems,
                  history,
                  context,
                  window,
                  first_frame,
                  own,
                  kOwn,
                  kBlocks,
                  seen.data(),
                  predicted.data(),
                  positions.data(),
                  input ? nullptr : x.data(),
                  given.data(),
                  kStride,
                  modulation.data(),
                  keys.data(),
                  key_row.data()};
    launch_open_pass(open, nullptr);
    for (int row = 0; row < rows; ++row) {
      const int frame = first_frame + row / count, sequence = row % count;
      const int problem = static_cast<int>((first + sequence) / samples);
      const float* latent = frame < context ? &seen[size((problem * context + frame) * kDim)]
                                            : &predicted[size(((frame - context) * count + sequence) * kDim)];
      for (int i = 0; i < kStride; ++i) {
        if (input) CHECK_EQ(given[size(row * kStride + i)], i < kDim ? float_to_bf16(latent[i]) : 0);
        if (!input && i < kDim)
          CHECK_EQ(x[size(row * kDim + i)], latent[i] + positions[size((frame - window) * kDim + i)]);
      }
      CHECK_EQ(modulation[size(row)],
               frame < context - 1 ? frame * problems + problem : kBlocks + (frame - context + 1) * count + sequence);
      CHECK_EQ(keys[size(row)], frame - window + 1);
      for (int key = window; key <= frame; ++key) {
        const int expected = key < own ? (window * (history - 1) + key - window) * problems + problem
                                       : kOwn + (key - own) * count + sequence;
        CHECK_EQ(key_row[size(row * history + key - window)], expected);
      }
    }
  }
}

// The same bytes as the CPU's resizer.
void check_resize(int width, int height, int side, lewm::PixelFormat format, lewm::Fit fit) {
  const int channels = static_cast<int>(lewm::bytes_per_pixel(format));
  const Bytes source = random_bytes(std::int64_t{2} * width * height * channels);
  lewm::FrameResizer resizer(width, height, format, side, fit);
  Bytes expected(size(2 * side * side * 3)), got(expected.size(), 77);
  for (int f = 0; f < 2; ++f) {
    resizer.run(&source[size(f * width * height * channels)], width * channels, &expected[size(f * side * side * 3)]);
  }
  const auto filter = [](const lewm::FrameResizer::Filter& f) {
    return ResizeFilter{static_cast<int>(f.taps), f.first.data(), f.count.data(), f.weight.data()};
  };
  const lewm::FrameResizer::Picture picture = resizer.picture();
  launch_resize({2, width, height, channels, format == lewm::PixelFormat::bgr || format == lewm::PixelFormat::bgra,
                 side, static_cast<int>(picture.left), static_cast<int>(picture.top), static_cast<int>(picture.width),
                 static_cast<int>(picture.height), filter(resizer.horizontal()), filter(resizer.vertical()),
                 source.data(), got.data()},
                nullptr);
  CHECK(got == expected);
}

}  // namespace

TEST(patches_hold_every_pixel) {
  in_every_order([] {
    check_patches(1, 1, 1);
    check_patches(2, 10, 5);
    check_patches(1, 28, 14);
  });
}

TEST(tokens_take_their_places) {
  in_every_order([] {
    check_tokens(1, 1, 1);
    check_tokens(3, 4, 36);
  });
}

TEST(action_blocks_are_encoded_in_order) {
  in_every_order([] {
    check_actions(1, 1, 1, 1);
    check_actions(5, 3, 10, 70);
  });
}

TEST(passes_follow_the_schedule) {
  in_every_order([] {
    check_passes(1, 1, 0, 1, 1, 1, 2, false);
    check_passes(2, 7, 3, 8, 3, 1, 5, false);
    check_passes(3, 4, 0, 12, 3, 3, 4, true);
    check_passes(2, 3, 2, 3, 4, 2, 3, false);
  });
}

TEST(frames_are_resized_as_on_the_cpu) {
  in_every_order([] {
    check_resize(1, 1, 3, lewm::PixelFormat::rgb, lewm::Fit::stretch);
    check_resize(31, 17, 9, lewm::PixelFormat::bgra, lewm::Fit::letterbox);
    check_resize(13, 22, 16, lewm::PixelFormat::grey, lewm::Fit::crop);
    check_resize(9, 9, 14, lewm::PixelFormat::bgr, lewm::Fit::stretch);
  });
}

CHECK_MAIN
