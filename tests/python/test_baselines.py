"""Behaviour cloning and encoders of others: trained by the same trainer, loaded again, refused where they must be."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("h5py")

import lewm
from lewm.nn import LeWM
from lewm.nn.cloner import Cloner
from lewm.nn.external import ExternalEncoder, encoder_from
from lewm.training import load_trained, read_metrics
from test_nn import SMALL, small_batch
from train_helpers import TINY_RUN, write_episodes

FACTORIES = '''
import torch
from torch import nn


class Convolutions(nn.Module):
    """Embeddings (N, 12), or tokens (N, tokens, 12)."""

    def __init__(self, tokens):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 12, 4, stride=4), nn.BatchNorm2d(12), nn.Dropout(0.5))
        self.tokens = tokens

    def forward(self, x):
        y = self.layers(x).flatten(2).transpose(1, 2)
        return y if self.tokens else y.mean(dim=1)


def embeddings():
    return Convolutions(tokens=False)


def tokens():
    return Convolutions(tokens=True)


def pictures():
    return nn.Identity()


def nothing():
    return None
'''


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("data") / "episodes.h5")


@pytest.fixture
def factories(tmp_path, monkeypatch) -> str:
    """A module of factories in the current folder, as a user has it."""
    (tmp_path / "some_encoders.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "some_encoders"
    sys.modules.pop("some_encoders", None)


# ---- goal-conditioned behaviour cloning ------------------------------------------------------------------------


def test_cloning_loss_is_the_error_over_all_later_goals():
    torch.manual_seed(0)
    model, batch = Cloner(SMALL), small_batch(windows=3, frames=4)
    out = model.eval().loss(batch)
    latents = model.encode(batch["pixels"])
    errors = []
    for window in range(3):
        for i in range(4):
            for j in range(i + 1, 4):
                block = model.act(latents[window, i][None], latents[window, j][None])[0]
                errors.append((block - batch["action"][window, i]).square())
    torch.testing.assert_close(out["loss"], torch.stack(errors).mean())
    out["loss"].backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
    with pytest.raises(ValueError, match="at least 2 frames"):
        model.loss(small_batch(windows=3, frames=1))


def test_a_cloned_policy_learns_and_comes_back_from_its_folder(data, tmp_path):
    changes = {
        "objective": "gcbc",
        "goal_blocks": 2,
        "steps": 200,
        "lr": 1e-2,
        "val_every": 100,
        "data": data,
    }
    result = lewm.train(**{**TINY_RUN, **changes, "out": tmp_path / "run"})
    rows = read_metrics(result.metrics_file)
    assert np.mean([row["loss"] for row in rows[-10:]]) < 0.8 * np.mean([row["loss"] for row in rows[:10]])
    assert "val_loss" in rows[-1] and "pred_loss" not in rows[-1]
    assert result.model_file == tmp_path / "run" / "model.pt"
    again = load_trained(result.folder)
    assert isinstance(again, Cloner) and not again.training
    assert again.action_scaling == result.model.action_scaling
    frames = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    latents = again.encode(frames)
    assert torch.equal(latents, result.model.encode(frames))
    assert again.act(latents, latents.flip(0)).shape == (2, 4)
    with pytest.raises(lewm.Error, match="behaviour-cloning policy"):
        lewm.save(again, tmp_path / "policy.safetensors")
    assert lewm.train(resume=result.folder, steps=202).steps == 202


# ---- encoders of others ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", ["embeddings", "tokens"])
def test_another_encoder_trains_and_comes_back_from_its_folder(factory, factories, data, tmp_path):
    changes = {"encoder": f"{factories}:{factory}", "steps": 4, "data": data, "out": tmp_path / "run"}
    result = lewm.train(**{**TINY_RUN, **changes})
    fresh = encoder_from(changes["encoder"])
    trained = result.model.encoder.module
    assert not torch.equal(trained.layers[0].weight, fresh.layers[0].weight)
    again = load_trained(result.folder)
    assert isinstance(again, LeWM)
    frames = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    assert torch.equal(again.encode(frames), result.model.encode(frames))
    blocks = torch.zeros(3, 2, 4, again.config.block_dim)
    assert again.rollout(again.encode(frames)[:, None], blocks).shape == (3, 2, 4, 8)
    with pytest.raises(lewm.Error, match=r"its encoder is some_encoders.Convolutions.*load_trained"):
        lewm.save(again, tmp_path / "model.safetensors")
    assert lewm.train(resume=result.folder, steps=5).steps == 5
    code = Path("some_encoders.py")
    code.write_text(
        code.read_text().replace("3, 12, 4", "3, 6, 4").replace("BatchNorm2d(12)", "BatchNorm2d(6)")
    )
    sys.modules.pop("some_encoders")
    message = r"model: encoder\.module\.layers\.0\.weight: expected \(6, 3, 4, 4\), got \(12, 3, 4, 4\); .* its encoder"
    with pytest.raises(lewm.Error, match=rf"model\.pt: {message}"):
        load_trained(result.folder)
    with pytest.raises(lewm.Error, match=rf"last\.pt: {message}"):
        lewm.train(resume=result.folder, steps=6)


def test_a_frozen_encoder_stays_as_it_was(factories, data, tmp_path):
    changes = {"encoder": f"{factories}:tokens", "freeze_encoder": True, "steps": 3, "data": data}
    result = lewm.train(**{**TINY_RUN, **changes, "out": tmp_path / "run"})
    state = result.model.encoder.module.state_dict()
    assert state["layers.1.num_batches_tracked"] == 0, "its batch norm saw training mode"
    assert not any(parameter.requires_grad for parameter in result.model.encoder.parameters())
    first = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["model"]
    lewm.train(resume=result.folder, steps=5)
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["model"]
    frozen = [name for name in first if name.startswith("encoder.module.")]
    assert frozen and all(torch.equal(first[name], last[name]) for name in frozen)
    assert not torch.equal(first["predictor.pos_embedding"], last["predictor.pos_embedding"])


def test_images_reach_it_normalised():
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.flatten(1)

    encoder = ExternalEncoder(Spy(), image_size=2, mean=mean, std=std)
    assert encoder.width == 12
    encoder(torch.full((1, 2, 2, 3), 51, dtype=torch.uint8))
    for channel in range(3):
        expected = (51 / 255 - mean[channel]) / std[channel]
        assert seen[-1][0, channel].flatten().tolist() == pytest.approx([expected] * 4, rel=1e-5)


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        ("some_encoders", ValueError, 'expected "module:factory"'),
        ("some_encoders:missing", ValueError, "no function 'missing'"),
        ("no_such_module:make", ImportError, "no_such_module"),
        ("some_encoders:nothing", TypeError, "to return a torch module, got NoneType"),
        ("some_encoders:pictures", ValueError, r"expected \(N, E\) or \(N, tokens, E\)"),
    ],
)
def test_unusable_encoders_are_refused(factory, error, message, factories, data, tmp_path):
    with pytest.raises(error, match=message):
        lewm.train(**{**TINY_RUN, "encoder": factory, "data": data, "out": tmp_path / "run"})


def test_only_another_encoder_can_be_frozen(data, tmp_path):
    with pytest.raises(ValueError, match="freeze_encoder: expected an encoder beside it"):
        lewm.train(**{**TINY_RUN, "freeze_encoder": True, "data": data, "out": tmp_path / "run"})
