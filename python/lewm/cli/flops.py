"""How much arithmetic encoding and rollouts are at least, counting a multiplication and an addition as two.

The rollout's count leaves out what the exact savings make unnecessary (tokens whose inputs have not changed, the last
layer's queries and MLPs of all but the last token): it is the floor to compare a planner's time with.
"""

from __future__ import annotations

from lewm.config import LeWMConfig

__all__ = ["candidate_flops", "encode_flops"]


def encode_flops(config: LeWMConfig) -> int:
    """FLOP of one frame: patches, transformer layers (matrix products and attention), projector."""
    d, mlp, tokens = config.encoder_dim, config.encoder_mlp_dim, config.tokens
    patches = config.patches * 3 * config.patch_size**2 * d
    layer = tokens * (4 * d * d + 2 * d * mlp) + 2 * tokens * tokens * d
    projector = config.projector_dim * (d + config.latent_dim)
    return 2 * (patches + config.encoder_depth * layer + projector)


def candidate_flops(config: LeWMConfig, horizon: int, context: int = 1) -> int:
    """FLOP of one candidate of ``horizon`` blocks after ``context`` frames (which all candidates share)."""
    d, inner, mlp = (
        config.predictor_dim,
        config.predictor_heads * config.predictor_head_dim,
        config.predictor_mlp_dim,
    )
    layers, latent = config.predictor_depth, config.latent_dim
    tokens = _token_passes(config.history, horizon, context)
    token = 3 * d * inner + inner * d + 2 * d * mlp
    last_layer = tokens * 2 * d * inner + horizon * (2 * d * inner + 2 * d * mlp)
    widths = tokens * d * latent if latent != d else 0
    outputs = horizon * d * config.predictor_output_dim if config.predictor_output_dim != d else 0
    transformer = tokens * (layers - 1) * token + last_layer + widths + outputs
    scaled = config.action_mlp_scale * latent
    action = config.block_dim * config.action_smoothed_dim + scaled * (config.action_smoothed_dim + latent)
    modulation = layers * 6 * d * d + (d * latent if latent != d else 0)
    projection = config.pred_proj_dim * (config.predictor_output_dim + latent)
    return 2 * (transformer + horizon * (action + modulation + projection))


def _token_passes(history: int, horizon: int, context: int) -> int:
    """Tokens of one candidate's own that go through the predictor, over all steps.

    While the window only grows, a step adds one token. Once it slides, every position changes, and the step computes
    the whole window again, but for the tokens before the last context frame: those all candidates share.
    """
    passes = 0
    for end in range(
        context, context + horizon
    ):  # frames [begin, end) are the window; the last context frame is own
        begin = max(0, end - history)
        passes += end - max(begin, context - 1) if begin else 1
    return passes
