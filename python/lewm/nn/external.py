"""Encoders of others in the place of the built-in one: any torch module that turns images into embeddings."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["ExternalEncoder", "encoder_from"]


def encoder_from(factory: str) -> nn.Module:
    """The module that ``factory`` makes; ``factory`` is "module:function", called without arguments.

    The module is imported from the Python path and from the current folder.

    Raises:
        ValueError: ``factory`` is not of that form, or names no function in its module.
        ImportError: there is no such module.
        TypeError: the function does not return a torch module.
    """
    module_name, separator, name = factory.partition(":")
    if not (separator and module_name and name):
        raise ValueError(f'encoder: expected "module:factory", got {factory!r}')
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ImportError(f"encoder: {factory}: {error}") from error
    make: Callable[[], object] | None = getattr(module, name, None)
    if not callable(make):
        raise ValueError(f"encoder: {module_name} has no function {name!r}")
    encoder = make()
    if not isinstance(encoder, nn.Module):
        raise TypeError(f"encoder: expected {factory} to return a torch module, got {type(encoder).__name__}")
    return encoder


class ExternalEncoder(nn.Module):
    """A module as an image encoder: normalises the pixels, and averages tokens to one embedding.

    Args:
        module: (N, 3, H, W) float32, normalised per channel -> (N, E) embeddings or (N, tokens, E).
        image_size: H and W, in pixels.
        mean, std: of the three colour channels, for pixels scaled to [0, 1].
        frozen: keep its weights, and its dropout and batch norms in evaluation mode.

    Raises:
        ValueError: it returns another shape for images of this size.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        module: nn.Module,
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        frozen: bool = False,
    ):
        super().__init__()
        self.module = module
        self.frozen = frozen
        self.register_buffer("pixel_mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std)[:, None, None], persistent=False)
        if frozen:
            module.requires_grad_(False).eval()
        self.width = self._measured_width(image_size)
        """E."""

    @property
    def name(self) -> str:
        """Of the module's class, with its origin."""
        kind = type(self.module)
        return f"{kind.__module__}.{kind.__qualname__}"

    def _measured_width(self, image_size: int) -> int:
        training = self.module.training
        self.module.eval()
        with torch.no_grad():
            width = self(torch.zeros(1, 3, image_size, image_size)).shape[1]
        self.module.train(training)
        return int(width)

    def train(self, mode: bool = True) -> ExternalEncoder:
        """Training mode, which a frozen module does not follow."""
        super().train(mode)
        if self.frozen:
            self.module.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (N, H, W, 3) uint8, or (N, 3, H, W) float normalised per channel -> (N, E)."""
        if pixels.dtype == torch.uint8:
            pixels = (pixels.permute(0, 3, 1, 2).float() / 255 - self.pixel_mean) / self.pixel_std
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            out = self.module(pixels)
        if not isinstance(out, Tensor) or out.dim() not in (2, 3) or len(out) != len(pixels):
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"encoder: expected (N, E) or (N, tokens, E) for {len(pixels)} images, got {got}"
            )
        return out.mean(dim=1) if out.dim() == 3 else out
