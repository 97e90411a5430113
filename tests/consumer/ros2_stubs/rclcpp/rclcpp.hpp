// Stands in for ROS 2's header of this name, so that the node can be compiled and driven where ROS 2 is not installed.
// spin() gives the node an image without a goal, a goal, images that cannot be read, and images, the last of them a
// huge one; what it publishes is printed, a message a line. Parameters come from `-p name:=value`.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <sensor_msgs/msg/image.hpp>
#include <sstream>
#include <std_msgs/msg/float32_multi_array.hpp>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace rclcpp {

inline std::map<std::string, std::string>& parameters() {
  static std::map<std::string, std::string> values;
  return values;
}

inline void init(int argc, char** argv) {
  for (int i = 1; i + 1 < argc; ++i) {
    const std::string word = argv[i + 1];
    const std::size_t separator = word.find(":=");
    if (std::string(argv[i]) == "-p" && separator != std::string::npos) {
      parameters()[word.substr(0, separator)] = word.substr(separator + 2);
    }
  }
}
inline void shutdown() {}

struct Logger {};
struct Clock {};
inline Logger get_logger(const std::string&) { return {}; }

class QoS {
 public:
  explicit QoS(std::size_t) {}
  QoS& transient_local() { return *this; }
  QoS& keep_last(std::size_t) { return *this; }
};
class SensorDataQoS : public QoS {
 public:
  SensorDataQoS() : QoS(5) {}
};

template <class Message>
class Publisher {
 public:
  using SharedPtr = std::shared_ptr<Publisher>;
  void publish(const Message& message) {
    for (const float value : message.data) std::printf("%.9g ", static_cast<double>(value));
    std::printf("\n");
  }
};

template <class Message>
struct Subscription {
  using SharedPtr = std::shared_ptr<Subscription>;
};

class Node {
 public:
  using Callback = std::function<void(sensor_msgs::msg::Image::ConstSharedPtr)>;

  explicit Node(const std::string&) {}

  template <class T>
  T declare_parameter(const std::string& name, const T& otherwise) {
    const auto found = parameters().find(name);
    if (found == parameters().end()) return otherwise;
    if constexpr (std::is_same_v<T, std::string>) {
      return found->second;
    } else if constexpr (std::is_arithmetic_v<T>) {
      T value{};
      std::istringstream(found->second) >> value;
      return value;
    } else {
      T values;
      std::istringstream text(found->second);
      for (std::string item; std::getline(text, item, ',');) values.push_back(std::stod(item));
      return values;
    }
  }

  template <class Message>
  typename Publisher<Message>::SharedPtr create_publisher(const std::string&, std::size_t) {
    return std::make_shared<Publisher<Message>>();
  }
  template <class Message>
  typename Subscription<Message>::SharedPtr create_subscription(const std::string& topic, const QoS&,
                                                                Callback callback) {
    callbacks_[topic] = std::move(callback);
    return std::make_shared<Subscription<Message>>();
  }

  Logger get_logger() const { return {}; }
  std::shared_ptr<Clock> get_clock() const { return std::make_shared<Clock>(); }
  void receive(const std::string& topic, const sensor_msgs::msg::Image& image) {
    callbacks_.at(topic)(std::make_shared<const sensor_msgs::msg::Image>(image));
  }

 private:
  std::map<std::string, Callback> callbacks_;
};

inline sensor_msgs::msg::Image test_image(std::uint32_t width, std::uint32_t height, const std::string& encoding,
                                          std::uint32_t bytes_per_pixel, std::uint8_t shade) {
  sensor_msgs::msg::Image image;
  image.width = width;
  image.height = height;
  image.encoding = encoding;
  image.step = width * bytes_per_pixel + 4;  // rows are padded
  image.data.assign(static_cast<std::size_t>(image.step) * height, shade);
  return image;
}

inline void spin(const std::shared_ptr<Node>& node) {
  node->receive("image", test_image(64, 48, "rgb8", 3, 10));
  node->receive("goal", test_image(40, 40, "mono8", 1, 200));
  node->receive("image", test_image(64, 48, "yuv422", 2, 10));
  node->receive("image", test_image(0, 0, "rgb8", 3, 10));
  node->receive("image", test_image(64, 48, "rgb8", 3, 10));
  node->receive("image", test_image(64, 48, "rgb8", 3, 20));
  node->receive("image", test_image(50, 48, "bgra8", 4, 30));
  node->receive("image", test_image(5000, 5000, "rgb8", 3, 10));
}

}  // namespace rclcpp

#define RCLCPP_STUB_LOG(...) (std::fprintf(stderr, __VA_ARGS__), std::fputc('\n', stderr))
#define RCLCPP_INFO(logger, ...) ((void)(logger), RCLCPP_STUB_LOG(__VA_ARGS__))
#define RCLCPP_ERROR(logger, ...) ((void)(logger), RCLCPP_STUB_LOG(__VA_ARGS__))
#define RCLCPP_FATAL(logger, ...) ((void)(logger), RCLCPP_STUB_LOG(__VA_ARGS__))
#define RCLCPP_WARN_THROTTLE(logger, clock, milliseconds, ...) \
  ((void)(logger), (void)(clock), (void)(milliseconds), RCLCPP_STUB_LOG(__VA_ARGS__))
#define RCLCPP_ERROR_THROTTLE(logger, clock, milliseconds, ...) \
  ((void)(logger), (void)(clock), (void)(milliseconds), RCLCPP_STUB_LOG(__VA_ARGS__))
