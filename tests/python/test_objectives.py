"""The objectives that LeWM's is compared with: their terms, their gradients, and what becomes of the latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("h5py")

import lewm
from lewm.nn import LeWM
from lewm.nn.objectives import PLDM_WEIGHTS, pldm_terms
from lewm.training import read_metrics
from test_distributed_train import GROWN_TOLERANCE, TOLERANCE, torchrun
from test_nn import small_batch, small_model
from train_helpers import TINY_RUN, write_episodes, write_settings

EPS = 1e-4


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("data") / "episodes.h5")


def numpy_terms(z: np.ndarray) -> dict[str, float]:
    """PLDM's terms of latents (B, T, D), entry by entry from their definitions."""
    _, steps, width = z.shape
    by_batch, covariances, by_time = [], [], []
    for t in range(steps):
        covariance = np.cov(z[:, t].T, ddof=1)
        for i in range(width):
            by_batch.append(max(0.0, 1 - np.sqrt(covariance[i, i] + EPS)))
            covariances += [covariance[i, j] ** 2 for j in range(width) if j != i]
    for window in z - z.mean(axis=0):
        for dimension in window.T:
            by_time.append(max(0.0, 1 - np.sqrt(np.var(dimension, ddof=1) + EPS)))
    return {
        "variance_loss": np.mean(by_batch),
        "covariance_loss": np.mean(covariances),
        "similarity_loss": np.mean((z[:, 1:] - z[:, :-1]) ** 2),
        "time_variance_loss": np.mean(by_time),
    }


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 5.0])
def test_pldm_terms_are_those_of_their_definition(scale):
    z = scale * np.random.default_rng(0).standard_normal((9, 4, 5)) + 0.2
    got = pldm_terms(torch.from_numpy(z))
    expected = numpy_terms(z)
    assert set(got) == set(expected) == set(PLDM_WEIGHTS)
    for name, value in expected.items():
        assert float(got[name]) == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_pldm_terms_in_bfloat16_autocast_are_computed_in_float32():
    z = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(0)) * 0.5
    with torch.autocast("cpu", torch.bfloat16):
        inside = pldm_terms(z)
    for name, value in pldm_terms(z).items():
        assert inside[name].dtype == torch.float32 and inside[name] == value


def test_pldm_gradient():
    z = 0.5 * torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def weighted(latents: torch.Tensor) -> torch.Tensor:
        return sum(PLDM_WEIGHTS[name] * term for name, term in pldm_terms(latents).items())

    assert torch.autograd.gradcheck(weighted, z.requires_grad_())


@pytest.mark.peer
def test_pldm_terms_are_the_published_stacks():
    published = pytest.importorskip("stable_worldmodel.wm.loss").PLDMLoss()
    z = 0.7 * torch.randn(8, 4, 6, generator=torch.Generator().manual_seed(0)) + 0.1
    theirs, ours = published(z), pldm_terms(z)
    names = {
        "variance_loss": "std_loss",
        "covariance_loss": "cov_loss",
        "similarity_loss": "temp_align_loss",
        "time_variance_loss": "std_t_loss",
    }
    for name, other in names.items():
        torch.testing.assert_close(ours[name], theirs[other])


@pytest.mark.parametrize("shape", [(1, 4, 5), (6, 1, 5), (6, 4, 1), (6, 4)])
def test_pldm_refuses_what_has_no_variance(shape):
    with pytest.raises(ValueError, match=r"latents: expected \(B, T, D\)"):
        pldm_terms(torch.zeros(shape))


def test_losses_are_the_prediction_error_and_the_weighted_terms():
    model, batch = small_model(dropout=0.0), small_batch()
    latents = model.encode(batch["pixels"])
    error = (model.predict(latents[:, :-1], batch["action"][:, :-1]) - latents[:, 1:]).square().mean()

    plain = model.loss(batch, objective="none")
    assert set(plain) == {"loss", "pred_loss", "latents"}
    torch.testing.assert_close(plain["loss"], error)

    pldm = model.loss(batch, objective="pldm")
    expected = error + sum(PLDM_WEIGHTS[name] * term for name, term in pldm_terms(latents).items())
    torch.testing.assert_close(pldm["loss"], expected)
    with pytest.raises(ValueError, match="objective: expected one of"):
        model.loss(batch, objective="vicreg")


