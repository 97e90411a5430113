#include "model/frame.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"

namespace lewm {

namespace {

constexpr std::int64_t kMaxSide = 32768;

void check_side(const char* name, std::int64_t value) {
  if (value < 1 || value > kMaxSide) {
    throw Error(Status::invalid_argument,
                std::string(name) + ": expected 1.." + std::to_string(kMaxSide) + ", got " + std::to_string(value));
  }
}

std::int64_t nearest(double value) { return static_cast<std::int64_t>(std::floor(value + 0.5)); }

std::uint8_t to_byte(float value) { return static_cast<std::uint8_t>(std::clamp(value + 0.5f, 0.0f, 255.0f)); }

}  // namespace

// A triangle of half-width max(1, scale) around each target sample's centre, cut at the source's edges and normalised.
FrameResizer::Filter FrameResizer::make_filter(std::int64_t source_begin, std::int64_t source_size,
                                               std::int64_t target_size) {
  const double scale = static_cast<double>(source_size) / static_cast<double>(target_size);
  const double support = std::max(1.0, scale);
  Filter filter;
  filter.taps = static_cast<std::int64_t>(std::ceil(support)) * 2 + 1;
  filter.weight.assign(static_cast<std::size_t>(target_size * filter.taps), 0.0f);
  for (std::int64_t i = 0; i < target_size; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto begin = std::max<std::int64_t>(0, nearest(centre - support));
    const auto end = std::min(source_size, nearest(centre + support));
    double total = 0.0;
    const auto triangle = [&](std::int64_t j) {
      return std::max(0.0, 1.0 - std::fabs((static_cast<double>(j) - centre + 0.5) / support));
    };
    for (std::int64_t j = begin; j < end; ++j) total += triangle(j);
    for (std::int64_t j = begin; j < end; ++j) {
      filter.weight[static_cast<std::size_t>(i * filter.taps + (j - begin))] = static_cast<float>(triangle(j) / total);
    }
    filter.first.push_back(static_cast<std::int32_t>(source_begin + begin));
    filter.count.push_back(static_cast<std::int32_t>(end - begin));
  }
  return filter;
}

FrameResizer::FrameResizer(std::int64_t width, std::int64_t height, PixelFormat format, std::int64_t size, Fit fit)
    : width_(width), height_(height), size_(size), format_(format), inner_width_(size), inner_height_(size) {
  check_side("width", width);
  check_side("height", height);
  check_side("size", size);
  if (fit == Fit::crop) {
    const std::int64_t side = std::min(width, height);
    horizontal_ = make_filter((width - side) / 2, side, size);
    vertical_ = make_filter((height - side) / 2, side, size);
  } else {
    if (fit == Fit::letterbox) {
      const std::int64_t longer = std::max(width, height);
      inner_width_ = std::max<std::int64_t>(1, (size * width + longer / 2) / longer);
      inner_height_ = std::max<std::int64_t>(1, (size * height + longer / 2) / longer);
      left_ = (size - inner_width_) / 2;
      top_ = (size - inner_height_) / 2;
    }
    horizontal_ = make_filter(0, width, inner_width_);
    vertical_ = make_filter(0, height, inner_height_);
  }
  row_.resize(static_cast<std::size_t>(width * bytes_per_pixel(format)));
}

// Averages along the row; row: [width, channels], out: [inner_width, 3] RGB.
void FrameResizer::filter_row(const float* row, std::uint8_t* out) const {
  const std::int64_t channels = bytes_per_pixel(format_);
  const bool reversed = format_ == PixelFormat::bgr || format_ == PixelFormat::bgra;
  const bool grey = format_ == PixelFormat::grey;
  for (std::int64_t i = 0; i < inner_width_; ++i, out += 3) {
    const float* weight = &horizontal_.weight[static_cast<std::size_t>(i * horizontal_.taps)];
    const float* pixel = row + horizontal_.first[static_cast<std::size_t>(i)] * channels;
    float sum[3] = {0.0f, 0.0f, 0.0f};
    for (std::int32_t j = 0; j < horizontal_.count[static_cast<std::size_t>(i)]; ++j, pixel += channels) {
      sum[0] += weight[j] * pixel[0];
      if (grey) continue;
      sum[1] += weight[j] * pixel[1];
      sum[2] += weight[j] * pixel[2];
    }
    out[0] = to_byte(grey ? sum[0] : sum[reversed ? 2 : 0]);
    out[1] = to_byte(grey ? sum[0] : sum[1]);
    out[2] = to_byte(grey ? sum[0] : sum[reversed ? 0 : 2]);
  }
}

void FrameResizer::run(const std::uint8_t* source, std::ptrdiff_t row_stride, std::uint8_t* target) {
  if (inner_width_ != size_ || inner_height_ != size_) std::fill_n(target, size_ * size_ * 3, std::uint8_t{0});
  const std::int64_t row_bytes = width_ * bytes_per_pixel(format_);
  for (std::int64_t i = 0; i < inner_height_; ++i) {
    const float* weight = &vertical_.weight[static_cast<std::size_t>(i * vertical_.taps)];
    const std::int32_t first = vertical_.first[static_cast<std::size_t>(i)];
    std::fill(row_.begin(), row_.end(), 0.0f);
    for (std::int32_t j = 0; j < vertical_.count[static_cast<std::size_t>(i)]; ++j) {
      const std::uint8_t* line = source + (first + j) * row_stride;
      for (std::int64_t b = 0; b < row_bytes; ++b) row_[static_cast<std::size_t>(b)] += weight[j] * line[b];
    }
    filter_row(row_.data(), target + ((top_ + i) * size_ + left_) * 3);
  }
}

}  // namespace lewm
