// Stands in for ROS 2's header of this name: the field that the node writes.
#pragma once

#include <vector>

namespace std_msgs::msg {

struct Float32MultiArray {
  std::vector<float> data;
};

}  // namespace std_msgs::msg