def test_pldm_reaches_every_parameter():
    model = small_model()
    model.loss(small_batch(), objective="pldm")["loss"].backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without


def test_without_a_regulariser_the_latents_collapse(data, tmp_path):
    """The same run with and without SIGReg: alone, the prediction loss is minimised by shrinking the latents."""
    runs = {}
    for objective in ("lewm", "pldm", "none"):
        changes = {"steps": 100, "lr": 5e-3, "val_every": 100, "log_every": 100, "checkpoint_every": 100}
        folder = tmp_path / objective
        result = lewm.train(**{**TINY_RUN, **changes, "objective": objective, "data": data, "out": folder})
        runs[objective] = read_metrics(result.metrics_file)[-1]
    spread = {objective: row["latent_std_mean"] for objective, row in runs.items()}
    assert spread["none"] < 0.1 * min(spread["lewm"], spread["pldm"]), spread
    assert runs["none"]["pred_loss"] < 0.1 * runs["lewm"]["pred_loss"]


def test_a_run_logs_its_terms_exports_and_resumes(data, tmp_path):
    result = lewm.train(**{**TINY_RUN, "objective": "pldm", "data": data, "out": tmp_path / "run"})
    rows = read_metrics(result.metrics_file)
    assert all(name in row for row in rows for name in PLDM_WEIGHTS)
    assert "sigreg_loss" not in rows[0] and "val_sigreg_loss" not in rows[-1]
    assert all(np.isfinite(row["effective_rank"]) for row in rows if "val_loss" in row)
    frames = np.zeros((1, 16, 16, 3), np.uint8)
    pytest.importorskip("lewm._core")
    assert lewm.load(result.model_file).encode(frames).shape == (1, 8)
    assert isinstance(LeWM.from_checkpoint(result.folder / "published"), LeWM)
    more = lewm.train(resume=result.folder, steps=14)
    assert more.steps == 14
    assert (result.folder / "config.yaml").read_text().count("objective: pldm") == 1


def test_pldm_says_at_once_that_one_window_is_too_few(data, tmp_path):
    short = write_episodes(
        tmp_path / "short.h5", episodes=2, length=6
    )  # the held-out one has a single window
    changes = {**TINY_RUN, "objective": "pldm", "out": tmp_path / "run", "val_fraction": 0.5, "steps": 1}
    with pytest.raises(
        ValueError, match=r"val_fraction: .* at least 2 windows to validate on, .* has 1; val_b"
    ):
        lewm.train(**{**changes, "data": short, "batch_size": 2})
    with pytest.raises(ValueError, match='batch_size: expected at least 2 with objective "pldm", got 1'):
        lewm.train(**{**changes, "data": data, "batch_size": 1})
    assert not (tmp_path / "run").exists()
    assert lewm.train(**{**changes, "data": short, "batch_size": 2, "val_batches": 0}).steps == 1


@pytest.mark.parametrize("batch_size", [8, 2])
def test_two_ranks_have_the_terms_of_the_whole_batch(data, tmp_path, batch_size):
    changes = {"data": str(data), "dropout": 0.0, "objective": "pldm", "steps": 4, "batch_size": batch_size}
    alone = lewm.train(**{**TINY_RUN, **changes, "out": tmp_path / "alone"})
    settings = write_settings(tmp_path / "s.yaml", **changes, out=str(tmp_path / "two"))
    done = torchrun(2, str(settings))
    assert done.returncode == 0, done.stderr
    one, two = (read_metrics(folder / "metrics.csv") for folder in (alone.folder, tmp_path / "two"))
    for name in ("loss", "grad_norm", *PLDM_WEIGHTS):
        assert two[0][name] == pytest.approx(one[0][name], rel=10 * TOLERANCE), name
        assert two[-1][name] == pytest.approx(one[-1][name], rel=GROWN_TOLERANCE), name


def test_an_unknown_objective_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="objective: expected one of"):
        lewm.train(**{**TINY_RUN, "objective": "vicreg", "data": data, "out": tmp_path / "run"})
