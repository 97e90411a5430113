"""The parity of test_parity_golden.py with the published implementation itself, installed by benches/peers.txt."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import golden
import lewm
import synthetic
from lewm.checkpoint import Checkpoint
from lewm.config import LeWMConfig

pytestmark = pytest.mark.peer
torch = pytest.importorskip("torch")
pytest.importorskip("stable_worldmodel", reason="pip install -r benches/peers.txt")
pytest.importorskip("transformers")
sys.path.insert(0, str(golden.FOLDER))
published_model = pytest.importorskip("published_model")

FP32_LATENT = 1e-4
FP32_COST = 1e-4
CASES = ["published", "small", "widths", "one_head"]


def _pair(config: LeWMConfig, seed: int) -> tuple[lewm.Model, Any]:
    """Our model and the published one on the same weights."""
    state = synthetic.state(config, seed)
    return lewm.Model.from_checkpoint(Checkpoint(config, state), "fp32"), published_model.build(config, state)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [1, 2])
def test_latents_rollouts_and_costs(case: str, seed: int) -> None:
    config = synthetic.CASES[case]
    model, published = _pair(config, seed)
    frames = synthetic.frames(seed, 2, config.image_size)
    np.testing.assert_allclose(
        model.encode(frames), published_model.encode(published, frames), rtol=0, atol=FP32_LATENT
    )
    for context in range(1, config.history + 1):
        latents, goal, actions, past = golden.problem(config, context)
        predicted, cost = published_model.rollout_and_cost(published, latents, goal, actions, past)
        executed = past if context > 1 else None
        ours = model.rollout(latents, actions, executed)
        np.testing.assert_allclose(ours, predicted, rtol=0, atol=FP32_LATENT)
        np.testing.assert_allclose(model.cost(latents, goal, actions, executed), cost, rtol=FP32_COST)


@pytest.mark.parametrize("case", golden.CEM)
def test_cem_on_the_same_noise(case: str) -> None:
    config = synthetic.CASES[case]
    cem = golden.Cem(**{**golden.CEM[case].__dict__, "iterations": 3})
    model, published = _pair(config, 0)
    latents, goal, _, _ = golden.problem(config, 1)
    trace = published_model.solve(
        published, config, latents[:1], goal[:1], lambda i: golden.cem_noise(config, cem, i), **cem.sizes()
    )
    for done, step in enumerate(trace, start=1):
        planner = lewm.Planner(model, **{**cem.sizes(), "iterations": done}, seed=cem.seed)
        plan = planner.plan_latents(latents[:1], goal[:1])
        assert set(plan.elites[0]) == set(step["elites"])
        np.testing.assert_allclose(plan.actions[0], step["mean"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(plan.std[0], step["std"], rtol=0, atol=1e-5)


@pytest.fixture
def vit_hf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stable-pretraining (large) is not installed, a stand-in for the one function that config.json names."""
    try:
        import stable_pretraining.backbone.utils  # noqa: F401
    except ImportError:
        from transformers import ViTConfig, ViTModel

        def build(size: str, pretrained: bool, use_mask_token: bool, **settings: Any) -> Any:
            assert size == "tiny" and not pretrained
            sizes = {
                "hidden_size": 192,
                "num_hidden_layers": 12,
                "num_attention_heads": 3,
                "intermediate_size": 768,
            }
            config = ViTConfig(**{**sizes, **settings})
            return ViTModel(config, add_pooling_layer=False, use_mask_token=use_mask_token)

        for name in (
            "stable_pretraining",
            "stable_pretraining.backbone",
            "stable_pretraining.backbone.utils",
        ):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules["stable_pretraining"].backbone = sys.modules["stable_pretraining.backbone"]  # type: ignore
        sys.modules["stable_pretraining.backbone"].utils = sys.modules["stable_pretraining.backbone.utils"]  # type: ignore
        sys.modules["stable_pretraining.backbone.utils"].vit_hf = build  # type: ignore


@pytest.mark.usefixtures("vit_hf")
@pytest.mark.parametrize("case", ["published", "small", "widths", "one_head"])
def test_folders_that_we_write_load_there_and_compute_the_same(case: str, tmp_path: Path) -> None:
    pytest.importorskip("hydra")
    import transformers
    from stable_worldmodel.wm.utils import load_pretrained

    config, state = synthetic.CASES[case], synthetic.state(synthetic.CASES[case], 3)
    folder = tmp_path / "checkpoints" / "run"
    naming = 5 if int(transformers.__version__.split(".")[0]) >= 5 else 4
    lewm.save(state, folder, config=config, transformers=naming)
    published = load_pretrained("run", cache_dir=str(tmp_path)).eval()
    frames = synthetic.frames(3, 1, config.image_size)
    expected = published_model.encode(published, frames)
    np.testing.assert_allclose(lewm.load(folder, "fp32").encode(frames), expected, rtol=0, atol=FP32_LATENT)


def test_state_dicts_that_they_write_load_here(tmp_path: Path) -> None:
    config, state = synthetic.CASES["small"], synthetic.state(synthetic.CASES["small"], 4)
    published = published_model.build(config, state)
    lewm.save(state, tmp_path, config=config)
    torch.save(published.state_dict(), tmp_path / "weights.pt")
    read = lewm.checkpoint.read_checkpoint(tmp_path)
    assert read.config == config
    for name, tensor in state.items():
        np.testing.assert_array_equal(read.state[name], tensor)
