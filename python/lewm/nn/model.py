"""The trainable world model: encoder, action encoder, predictor and the two-term loss (arXiv 2603.19312)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from lewm.checkpoint import read_checkpoint
from lewm.checkpoint.contents import Checkpoint
from lewm.config import LeWMConfig
from lewm.nn.image_encoder import ImageEncoder, make_projector
from lewm.nn.objectives import OBJECTIVES, PLDM_WEIGHTS, pldm_terms
from lewm.nn.predictor import ActionEncoder, Predictor
from lewm.nn.sigreg import sigreg

__all__ = ["LeWM"]


class LeWM(ImageEncoder):
    """LeWorldModel in torch. `state_dict()` has the published tensor names.

    Sizes in shapes: D = config.latent_dim, A = config.block_dim (action_dim * frame_skip), H, W = config.image_size.

    Args:
        config: sizes; the default is the published model.
        dropout: inside the predictor; emb_dropout: on its input. Both act in training mode only.
        attention: "auto", "matmul" or "sdpa", see `lewm.nn.attention.attend`.
        preprocessing: {"mean", "std"} per colour channel of pixels scaled to [0, 1]; by default ImageNet's.
        action_scaling: {"mean", "std"} per action dimension, with which the training data was standardised; kept for
            the files that `lewm.save` writes: the actions given to this module are standardised already.
        encoder: in the place of the built-in vision transformer, see `lewm.nn.external.ExternalEncoder`; such a model
            trains and rolls out, but cannot be exported. freeze_encoder: keep its weights.
        position_init: "normal" or "waves", what the vision transformer's position embeddings start as, see
            `lewm.nn.vit.VisionTransformer`.

    The attributes config, preprocessing and action_scaling (None: identity) are what `lewm.save` reads.

    Raises ValueError when a scaling has another size than the channels or config.action_dim.
    """

    def __init__(
        self,
        config: LeWMConfig | None = None,
        dropout: float = 0.1,
        emb_dropout: float = 0.0,
        *,
        attention: str = "auto",
        preprocessing: Mapping[str, Any] | None = None,
        action_scaling: Mapping[str, Any] | None = None,
        encoder: nn.Module | None = None,
        freeze_encoder: bool = False,
        position_init: str = "normal",
    ):
        config = config or LeWMConfig()
        super().__init__(
            config,
            attention=attention,
            preprocessing=preprocessing,
            action_scaling=action_scaling,
            encoder=encoder,
            freeze_encoder=freeze_encoder,
            position_init=position_init,
        )
        self.predictor = Predictor(
            history=config.history,
            inputs=config.latent_dim,
            dim=config.predictor_dim,
            outputs=config.predictor_output_dim,
            depth=config.predictor_depth,
            heads=config.predictor_heads,
            head_dim=config.predictor_head_dim,
            mlp_dim=config.predictor_mlp_dim,
            dropout=dropout,
            emb_dropout=emb_dropout,
            attention=attention,
        )
        self.action_encoder = ActionEncoder(
            config.block_dim, config.action_smoothed_dim, config.latent_dim, config.action_mlp_scale
        )
        self.projector = make_projector(
            self.encoder_dim, config.projector_dim, config.latent_dim, config.projector_norm
        )
        self.pred_proj = make_projector(
            config.predictor_output_dim, config.pred_proj_dim, config.latent_dim, config.projector_norm
        )

    @classmethod
    def from_checkpoint(cls, path: str | Path | Checkpoint, **kwargs: Any) -> LeWM:
        """The model in a published folder, a `.pt` file beside its config.json, or a deployment `.safetensors`; or in
        a checkpoint in memory.

        `kwargs` go to the constructor. In evaluation mode, on the CPU. Raises what `lewm.load` raises.
        """
        checkpoint = path if isinstance(path, Checkpoint) else read_checkpoint(path)
        kwargs.setdefault("preprocessing", checkpoint.preprocessing)
        kwargs.setdefault("action_scaling", checkpoint.action_scaling)
        model = cls(checkpoint.config, **kwargs)
        model.load_state_dict({name: torch.tensor(array) for name, array in checkpoint.state.items()})
        return model.eval()

    def predict(self, latents: Tensor, actions: Tensor) -> Tensor:
        """The next latent after each step of a window, (B, T, D) float32.

        latents: (B, T, D) with T <= config.history. actions: (B, T, A) standardised, block t leaves frame t.
        Raises ValueError on another shape.
        """
        config = self.config
        steps = latents.shape[1] if latents.dim() == 3 else 0
        if not 1 <= steps <= config.history or latents.shape[2] != config.latent_dim:
            raise ValueError(
                f"latents: expected (B, 1..{config.history}, {config.latent_dim}), got {tuple(latents.shape)}"
            )
        if actions.shape != (latents.shape[0], steps, config.block_dim):
            raise ValueError(
                f"actions: expected ({latents.shape[0]}, {steps}, {config.block_dim}), got {tuple(actions.shape)}"
            )
        outputs = self.predictor(latents, self.action_encoder(actions))
        return self.pred_proj(outputs.flatten(0, 1)).float().view(latents.shape)

    def rollout(self, latents: Tensor, actions: Tensor, past_actions: Tensor | None = None) -> Tensor:
        """Latents after each block of every candidate, (B, S, H, D) float32.

        latents: (B, C, D) of C <= config.history context frames. actions: (B, S, H, A), S candidates of H standardised
        blocks. past_actions: (B, C - 1, A), the blocks executed between the context frames; None when C is 1.
        Every step feeds the last `history` latents and appends the last prediction (DESIGN.md section 5).
        Raises ValueError on another shape, or where B, S or H is 0.
        """
        config = self.config
        if (
            latents.dim() != 3
            or not latents.shape[0]
            or latents.shape[2] != config.latent_dim
            or not 1 <= latents.shape[1] <= config.history
        ):
            raise ValueError(
                f"latents: expected (B, 1..{config.history}, {config.latent_dim}), got {tuple(latents.shape)}"
            )
        problems, context, _ = latents.shape
        if actions.dim() != 4 or actions.shape[0] != problems or actions.shape[3] != config.block_dim:
            raise ValueError(
                f"actions: expected ({problems}, S, H, {config.block_dim}), got {tuple(actions.shape)}"
            )
        samples, horizon = actions.shape[1:3]
        if not samples or not horizon:
            raise ValueError(
                f"actions: expected at least 1 candidate and 1 block, got {tuple(actions.shape)}"
            )
        past_shape = (problems, context - 1, config.block_dim)
        if past_actions is None:
            past_actions = actions.new_empty(problems, 0, config.block_dim)
        if tuple(past_actions.shape) != past_shape:
            raise ValueError(f"past_actions: expected {past_shape}, got {tuple(past_actions.shape)}")
        past = past_actions[:, None].expand(-1, samples, -1, -1).flatten(0, 1)
        blocks = torch.cat([past, actions.flatten(0, 1)], dim=1)  # (B * S, C - 1 + H, A)
        window = latents[:, None].expand(-1, samples, -1, -1).flatten(0, 1)
        steps = list(window.unbind(1))  # each (B * S, D)
        for end in range(context, context + horizon):
            begin = max(0, end - config.history)
            following = self.predict(torch.stack(steps[begin:end], dim=1), blocks[:, begin:end])
            steps.append(following[:, -1])
        return torch.stack(steps[context:], dim=1).view(problems, samples, horizon, -1)

    def cost(
        self, latents: Tensor, goal: Tensor, actions: Tensor, past_actions: Tensor | None = None
    ) -> Tensor:
        """Squared distance, summed over D, of every candidate's last latent to the goal's: (B, S) float32.

        goal: (B, D). The other arguments are those of `rollout`.
        """
        if goal.shape != (latents.shape[0], self.config.latent_dim):
            expected = (latents.shape[0], self.config.latent_dim)
            raise ValueError(f"goal: expected {expected}, got {tuple(goal.shape)}")
        last = self.rollout(latents, actions, past_actions)[:, :, -1]
        return (last - goal[:, None]).square().sum(-1)

    def loss(
        self,
        batch: Mapping[str, Tensor],
        lambda_: float = 0.09,
        *,
        objective: str = "lewm",
        num_proj: int = 1024,
        knots: int = 17,
        seed: int | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> dict[str, Tensor]:
        """The training loss on windows of T frames and T action blocks, 2 <= T <= history + 1.

            z = encode(pixels);  pred = predict(z[:, :-1], action[:, :-1])
            loss = mean((pred - z[:, 1:])^2) + regulariser
            regulariser = lambda_ * SIGReg(z by time step)      "lewm"
                          sum of PLDM_WEIGHTS * pldm_terms(z)   "pldm"
                          0                                     "none"

        batch: "pixels" (B, T, H, W, 3) uint8 (or (B, T, 3, H, W) float, normalised), "action" (B, T, A) standardised.
        objective: one of `lewm.nn.objectives.OBJECTIVES`.
        num_proj, knots: of SIGReg; seed: of its directions (None: drawn from torch's generator).
        group: ranks over which the regulariser takes its statistics.
        Returns "loss", "pred_loss" and the unweighted terms of the regulariser ("sigreg_loss", or the keys of
        PLDM_WEIGHTS), scalars, and "latents", (B, T, D) detached; all float32.
        Raises ValueError on another objective, or on arrays that do not fit.
        """
        if objective not in OBJECTIVES:
            raise ValueError(f"objective: expected one of {OBJECTIVES}, got {objective!r}")
        pixels, actions = batch["pixels"], batch["action"]
        if actions.dim() != 3 or actions.shape[:2] != pixels.shape[:2]:
            raise ValueError(
                f"action: expected {tuple(pixels.shape[:2])} windows and frames as pixels, got {tuple(actions.shape)}"
            )
        latents = self.encode(pixels)  # (B, T, D)
        predicted = self.predict(latents[:, :-1], actions[:, :-1])
        pred_loss = F.mse_loss(predicted, latents[:, 1:])
        terms: dict[str, Tensor] = {}
        weights: Mapping[str, float] = {}
        if objective == "lewm":
            by_time = latents.transpose(0, 1)
            weights = {"sigreg_loss": lambda_}
            terms = {
                "sigreg_loss": sigreg(by_time, num_proj=num_proj, knots=knots, seed=seed, process_group=group)
            }
        elif objective == "pldm":
            weights, terms = PLDM_WEIGHTS, pldm_terms(latents, group)
        loss = pred_loss
        for name, term in terms.items():
            loss = loss + weights[name] * term
        return {
            "loss": loss,
            "pred_loss": pred_loss.detach(),
            **{name: term.detach() for name, term in terms.items()},
            "latents": latents.detach(),
        }

    def forward(self, batch: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """`loss(batch, ...)`: what DistributedDataParallel and torch.compile wrap."""
        return self.loss(batch, *args, **kwargs)
