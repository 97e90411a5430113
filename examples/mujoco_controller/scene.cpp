#include "scene.h"

#include <EGL/egl.h>
#include <EGL/eglext.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace {

constexpr int kPhysicsSteps = 2;     // of an environment step
constexpr double kTolerance = 0.05;  // rad
constexpr double kWristLimit = 160.0 * M_PI / 180.0;
constexpr int kPublishedSize = 224;  // smaller frames are drawn plainly and averaged, as lewm/Reacher-v0 does

double wrapped(double angle) { return std::remainder(angle, 2.0 * M_PI); }

}  // namespace

Scene::Scene(const std::string& xml, int image_size)
    : size_(image_size), supersample_(image_size < kPublishedSize ? 2 : 1) {
  char error[1000] = "";
  model_ = mj_loadXML(xml.c_str(), nullptr, error, sizeof error);
  if (!model_) throw std::runtime_error(xml + ": " + error);
  if (model_->nq != 2 || model_->nu != 2)
    throw std::runtime_error(xml + ": expected an arm of two joints and two motors");
  const int target = mj_name2id(model_, mjOBJ_MATERIAL, "target");
  if (target >= 0) model_->mat_rgba[4 * target + 3] = 0.0f;  // the goal is a picture, not a ball
  model_->opt.disableflags |= mjDSBL_WARMSTART;
  const bool plain = supersample_ > 1;
  model_->vis.global.offwidth = model_->vis.global.offheight = size_ * supersample_;
  model_->vis.quality.offsamples = plain ? 0 : 4;
  data_ = mj_makeData(model_);

  open_context();
  mjv_defaultScene(&scene_);
  mjv_makeScene(model_, &scene_, 2000);
  scene_.flags[mjRND_SHADOW] = scene_.flags[mjRND_REFLECTION] = !plain;
  mjv_defaultOption(&option_);
  mjv_defaultCamera(&camera_);
  camera_.type = mjCAMERA_FIXED;
  camera_.fixedcamid = mj_name2id(model_, mjOBJ_CAMERA, "fixed");
  mjr_defaultContext(&context_);
  mjr_makeContext(model_, &context_, mjFONTSCALE_100);
  mjr_setBuffer(mjFB_OFFSCREEN, &context_);
  const auto side = static_cast<std::size_t>(size_ * supersample_);
  drawn_.resize(side * side * 3);
  frame_.resize(static_cast<std::size_t>(size_ * size_ * 3));
}

Scene::~Scene() {
  mjr_freeContext(&context_);
  mjv_freeScene(&scene_);
  mj_deleteData(data_);
  mj_deleteModel(model_);
}

// A context on the first EGL device that works: a GPU, or Mesa's software renderer.
void Scene::open_context() {
  const auto query = reinterpret_cast<PFNEGLQUERYDEVICESEXTPROC>(eglGetProcAddress("eglQueryDevicesEXT"));
  const auto display_of =
      reinterpret_cast<PFNEGLGETPLATFORMDISPLAYEXTPROC>(eglGetProcAddress("eglGetPlatformDisplayEXT"));
  EGLDeviceEXT devices[32];
  EGLint count = 0;
  if (!query || !display_of || !query(32, devices, &count)) throw std::runtime_error("EGL: no devices can be listed");
  for (EGLint i = 0; i < count; ++i) {
    EGLDisplay display = display_of(EGL_PLATFORM_DEVICE_EXT, devices[i], nullptr);
    if (display == EGL_NO_DISPLAY || !eglInitialize(display, nullptr, nullptr)) continue;
    const EGLint wanted[] = {EGL_RED_SIZE,
                             8,
                             EGL_GREEN_SIZE,
                             8,
                             EGL_BLUE_SIZE,
                             8,
                             EGL_DEPTH_SIZE,
                             24,
                             EGL_STENCIL_SIZE,
                             8,
                             EGL_SURFACE_TYPE,
                             EGL_PBUFFER_BIT,
                             EGL_RENDERABLE_TYPE,
                             EGL_OPENGL_BIT,
                             EGL_NONE};
    EGLConfig config;
    EGLint configs = 0;
    if (!eglChooseConfig(display, wanted, &config, 1, &configs) || configs == 0) continue;
    if (!eglBindAPI(EGL_OPENGL_API)) continue;
    EGLContext context = eglCreateContext(display, config, EGL_NO_CONTEXT, nullptr);
    if (context != EGL_NO_CONTEXT && eglMakeCurrent(display, EGL_NO_SURFACE, EGL_NO_SURFACE, context)) return;
  }
  throw std::runtime_error("EGL: no device gives an OpenGL context (install Mesa: libegl1 libgl1-mesa-dri)");
}

void Scene::place(Angles angles) {
  mj_resetData(model_, data_);
  data_->qpos[0] = angles.shoulder;
  data_->qpos[1] = angles.wrist;
}

void Scene::step(const float action[2]) {
  for (int i = 0; i < 2; ++i) data_->ctrl[i] = std::clamp(action[i], -1.0f, 1.0f);
  for (int i = 0; i < kPhysicsSteps; ++i) mj_step(model_, data_);
}

const std::vector<std::uint8_t>& Scene::draw() {
  mj_kinematics(model_, data_);
  mj_camlight(model_, data_);
  const int side = size_ * supersample_;
  const mjrRect rectangle = {0, 0, side, side};
  mjv_updateScene(model_, data_, &option_, nullptr, &camera_, mjCAT_ALL, &scene_);
  mjr_render(rectangle, &scene_, &context_);
  mjr_readPixels(drawn_.data(), nullptr, rectangle, &context_);
  const int area = supersample_ * supersample_;
  for (int y = 0; y < size_; ++y) {
    for (int x = 0; x < size_; ++x) {
      for (int channel = 0; channel < 3; ++channel) {
        int sum = area / 2;
        for (int dy = 0; dy < supersample_; ++dy) {
          const int row = side - 1 - (y * supersample_ + dy);  // OpenGL's first row is the lowest
          for (int dx = 0; dx < supersample_; ++dx) {
            sum += drawn_[static_cast<std::size_t>((row * side + x * supersample_ + dx) * 3 + channel)];
          }
        }
        frame_[static_cast<std::size_t>((y * size_ + x) * 3 + channel)] = static_cast<std::uint8_t>(sum / area);
      }
    }
  }
  return frame_;
}

Angles Scene::wander(Angles start, long steps, std::mt19937_64& random) {
  std::uniform_real_distribution<float> torque(-1.0f, 1.0f);
  do {
    place(start);
    float action[2] = {};
    for (long i = 0; i < steps; ++i) {
      if (i % 5 == 0) action[0] = torque(random), action[1] = torque(random);
      step(action);
    }
  } while (reached(angles(), start));
  return angles();
}

bool Scene::reached(Angles state, Angles goal) {
  return std::fabs(wrapped(state.shoulder - goal.shoulder)) < kTolerance &&
         std::fabs(wrapped(state.wrist - goal.wrist)) < kTolerance;
}

Angles Scene::random_angles(std::mt19937_64& random) {
  std::uniform_real_distribution<double> unit(-1.0, 1.0);
  const double shoulder = M_PI * unit(random);
  return {shoulder, kWristLimit * unit(random)};
}
