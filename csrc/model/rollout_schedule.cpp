#include "model/rollout_schedule.h"

#include <algorithm>

#include "model/predictor_weights.h"

namespace lewm {

std::int64_t rollout_flops(const Config& c, std::int64_t context, std::int64_t horizon) {
  const std::int64_t dim = c.predictor_dim, inner = c.predictor_heads * c.predictor_head_dim;
  const std::int64_t query = dim * inner, key_value = 2 * dim * inner, out = inner * dim, alone = dim * dim;
  const std::int64_t mlp = 2 * dim * c.predictor_mlp_dim;
  const std::int64_t hidden = c.action_mlp_scale * c.latent_dim;
  const std::int64_t block = c.block_dim() * hidden + hidden * dim + dim * c.predictor_depth * kModulations * dim;
  const std::int64_t head = c.pred_proj_dim                 ? (dim + c.latent_dim) * c.pred_proj_dim
                            : c.predictor_output_dim != dim ? dim * c.latent_dim
                                                            : 0;
  std::int64_t total = 0;
  for (std::int64_t t = 0; t < horizon; ++t) {
    const RolloutStep step = rollout_step(c.history, context, t, horizon);
    const bool projects = c.latent_dim != dim;
    total += block + head + (projects ? step.fresh * c.latent_dim * dim : 0);
    for (std::int64_t layer = 0; layer < c.predictor_depth; ++layer) {
      const std::int64_t anchors = step.alone() ? 1 : 0, others = step.fresh - anchors;
      const bool last = layer + 1 == c.predictor_depth;  // the newest token alone goes on
      total += anchors * alone + others * key_value +
               (last ? std::min<std::int64_t>(others, 1) : others) * (query + out) + (last ? 1 : step.fresh) * mlp;
    }
  }
  return 2 * total;
}

}  // namespace lewm
