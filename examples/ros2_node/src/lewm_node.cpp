// A ROS 2 node: camera images in, commands out, towards a goal that is given as an image.
//
//   subscribes  image    sensor_msgs/Image              one control step each; rgb8, bgr8, rgba8, bgra8 or mono8
//               goal     sensor_msgs/Image              what the camera should see in the end
//   publishes   command  std_msgs/Float32MultiArray     the action [action_dim], in the environment's units
//   parameters  model (path), deadline (s, of an image that is planned from), samples, iterations, replan_every
//   (blocks;
//               0: the whole horizon), low and high (of a command; empty: no bounds)
#include <algorithm>
#include <cstdint>
#include <exception>
#include <lewm/lewm.hpp>
#include <memory>
#include <optional>
#include <rclcpp/rclcpp.hpp>
#include <sensor_msgs/msg/image.hpp>
#include <std_msgs/msg/float32_multi_array.hpp>
#include <string>
#include <utility>
#include <vector>

namespace {

using sensor_msgs::msg::Image;
using Command = std_msgs::msg::Float32MultiArray;

struct Encoding {
  lewm_pixel_format format;
  std::size_t bytes_per_pixel;
};

std::optional<Encoding> encoding_of(const std::string& name) {
  if (name == "rgb8") return Encoding{LEWM_RGB, 3};
  if (name == "bgr8") return Encoding{LEWM_BGR, 3};
  if (name == "rgba8") return Encoding{LEWM_RGBA, 4};
  if (name == "bgra8") return Encoding{LEWM_BGRA, 4};
  if (name == "mono8") return Encoding{LEWM_GREY, 1};
  return std::nullopt;
}

// Throws std::runtime_error for an image that cannot be read.
Encoding checked_encoding(const Image& image) {
  const std::optional<Encoding> encoding = encoding_of(image.encoding);
  if (!encoding) {
    throw std::runtime_error("encoding: expected rgb8, bgr8, rgba8, bgra8 or mono8, got " + image.encoding);
  }
  if (image.width == 0 || image.height == 0) {
    throw std::runtime_error("image: expected pixels, got " + std::to_string(image.width) + " x " +
                             std::to_string(image.height));
  }
  if (image.step < image.width * encoding->bytes_per_pixel ||
      image.data.size() < static_cast<std::size_t>(image.step) * image.height) {
    throw std::runtime_error("image: expected " + std::to_string(image.height) + " rows of " +
                             std::to_string(image.width) + " pixels, got " + std::to_string(image.data.size()) +
                             " bytes with a step of " + std::to_string(image.step));
  }
  return *encoding;
}

class LewmNode : public rclcpp::Node {
 public:
  LewmNode()
      : rclcpp::Node("lewm"),
        model_(declare_parameter<std::string>("model", "")),
        planner_(model_, planner_config()),
        workspace_(model_),
        config_(controller_config()),
        controller_(planner_, config_) {
    publisher_ = create_publisher<Command>("command", 1);
    goals_ = create_subscription<Image>("goal", rclcpp::QoS(1).transient_local(),
                                        [this](Image::ConstSharedPtr image) { set_goal(*image); });
    images_ = create_subscription<Image>("image", rclcpp::SensorDataQoS().keep_last(1),
                                         [this](Image::ConstSharedPtr image) { act(*image); });
    const lewm_model_info& info = model_.info();
    RCLCPP_INFO(get_logger(), "lewm %s on %s: commands of %lld numbers", lewm_version(), info.isa,
                static_cast<long long>(info.action_dim));
  }

 private:
  lewm_planner_config planner_config() {
    lewm_planner_config config = lewm::planner_config();
    config.samples = declare_parameter<std::int64_t>("samples", 64);
    config.iterations = declare_parameter<std::int64_t>("iterations", 4);
    config.elites = config.samples >= 8 ? config.samples / 8 : 1;
    return config;
  }

