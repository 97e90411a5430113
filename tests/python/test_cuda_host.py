"""device="cuda" from Python's end to the kernels, without a GPU: lewm loads the module of the host run.

Needs LEWM_CUDA_HOST_MODULE (docs/gpu.md). Every test is a process of its own, because the core looks for its module once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lewm
import synthetic

HERE = Path(__file__).resolve().parent
CONFIG = synthetic.small()
COSINE = 0.999  # DESIGN.md section 6, bf16

pytestmark = pytest.mark.skipif(
    "LEWM_CUDA_HOST_MODULE" not in os.environ, reason="LEWM_CUDA_HOST_MODULE is not set"
)

START = """
import sys
import numpy as np, host_gpu
gpu = host_gpu.install()
import lewm
model = lewm.load(sys.argv[1], device="cuda")
c = model.config
rng = np.random.default_rng(0)
draw = lambda *shape: rng.standard_normal(shape, np.float32)
"""


@pytest.fixture
def run(tmp_path: Path):
    """Runs a program after START in a process; it saves arrays with np.savez(sys.argv[2], ...), which are returned."""
    path, out = tmp_path / "model.safetensors", tmp_path / "out.npz"
    lewm.save(synthetic.state(CONFIG), path, config=CONFIG)

    def call(program: str) -> dict[str, np.ndarray]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
        done = subprocess.run(
            [sys.executable, "-c", START + program, str(path), str(out)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if not out.exists():
            return {}
        with np.load(out) as arrays:
            return dict(arrays)

    call.path = path  # type: ignore[attr-defined]
    return call


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    """Of rows, the least."""
    return float(((x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)).min())


def test_model_on_host_arrays_agrees_with_the_cpu(run) -> None:
    got = run("""
frames = rng.integers(0, 256, (3, c.image_size, c.image_size, 3), np.uint8)
latents, actions, past = draw(2, 2, c.latent_dim), draw(2, 3, 4, c.block_dim), draw(2, 1, c.block_dim)
goal = draw(2, c.latent_dim)
assert model.device == "cuda" and model.precision == "bf16"
np.savez(sys.argv[2], frames=frames, latents=latents, actions=actions, past=past, goal=goal, encoded=model.encode(frames),
    rolled=model.rollout(latents, actions, past), costs=model.cost(latents, goal, actions, past))
""")
    cpu = lewm.load(run.path, precision="fp32")
    assert cosine(got["encoded"], cpu.encode(got["frames"])) >= COSINE
    rolled = cpu.rollout(got["latents"], got["actions"], got["past"])
    assert cosine(got["rolled"], rolled) >= COSINE
    costs = cpu.cost(got["latents"], got["goal"], got["actions"], got["past"])
    np.testing.assert_allclose(got["costs"], costs, rtol=0.05)


def test_gpu_arrays_give_the_bytes_of_host_arrays_and_stay_there(run) -> None:
    run("""
frames = rng.integers(0, 256, (2, c.image_size, c.image_size, 3), np.uint8)
floats = draw(2, 3, c.image_size, c.image_size)
latents, actions, goal = draw(2, 1, c.latent_dim), draw(2, 3, 4, c.block_dim), draw(2, c.latent_dim)
on = gpu.array
for got, expected in (
    (model.encode(on(frames)), model.encode(frames)),
    (model.encode(on(floats)), model.encode(floats)),
    (model.rollout(on(latents), on(actions)), model.rollout(latents, actions)),
    (model.cost(on(latents), on(goal), on(actions)), model.cost(latents, goal, actions)),
):
    assert isinstance(got, host_gpu.GpuArray)
    np.testing.assert_array_equal(got.get(), expected)
assert set(gpu.streams_asked_for) == {gpu.stream}
""")


def test_raw_frames_are_resized_on_the_device(run) -> None:
    got = run("""
raw = rng.integers(0, 256, (2, 45, 61, 3), np.uint8)
out = {"raw": raw}
for fit in ("stretch", "crop", "letterbox"):
    out[fit] = model.encode(raw, fit=fit)
    np.testing.assert_array_equal(model.encode(gpu.array(raw), fit=fit).get(), out[fit])
