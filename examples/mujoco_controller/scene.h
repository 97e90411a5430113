// The Reacher arm in MuJoCo and its pictures, drawn without a display.
#pragma once

#include <mujoco/mujoco.h>

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

struct Angles {
  double shoulder, wrist;  // rad
};

class Scene {
 public:
  // xml: dm_control's suite/reacher.xml. image_size: side of the frames in pixels. Throws std::runtime_error.
  Scene(const std::string& xml, int image_size);
  ~Scene();
  Scene(const Scene&) = delete;
  Scene& operator=(const Scene&) = delete;

  Angles angles() const { return {data_->qpos[0], data_->qpos[1]}; }
  void place(Angles angles);                // at rest
  void step(const float action[2]);         // one environment step: 0.04 s with these torques, in [-1, 1]
  const std::vector<std::uint8_t>& draw();  // [image_size, image_size, 3] RGB, valid until the next call

  // Where random torques, new at every fifth step, take the arm from rest in `steps` steps: not where it began.
  Angles wander(Angles start, long steps, std::mt19937_64& random);

  static bool reached(Angles state, Angles goal);  // each joint within 0.05 rad
  static Angles random_angles(std::mt19937_64& random);

 private:
  void open_context();

  int size_, supersample_;
  mjModel* model_ = nullptr;
  mjData* data_ = nullptr;
  mjvScene scene_;
  mjvCamera camera_;
  mjvOption option_;
  mjrContext context_;
  std::vector<std::uint8_t> drawn_, frame_;
};
