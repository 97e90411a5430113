"""Reading images with whatever is installed, and fitting them to a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm import _core
from lewm.errors import Error

__all__ = ["FITS", "fit_image", "read_image"]

FITS = ("stretch", "crop", "letterbox")


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) uint8 RGB. ``.npy`` needs numpy alone, other formats Pillow or imageio.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: nothing that is installed reads images.
        lewm.Error: the file is no image, or its array is not (H, W, 3) uint8.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}")
    try:
        image = _read_npy(path) if path.suffix == ".npy" else _decode(path)
    except ImportError:
        raise
    except Exception as error:  # a damaged file makes its reader raise anything
        raise Error(f"{path.name}: not readable as an image: {error}") from None
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise Error(f"{path.name}: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    return np.ascontiguousarray(image)


def _read_npy(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _decode(path: Path) -> NDArray[np.uint8]:
    """Pillow's reading of a file (imageio brings Pillow with it)."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise ImportError(
            f"{path.name}: reading images needs Pillow: pip install pillow, or give .npy files"
        ) from None
    with Image.open(path) as image:
        if image.mode.startswith("I"):  # grey of 16 bits, which Pillow would clip to 8
            grey = np.clip(np.asarray(image, np.int64) >> 8, 0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return np.asarray(image.convert("RGB"))


def fit_image(image: NDArray[np.uint8], size: int, fit: str = "stretch") -> NDArray[np.uint8]:
    """The image as (size, size, 3), bilinear with antialiasing; unchanged where it has this size already.

    Args:
        image: (H, W, 3) uint8 RGB.
        fit: "stretch" (the whole image), "crop" (the largest centred square) or "letterbox" (the whole image with black
            bars, aspect ratio kept).

    Raises:
        ValueError: no such fit.
    """
    if fit not in FITS:
        raise ValueError(f"fit: expected one of {', '.join(FITS)}, got {fit!r}")
    if image.shape == (size, size, 3):
        return image
    resized = np.empty((size, size, 3), np.uint8)
    _core.resize(np.ascontiguousarray(image), resized, FITS.index(fit))
    return resized