np.savez(sys.argv[2], **out)
""")
    cpu = lewm.load(run.path, precision="fp32")
    for fit in ("stretch", "crop", "letterbox"):
        assert cosine(got[fit], cpu.encode(got["raw"], fit=fit)) >= COSINE


@pytest.mark.parametrize("method", ["cem", "icem", "mppi", "predictive"])
def test_plans_of_gpu_arrays_have_the_bytes_of_host_arrays(run, method: str) -> None:
    run(f"""
planner = lewm.Planner(model, "{method}", samples=12, elites=3, iterations={1 if method == "predictive" else 2}, horizon=3)
latents, goal = draw(2, 1, c.latent_dim), draw(2, c.latent_dim)
warm = draw(2, 1, c.block_dim)
on = gpu.array
for many in (True, False):
    for deadline in (None, 1e6):
        pick = (lambda x: x) if many else (lambda x: x[0])
        expected = planner.plan_latents(pick(latents), pick(goal), deadline, warm_start=pick(warm))
        got = planner.plan_latents(on(pick(latents)), on(pick(goal)), deadline, warm_start=on(pick(warm)))
        assert got.iterations == expected.iterations
        for name in ("actions", "cost", "elite_cost", "std", "elites"):
            array = getattr(got, name)
            assert isinstance(array, host_gpu.GpuArray), name
            np.testing.assert_array_equal(array.get(), getattr(expected, name), name)
actions = draw(2, 4, 3, c.block_dim)
np.testing.assert_array_equal(
    planner.evaluate(on(latents), on(goal), on(actions)).get(), planner.evaluate(latents, goal, actions))
""")


def test_plans_from_frames_on_the_gpu(run) -> None:
    run("""
planner = lewm.Planner(model, samples=12, elites=3, iterations=2, horizon=3)
size = c.image_size
frames = rng.integers(0, 256, (2, size, size, 3), np.uint8)
goals = rng.integers(0, 256, (2, size, size, 3), np.uint8)
past = draw(1, c.block_dim)
on = gpu.array
pairs = [
    (planner.plan(on(frames[0]), on(goals[0])), planner.plan(frames[0], goals[0])),
    (planner.plan(on(frames), on(goals)), planner.plan(frames, goals)),
    (planner.plan(on(frames), on(goals[0]), past_actions=past), planner.plan(frames, goals[0], past_actions=past)),
]
for got, expected in pairs:
    np.testing.assert_array_equal(got.actions.get(), expected.actions)
    np.testing.assert_array_equal(got.cost.get(), expected.cost)
controller = lewm.Controller(planner)
assert np.isfinite(controller.act(frames[0], goals[0])).all()
""")


def test_wrong_arrays_are_named(run) -> None:
    run("""
planner = lewm.Planner(model, samples=12, elites=3, iterations=2, horizon=3)
on, d = gpu.array, c.latent_dim
latents, goal, actions = draw(1, 1, d), draw(1, d), draw(1, 3, 2, c.block_dim)
def refused(kind, words, call):
    try:
        call()
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)
refused(TypeError, "latents: expected float32, got float64", lambda: planner.plan_latents(on(latents.astype("f8")), on(goal)))
refused(ValueError, f"latents: expected (1, C, {d}), got (1, 1, {d - 1})", lambda: planner.plan_latents(on(latents[..., 1:]), on(goal)))
refused(ValueError, "goal: expected an array in the GPU's memory, as the others, got ndarray", lambda: planner.plan_latents(on(latents), goal))
refused(ValueError, "warm_start: expected at most 3 blocks, got 4", lambda: planner.plan_latents(on(latents), on(goal), warm_start=on(draw(1, 4, c.block_dim))))
refused(ValueError, "past_actions: needed with 2 context frames", lambda: planner.plan_latents(on(draw(1, 2, d)), on(goal)))
refused(TypeError, "frames: expected uint8 or float32, got float64", lambda: model.encode(on(draw(1, 8, 8, 3).astype("f8"))))
refused(ValueError, "actions: expected (1, S, H,", lambda: model.rollout(on(latents), on(actions[..., 1:])))
refused(ValueError, "fit: expected None or one of stretch, crop, letterbox, got 'tile'", lambda: model.encode(on(draw(1, 3, 8, 8)), fit="tile"))
cpu = lewm.load(sys.argv[1])
refused(ValueError, "load it with device='cuda'", lambda: cpu.encode(on(draw(1, 3, 8, 8))))
refused(ValueError, "load it with device='cuda'", lambda: lewm.Planner(cpu).plan_latents(on(latents), on(goal)))
""")
