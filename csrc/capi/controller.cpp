// The C interface: camera frames in, environment actions out.
#include "capi/support.h"
#include "plan/clock.h"

using namespace lewm;
using namespace lewm::capi;

namespace {

PixelFormat pixel_format(lewm_pixel_format format) {
  if (format < LEWM_RGB || format > LEWM_GREY) {
    throw Error(Status::invalid_argument, "format: expected a lewm_pixel_format, got " + std::to_string(format));
  }
  return static_cast<PixelFormat>(format);
}

Fit fit_of(lewm_fit fit) {
  if (fit < LEWM_STRETCH || fit > LEWM_LETTERBOX) {
    throw Error(Status::invalid_argument, "fit: expected a lewm_fit, got " + std::to_string(fit));
  }
  return static_cast<Fit>(fit);
}

// 0: dense. Rows must not overlap.
std::ptrdiff_t checked_stride(std::ptrdiff_t row_stride, std::int64_t row_bytes) {
  if (row_stride == 0) return static_cast<std::ptrdiff_t>(row_bytes);
  if (row_stride < row_bytes && row_stride > -row_bytes) {
    throw Error(Status::invalid_argument, "row_stride: expected 0 or at least " + std::to_string(row_bytes) +
                                              " bytes either way, got " + std::to_string(row_stride));
  }
  return row_stride;
}

// What turns the config's frames into the model's; null where they are that already.
std::unique_ptr<FrameResizer> frames_of(const lewm_controller_config& config, std::int64_t image_size) {
  const PixelFormat format = pixel_format(config.frame_format);
  const Fit fit = fit_of(config.frame_fit);
  std::int64_t width = config.frame_width, height = config.frame_height;
  if (width == 0 && height == 0) width = height = image_size;
  if (width == image_size && height == image_size && format == PixelFormat::rgb) return nullptr;
  return std::make_unique<FrameResizer>(width, height, format, image_size, fit);
}

}  // namespace

const std::uint8_t* lewm_controller::model_frame(const std::uint8_t* pixels, std::ptrdiff_t row_stride) {
  if (!pixels) return nullptr;
  if (resizer) {
    resizer->run(pixels, checked_stride(row_stride, resizer->width() * bytes_per_pixel(resizer->format())),
                 image.data());
    return image.data();
  }
  const std::int64_t row_bytes = 3 * image_size;
  const std::ptrdiff_t stride = checked_stride(row_stride, row_bytes);
  if (stride == row_bytes) return pixels;
  for (std::int64_t y = 0; y < image_size; ++y)
    std::copy_n(pixels + y * stride, row_bytes, image.data() + y * row_bytes);
  return image.data();
}

// ---------------------------------------------------------------------------------------------------------------------
// Frames
// ---------------------------------------------------------------------------------------------------------------------

lewm_status lewm_resizer_create(const lewm_model* model, int64_t width, int64_t height, lewm_pixel_format format,
                                lewm_fit fit, lewm_resizer** resizer) {
  return guarded([&] {
    need("model", model);
    need("resizer", resizer);
    *resizer = nullptr;
    FrameResizer frames(width, height, pixel_format(format), model->model->config().image_size, fit_of(fit));
    auto on_device = model->device ? std::make_unique<DeviceResizer>(model->device, frames) : nullptr;
    *resizer =
        new lewm_resizer{std::move(frames), model->model->config().image_size, model->device, std::move(on_device)};
    return LEWM_OK;
  });
}

void lewm_resizer_destroy(lewm_resizer* resizer) { delete resizer; }

lewm_status lewm_resize(lewm_resizer* resizer, const uint8_t* source, ptrdiff_t row_stride, uint8_t* target) {
  return guarded([&] {
    need("resizer", resizer);
    need("source", source);
    need("target", target);
    need_host("source", resizer->device, source);
    need_host("target", resizer->device, target);
    FrameResizer& frames = resizer->resizer;
    frames.run(source, checked_stride(row_stride, frames.width() * bytes_per_pixel(frames.format())), target);
    return LEWM_OK;
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// Controller
// ---------------------------------------------------------------------------------------------------------------------

lewm_status lewm_controller_create(lewm_planner* planner, const lewm_controller_config* config,
                                   lewm_controller** controller) {
  return guarded([&] {
    need("planner", planner);
    need("controller", controller);
    *controller = nullptr;
    const lewm_controller_config chosen = read_or_default("config", config);
    const Config& sizes = planner->planner->model().config();
    if (!(chosen.deadline >= 0)) {
      throw Error(Status::invalid_argument,
                  "deadline: expected at least 0 seconds, got " + std::to_string(chosen.deadline));
    }
    ControllerOptions options;
    options.replan_every = chosen.replan_every;
    options.context = or_default(chosen.context, 1);
    options.warm_start = chosen.no_warm_start == 0;
    options.deadline = chosen.deadline > 0 ? chosen.deadline : kNoDeadline;
    options.low = copy_bound(chosen.low, sizes.action_dim);
    options.high = copy_bound(chosen.high, sizes.action_dim);
    std::unique_ptr<FrameResizer> resizer = frames_of(chosen, sizes.image_size);
    const std::size_t bytes = static_cast<std::size_t>(3 * sizes.image_size * sizes.image_size);
    *controller = new lewm_controller{planner->planner->options().device, sizes.image_size, std::move(resizer),
                                      std::vector<std::uint8_t>(bytes), Controller(planner->planner, options)};
    return LEWM_OK;
  });
}

void lewm_controller_destroy(lewm_controller* controller) { delete controller; }

lewm_status lewm_controller_reset(lewm_controller* controller) {
  return guarded([&] {
    need("controller", controller);
    controller->controller.reset();
    return LEWM_OK;
  });
}

lewm_status lewm_controller_set_goal(lewm_controller* controller, const uint8_t* pixels, ptrdiff_t row_stride) {
  return guarded([&] {
    need("controller", controller);
    need_host("pixels", controller->device, pixels);
    const std::uint8_t* goal = controller->model_frame(pixels, row_stride);
    return finish(controller->controller.set_goal(goal), controller->controller);
  });
}

lewm_status lewm_controller_set_goal_latent(lewm_controller* controller, const float* latent) {
  return guarded([&] {
    need("controller", controller);
    need_host("latent", controller->device, latent);
    return finish(controller->controller.set_goal_latent(latent), controller->controller);
  });
}

lewm_status lewm_controller_act(lewm_controller* controller, const uint8_t* pixels, ptrdiff_t row_stride,
                                float* action) {
  return guarded([&] {
    const double start = seconds(Clock{});
    need("controller", controller);
    const bool looks = controller->controller.needs_frame();
    need_host("pixels", controller->device, pixels);
    need_host("action", controller->device, action);
    const std::uint8_t* frame = looks ? controller->model_frame(pixels, row_stride) : nullptr;
    return finish(controller->controller.act(frame, action, seconds(Clock{}) - start), controller->controller);
  });
}

lewm_status lewm_controller_get_info(const lewm_controller* controller, lewm_controller_info* info) {
  return guarded([&] {
    need("controller", controller);
    check_size("info", info);
    const Controller& source = controller->controller;
    const Controller::Current current = source.current();
    write(info, {0, source.plans(), source.needs_plan(), source.needs_frame(), current.actions, current.cost,
                 current.iterations, current.elapsed});
    return LEWM_OK;
  });
}
