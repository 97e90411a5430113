"""The decoder learns to draw what the latent says."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lewm.analysis.decoder import Decoder, train_decoder


def test_patches_land_where_they_belong():
    decoder = Decoder(latent_dim=4, image_size=48)
    pixels = torch.zeros(1, 9, 16 * 16 * 3)
    pixels[0, 5] = 1.0  # second row, third column
    decoder.to_pixels = torch.nn.Identity()
    decoder.layers = torch.nn.ModuleList()
    decoder.queries = torch.nn.Parameter(pixels)
    picture = decoder(torch.zeros(1, 4))[0]
    assert picture.shape == (3, 48, 48)
    assert picture[:, 16:32, 32:48].min() == 1.0
    assert picture.sum() == 16 * 16 * 3


def test_learns_the_brightness_that_the_latent_carries():
    level = np.linspace(0.0, 1.0, 64, dtype=np.float32)
    latents = np.stack([level, 1.0 - level], axis=1)
    frames = np.broadcast_to((level * 255).astype(np.uint8)[:, None, None, None], (64, 16, 16, 3)).copy()
    decoder = train_decoder(latents, frames, steps=150, batch=32)
    drawn = decoder.decode(latents).astype(np.float32)
    assert drawn.shape == frames.shape
    assert np.abs(drawn - frames).mean() < 15.0


def test_same_seed_same_decoder():
    latents = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    frames = np.zeros((8, 16, 16, 3), np.uint8)
    first, second = (train_decoder(latents, frames, steps=3, batch=4, seed=7) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="image_size: expected a multiple of 16, got 40"):
        Decoder(4, 40)
    with pytest.raises(ValueError, match="frames: expected 3"):
        train_decoder(np.zeros((3, 2), np.float32), np.zeros((2, 16, 16, 3), np.uint8))
