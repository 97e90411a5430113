"""The compiled core and the torch module compute what the published implementation computes (tests/golden)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import golden
import lewm
import synthetic
from lewm import _core
from lewm.checkpoint import Checkpoint
from quality import least_cosine

# Against the published implementation in fp32: latents absolute, costs relative; bf16: cosine of predicted latents.
FP32_LATENT = 1e-4
FP32_COST = 1e-4
BF16_COSINE = 0.999
REFIT = 1e-5  # absolute, of means and stds from the same elites

ISAS = _core.isas_available()
BF16_ISAS = [isa for isa in ISAS if "bf16" in _core.precisions(isa)]
SMALL_CASES = [case for case in synthetic.CASES if synthetic.CASES[case].image_size < 224]


def _cases(isas: list[str]) -> list[Any]:
    """Every case with every instruction set; the plain scalar one leaves the large cases but one out (it is slow)."""
    return [
        pytest.param(case, isa, id=f"{case}-{isa}")
        for case in synthetic.CASES
        for isa in isas
        if isa != "scalar" or case in SMALL_CASES or case == "published"
    ]


def _model(case: str, precision: str, isa: str) -> lewm.Model:
    """Predictor and encoder at this precision."""
    config = synthetic.CASES[case]
    checkpoint = Checkpoint(config, synthetic.state(config))
    return lewm.Model.from_checkpoint(checkpoint, precision, isa=isa, encoder_precision=precision)


def _past(past: NDArray[np.float32]) -> NDArray[np.float32] | None:
    return past if past.shape[1] else None


@pytest.mark.parametrize(("case", "isa"), _cases(ISAS))
def test_fp32_latents_rollouts_and_costs_equal_the_published_ones(case: str, isa: str) -> None:
    expected, model = golden.load(case), _model(case, "fp32", isa)
    config = model.config
    np.testing.assert_allclose(
        model.encode(golden.frames(config)), expected["latents"], rtol=0, atol=FP32_LATENT
    )
    for context in golden.contexts(config):
        latents, goal, actions, past = golden.problem(config, context)
        predicted = model.rollout(latents, actions, _past(past))
        np.testing.assert_allclose(predicted, expected[f"rollout_{context}"], rtol=0, atol=FP32_LATENT)
        cost = model.cost(latents, goal, actions, _past(past))
        np.testing.assert_allclose(cost, expected[f"cost_{context}"], rtol=FP32_COST)


@pytest.mark.parametrize(("case", "isa"), _cases(BF16_ISAS))
def test_bf16_latents_keep_their_direction(case: str, isa: str) -> None:
    expected, model = golden.load(case), _model(case, "bf16", isa)
    config = model.config
    assert least_cosine(model.encode(golden.frames(config)), expected["latents"]) >= BF16_COSINE
    for context in golden.contexts(config):
        latents, _, actions, past = golden.problem(config, context)
        assert (
            least_cosine(model.rollout(latents, actions, _past(past)), expected[f"rollout_{context}"])
            >= BF16_COSINE
        )


@pytest.mark.parametrize("case", golden.CEM)
def test_cem_on_the_same_noise_decides_as_the_published_one(case: str) -> None:
    """Every iteration: the same elites, and means and stds equal up to rounding."""
    expected, cem = golden.load(case), golden.CEM[case]
    config = synthetic.CASES[case]
    latents, goal, _, _ = golden.problem(config, 1)
    model = _model(case, "fp32", ISAS[-1])
    for iterations in range(1, cem.iterations + 1):
        planner = lewm.Planner(model, **{**cem.sizes(), "iterations": iterations}, seed=cem.seed)
        plan = planner.plan_latents(latents[:1], goal[:1])
        last = iterations - 1
        assert set(plan.elites[0]) == set(expected["cem_elites"][last])
        np.testing.assert_allclose(plan.actions[0], expected["cem_mean"][last], rtol=0, atol=REFIT)
        np.testing.assert_allclose(plan.std[0], expected["cem_std"][last], rtol=0, atol=REFIT)


@pytest.mark.parametrize("case", synthetic.CASES)
def test_torch_module_equals_the_published_one(case: str) -> None:
    torch = pytest.importorskip("torch")
    expected, config = golden.load(case), synthetic.CASES[case]
    model = lewm.LeWM(config)
    model.load_state_dict(
        {name: torch.from_numpy(np.asarray(t)) for name, t in synthetic.state(config).items()}
    )
    model.eval()
    with torch.inference_mode():
        encoded = model.encode(torch.from_numpy(golden.frames(config)))
        np.testing.assert_allclose(encoded.numpy(), expected["latents"], rtol=0, atol=FP32_LATENT)
        for context in golden.contexts(config):
            latents, goal, actions, past = map(torch.from_numpy, golden.problem(config, context))
            predicted = model.rollout(latents, actions, past)
            np.testing.assert_allclose(
                predicted.numpy(), expected[f"rollout_{context}"], rtol=0, atol=FP32_LATENT
            )
            cost = model.cost(latents, goal, actions, past)
            np.testing.assert_allclose(cost.numpy(), expected[f"cost_{context}"], rtol=FP32_COST)


def test_goldens_are_sensitive() -> None:
    """A golden rollout is far from what a model without its adaLN gates, or with other weights, predicts."""
    config = synthetic.CASES["small"]
    latents, _, actions, _ = golden.problem(config, 1)
    expected = golden.load("small")["rollout_1"]
    state = synthetic.state(config)
    name = "predictor.transformer.layers.0.adaLN_modulation.1.bias"
    for changed in ({**state, name: state[name] * 0}, synthetic.state(config, seed=1)):
        model = lewm.Model.from_checkpoint(Checkpoint(config, changed), "fp32")
        assert np.abs(model.rollout(latents, actions) - expected).max() > 100 * FP32_LATENT
