// Stands in for ROS 2's header of this name: the fields that the node reads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace sensor_msgs::msg {

struct Image {
  using ConstSharedPtr = std::shared_ptr<const Image>;
  std::uint32_t height = 0, width = 0;
  std::string encoding;
  std::uint32_t step = 0;  // bytes of a row
  std::vector<std::uint8_t> data;
};

}  // namespace sensor_msgs::msg
