"""A run takes the published recipe's steps: its parameters are those of the same steps written out in torch."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("h5py")
pytest.importorskip("yaml")

import lewm
from lewm.nn import LeWM
from lewm.training import read_metrics
from lewm.training.data import WindowOrder
from train_helpers import TINY_MODEL, TINY_RUN, write_episodes

RATES = (0.5, 1.0, 1.0, 0.75, 0.25)  # of the peak: two steps of warm-up, then a cosine to 0
RECIPE = {
    **TINY_RUN,
    # What batch norm makes ineffective has a gradient of rounding errors, and Adam makes whole steps of those.
    "model": {**TINY_MODEL, "projector_norm": "layer"},
    "device": "cpu",
    "steps": len(RATES),
    "warmup": 0.4,
    "weight_decay": 0.1,
    "clip": 18.0,  # some of the gradients are larger: Adam would not notice it if all were
    "sigreg_weight": 0.3,
    "dropout": 0.0,
    "val_fraction": 0.0,
}
ROUNDING = 0.01 * TINY_RUN["lr"]  # absolute, of parameters after these steps
COMPILED = 1e-4  # relative, of the losses of a compiled model


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("data") / "episodes.h5")


def test_a_run_takes_the_steps_of_the_recipe(data, tmp_path):
    run = lewm.train(data=data, out=tmp_path / "run", **RECIPE)

    windows = lewm.TrajectoryDataset(data, frames=3, frame_skip=2)
    order = WindowOrder(len(windows), RECIPE["batch_size"], seed=0)
    torch.manual_seed(0)
    model = LeWM(run.model.config, dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=RECIPE["weight_decay"], fused=True)
    norms = []
    for step, rate in enumerate(RATES):
        batch = windows[order.batch(step)]
        latents = model.encode(batch["pixels"])
        predicted = model.predict(latents[:, :-1], batch["action"][:, :-1])
        regulariser = lewm.sigreg(latents.transpose(0, 1), num_proj=RECIPE["num_proj"], seed=step)
        loss = (predicted - latents[:, 1:]).square().mean() + RECIPE["sigreg_weight"] * regulariser
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), RECIPE["clip"]))
        optimizer.param_groups[0]["lr"] = rate * RECIPE["lr"]
        optimizer.step()

    assert min(norms) < RECIPE["clip"] < max(norms)
    trained, expected = (dict(m.named_parameters()) for m in (run.model, model))
    torch.testing.assert_close(trained, expected, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_model_takes_the_same_step(data, tmp_path, monkeypatch, backend):
    compiled = []

    def compile_module(self, compile_it=torch.nn.Module.compile):
        compiled.append(self)
        compile_it(self, backend=backend)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_module)
    runs = [
        lewm.train(data=data, out=tmp_path / name, **{**RECIPE, "steps": 1, "compile": name == "compiled"})
        for name in ("plain", "compiled")
    ]
    assert compiled == [runs[1].model.encoder, runs[1].model.predictor]
    (plain,), (own,) = (read_metrics(run.metrics_file) for run in runs)
    for name in ("loss", "pred_loss", "sigreg_loss", "grad_norm"):
        assert own[name] == pytest.approx(plain[name], rel=COMPILED), name
