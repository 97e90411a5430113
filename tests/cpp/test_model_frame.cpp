// Camera frames are resized as torchvision's antialiased bilinear resize does, within one grey level.
#include <cstdlib>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "model/frame.h"

using namespace lewm;

namespace {

using Image = std::vector<std::uint8_t>;

Image resize(const Image& source, std::int64_t width, std::int64_t height, PixelFormat format, std::int64_t size,
             Fit fit) {
  Image target(static_cast<std::size_t>(size * size * 3), 77);
  FrameResizer resizer(width, height, format, size, fit);
  resizer.run(source.data(), width * bytes_per_pixel(format), target.data());
  return target;
}

Image ramp(std::int64_t bytes) {
  Image image(static_cast<std::size_t>(bytes));
  for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<std::uint8_t>((i * 37 + i / 7) % 256);
  return image;
}

}  // namespace

TEST(same_size_is_the_identity) {
  const Image source = ramp(16 * 16 * 3);
  CHECK(resize(source, 16, 16, PixelFormat::rgb, 16, Fit::stretch) == source);
}

// Recorded from torch.nn.functional.interpolate(x, (3, 3), mode="bilinear", antialias=True) in uint8 on
// x = 2 * arange(5 * 7 * 3) as a 5 x 7 RGB image; red channel.
TEST(agrees_with_torch_within_one_level) {
  Image source(5 * 7 * 3);
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::uint8_t>(2 * i);
  const int expected[9] = {23, 36, 49, 89, 102, 115, 155, 168, 181};
  const Image target = resize(source, 7, 5, PixelFormat::rgb, 3, Fit::stretch);
  for (std::size_t i = 0; i < 9; ++i) CHECK(std::abs(target[i * 3] - expected[i]) <= 1);
}

TEST(pixel_formats_agree) {
  const Image rgb = ramp(20 * 13 * 3);
  Image bgr, rgba, bgra;
  for (std::size_t i = 0; i < rgb.size(); i += 3) {
    bgr.insert(bgr.end(), {rgb[i + 2], rgb[i + 1], rgb[i]});
    rgba.insert(rgba.end(), {rgb[i], rgb[i + 1], rgb[i + 2], 9});
    bgra.insert(bgra.end(), {rgb[i + 2], rgb[i + 1], rgb[i], 9});
  }
  const Image expected = resize(rgb, 20, 13, PixelFormat::rgb, 8, Fit::stretch);
  CHECK(resize(bgr, 20, 13, PixelFormat::bgr, 8, Fit::stretch) == expected);
  CHECK(resize(rgba, 20, 13, PixelFormat::rgba, 8, Fit::stretch) == expected);
  CHECK(resize(bgra, 20, 13, PixelFormat::bgra, 8, Fit::stretch) == expected);

  const Image grey = resize(ramp(20 * 13), 20, 13, PixelFormat::grey, 8, Fit::stretch);
  for (std::size_t i = 0; i < grey.size(); i += 3) CHECK(grey[i] == grey[i + 1] && grey[i] == grey[i + 2]);
}

TEST(crop_takes_the_central_square) {
  const Image source = ramp(10 * 6 * 3);
  Image centre;
  for (int y = 0; y < 6; ++y) {
    const auto row = source.begin() + (y * 10 + 2) * 3;
    centre.insert(centre.end(), row, row + 6 * 3);
  }
  CHECK(resize(source, 10, 6, PixelFormat::rgb, 4, Fit::crop) ==
        resize(centre, 6, 6, PixelFormat::rgb, 4, Fit::stretch));
}

TEST(letterbox_keeps_the_aspect_ratio_between_black_bars) {
  const Image source(static_cast<std::size_t>(20 * 10 * 3), 200);
  const Image target = resize(source, 20, 10, PixelFormat::rgb, 8, Fit::letterbox);
  for (int y = 0; y < 8; ++y) {
    for (int x = 0; x < 8; ++x)
      CHECK_EQ(int{target[static_cast<std::size_t>((y * 8 + x) * 3)]}, y < 2 || y > 5 ? 0 : 200);
  }
}

TEST(row_stride_skips_padding_and_reads_bottom_up) {
  const Image source = ramp(9 * 7 * 3);
  Image padded, flipped(source.size());
  for (int y = 0; y < 7; ++y) {
    padded.insert(padded.end(), source.begin() + y * 27, source.begin() + (y + 1) * 27);
    padded.insert(padded.end(), 5, std::uint8_t{255});
    std::memcpy(&flipped[static_cast<std::size_t>(6 - y) * 27], &source[static_cast<std::size_t>(y) * 27], 27);
  }
  const Image expected = resize(source, 9, 7, PixelFormat::rgb, 4, Fit::stretch);
  FrameResizer resizer(9, 7, PixelFormat::rgb, 4, Fit::stretch);
  Image target(4 * 4 * 3);
  resizer.run(padded.data(), 32, target.data());
  CHECK(target == expected);
  resizer.run(flipped.data() + 6 * 27, -27, target.data());
  CHECK(target == expected);
}

TEST(sizes_out_of_range_are_refused_by_name) {
  CHECK_THROWS(FrameResizer(0, 4, PixelFormat::rgb, 4, Fit::stretch), Error, "width");
  CHECK_THROWS(FrameResizer(4, 40000, PixelFormat::rgb, 4, Fit::stretch), Error, "height");
  CHECK_THROWS(FrameResizer(4, 4, PixelFormat::rgb, -1, Fit::stretch), Error, "size");
}

CHECK_MAIN