  lewm_controller_config controller_config() {
    lewm_controller_config config = lewm::controller_config();
    config.replan_every = declare_parameter<std::int64_t>("replan_every", 1);
    config.deadline = declare_parameter<double>("deadline", 0.05);
    config.frame_fit = LEWM_CROP;
    low_ = bound("low");
    high_ = bound("high");
    config.low = low_.empty() ? nullptr : low_.data();
    config.high = high_.empty() ? nullptr : high_.data();
    return config;
  }

  std::vector<float> bound(const std::string& name) {
    const auto values = declare_parameter<std::vector<double>>(name, std::vector<double>());
    if (!values.empty() && static_cast<std::int64_t>(values.size()) != model_.info().action_dim) {
      throw std::runtime_error(name + ": expected " + std::to_string(model_.info().action_dim) + " numbers, got " +
                               std::to_string(values.size()));
    }
    return {values.begin(), values.end()};
  }

  // A latent, as goals need not have the camera's size or encoding.
  void set_goal(const Image& image) try {
    const Encoding encoding = checked_encoding(image);
    lewm::Resizer resizer(model_, image.width, image.height, encoding.format, LEWM_CROP);
    const lewm::Span<const std::uint8_t> frame = resizer(image.data.data(), static_cast<std::ptrdiff_t>(image.step));
    if (std::equal(frame.begin(), frame.end(), goal_frame_.begin(), goal_frame_.end())) return;  // published again
    goal_ = workspace_.encode(frame);
    controller_.set_goal_latent(goal_);
    goal_frame_.assign(frame.begin(), frame.end());
  } catch (const std::exception& error) {
    RCLCPP_ERROR(get_logger(), "goal: %s", error.what());
  }

  // A failed step publishes nothing: what drives the robot must hold or stop when commands stay away.
  void act(const Image& image) try {
    if (goal_.empty()) {
      RCLCPP_WARN_THROTTLE(get_logger(), *get_clock(), 5000, "no goal yet");
      return;
    }
    follow(image);
    const lewm::Span<const float> action = controller_.act(image.data.data(), static_cast<std::ptrdiff_t>(image.step));
    command_.data.assign(action.begin(), action.end());
    publisher_->publish(command_);
  } catch (const std::exception& error) {
    RCLCPP_ERROR_THROTTLE(get_logger(), *get_clock(), 1000, "image: %s", error.what());
  }

  // A controller for images of this size and encoding, a new one when they change: it resizes them itself, so that its
  // deadline counts that too.
  void follow(const Image& image) {
    const Encoding encoding = checked_encoding(image);
    if (image.width == config_.frame_width && image.height == config_.frame_height &&
        encoding.format == config_.frame_format) {
      return;
    }
    lewm_controller_config config = config_;
    config.frame_width = image.width;
    config.frame_height = image.height;
    config.frame_format = encoding.format;
    lewm::Controller controller(planner_, config);
    controller.set_goal_latent(goal_);
    controller_ = std::move(controller);
    config_ = config;
  }

  lewm::Model model_;
  lewm::Planner planner_;
  lewm::Workspace workspace_;
  std::vector<float> low_, high_;
  lewm_controller_config config_;
  lewm::Controller controller_;
  std::vector<std::uint8_t> goal_frame_;
  std::vector<float> goal_;  // its latent; empty: none yet
  Command command_;
  rclcpp::Publisher<Command>::SharedPtr publisher_;
  rclcpp::Subscription<Image>::SharedPtr goals_, images_;
};

}  // namespace

int main(int argc, char** argv) {
  rclcpp::init(argc, argv);
  int status = 0;
  try {
    lewm::check_version();
    rclcpp::spin(std::make_shared<LewmNode>());
  } catch (const std::exception& error) {
    RCLCPP_FATAL(rclcpp::get_logger("lewm"), "%s", error.what());
    status = 1;
  }
  rclcpp::shutdown();
  return status;
}
