// Camera frames as controllers have them -> the square RGB image that the encoder reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace lewm {

// Same values as lewm_pixel_format and lewm_fit in lewm/lewm.h.
enum class PixelFormat : int { rgb = 0, bgr = 1, rgba = 2, bgra = 3, grey = 4 };
enum class Fit : int {
  stretch = 0,    // the whole frame, aspect ratio not kept
  crop = 1,       // the largest centred square
  letterbox = 2,  // the whole frame, aspect ratio kept, black bars
};

constexpr std::int64_t bytes_per_pixel(PixelFormat format) {
  return format == PixelFormat::grey ? 1 : format == PixelFormat::rgb || format == PixelFormat::bgr ? 3 : 4;
}

// Resizes frames of one size and format: bilinear with antialiasing (a triangle filter as wide as the scale, so that
// shrinking averages the area), the filter of torchvision's `antialias=True` and of Pillow, within one grey level.
// Alpha is ignored; grey is repeated. Construction allocates, run does not. One thread at a time.
class FrameResizer {
 public:
  // width, height: of the source, 1..32768. size: of the square target. Throws Error(invalid_argument).
  FrameResizer(std::int64_t width, std::int64_t height, PixelFormat format, std::int64_t size, Fit fit);

  // source: [height] rows of width pixels, row_stride bytes apart (negative: bottom-up). target: [size, size, 3] RGB.
  void run(const std::uint8_t* source, std::ptrdiff_t row_stride, std::uint8_t* target);

  std::int64_t width() const { return width_; }
  std::int64_t height() const { return height_; }
  PixelFormat format() const { return format_; }

  // For each target coordinate, the source samples that it averages: weight[i * taps .. + count[i]) from first[i] on.
  struct Filter {
    std::int64_t taps = 0;
    std::vector<std::int32_t> first, count;
    std::vector<float> weight;
  };
  const Filter& horizontal() const { return horizontal_; }
  const Filter& vertical() const { return vertical_; }
  // Where the picture lies inside the target; the rest is black.
  struct Picture {
    std::int64_t left, top, width, height;
  };
  Picture picture() const { return {left_, top_, inner_width_, inner_height_}; }

 private:
  static Filter make_filter(std::int64_t source_begin, std::int64_t source_size, std::int64_t target_size);
  void filter_row(const float* row, std::uint8_t* out) const;

  std::int64_t width_, height_, size_;
  PixelFormat format_;
  std::int64_t left_ = 0, top_ = 0;          // of the picture inside the target
  std::int64_t inner_width_, inner_height_;  // of the picture inside the target
  Filter horizontal_, vertical_;
  std::vector<float> row_;  // [width * bytes_per_pixel], one vertically filtered row
};

}  // namespace lewm
