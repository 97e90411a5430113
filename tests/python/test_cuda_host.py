"""device="cuda" from Python's end to the kernels: on the CPU with the module of the host run, and on a GPU with CuPy.

The host run needs LEWM_CUDA_HOST_MODULE (docs/gpu.md); what runs on a GPU is marked cuda. Every test is a process of
its own: the core looks for its module once.
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
from processes import environment
from quality import least_cosine

CONFIG = synthetic.small(  # every thread of every block is executed: as little of them as shows everything
    image_size=16,
    patch_size=8,
    encoder_dim=24,
    encoder_depth=2,
    encoder_heads=2,
    encoder_mlp_dim=32,
    latent_dim=24,
    projector_dim=32,
    pred_proj_dim=32,
    predictor_depth=2,
    predictor_heads=2,
    predictor_head_dim=8,
    predictor_mlp_dim=32,
    predictor_dim=24,
    predictor_output_dim=24,
)
COSINE = 0.999  # DESIGN.md section 6, bf16

needs_host_module = pytest.mark.skipif(
    "LEWM_CUDA_HOST_MODULE" not in os.environ, reason="LEWM_CUDA_HOST_MODULE is not set"
)
DEVICES = {
    "host run": "import host_gpu; gpu = host_gpu.install()",
    "GPU": "import types, cupy; gpu = types.SimpleNamespace(array=cupy.asarray, Array=cupy.ndarray)",
}

START = """
import sys
import numpy as np
{device}
import lewm
model = lewm.load(sys.argv[1], device="cuda")
c = model.config
rng = np.random.default_rng(0)
draw = lambda *shape: rng.standard_normal(shape, np.float32)
"""


@pytest.fixture(
    params=[
        pytest.param("host run", marks=needs_host_module),
        pytest.param("GPU", marks=pytest.mark.cuda),
    ]
)
def run(request: pytest.FixtureRequest, tmp_path: Path):
    """Runs a program after START in a process; it saves arrays with np.savez(sys.argv[2], ...), which are returned."""
    start = START.format(device=DEVICES[request.param])
    path, out = tmp_path / "model.safetensors", tmp_path / "out.npz"
    lewm.save(synthetic.state(CONFIG), path, config=CONFIG)

    def call(program: str) -> dict[str, np.ndarray]:
        done = subprocess.run(
            [sys.executable, "-c", start + program, str(path), str(out)],
            env=environment(),
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


def test_model_on_host_arrays_agrees_with_the_cpu(run) -> None:
    got = run("""
frames = rng.integers(0, 256, (3, c.image_size, c.image_size, 3), np.uint8)
latents, actions, past = draw(2, 2, c.latent_dim), draw(2, 3, 4, c.block_dim), draw(2, 1, c.block_dim)
goal = draw(2, c.latent_dim)
assert model.device == "cuda" and model.precision == "bf16"
np.savez(sys.argv[2], frames=frames, latents=latents, actions=actions, past=past, goal=goal,
    encoded=model.encode(frames), rolled=model.rollout(latents, actions, past),
    costs=model.cost(latents, goal, actions, past))
""")
    cpu = lewm.load(run.path, precision="fp32")
    assert least_cosine(got["encoded"], cpu.encode(got["frames"])) >= COSINE
    rolled = cpu.rollout(got["latents"], got["actions"], got["past"])
    assert least_cosine(got["rolled"], rolled) >= COSINE
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
    assert isinstance(got, gpu.Array)
    np.testing.assert_array_equal(got.get(), expected)
assert not hasattr(gpu, "streams_asked_for") or set(gpu.streams_asked_for) == {gpu.stream}
""")


def test_raw_frames_are_resized_on_the_device(run) -> None:
    got = run("""
raw = rng.integers(0, 256, (2, 19, 27, 3), np.uint8)
out = {"raw": raw}
for fit in ("stretch", "crop", "letterbox"):
    out[fit] = model.encode(raw, fit=fit)
    np.testing.assert_array_equal(model.encode(gpu.array(raw), fit=fit).get(), out[fit])
np.savez(sys.argv[2], **out)
""")
    cpu = lewm.load(run.path, precision="fp32")
    for fit in ("stretch", "crop", "letterbox"):
        assert least_cosine(got[fit], cpu.encode(got["raw"], fit=fit)) >= COSINE


@pytest.mark.parametrize("method", ["cem", "icem", "mppi", "predictive"])
def test_plans_of_gpu_arrays_have_the_bytes_of_host_arrays(run, method: str) -> None:
    iterations = 1 if method == "predictive" else 2
    run(f"""
planner = lewm.Planner(model, "{method}", samples=12, elites=3, iterations={iterations}, horizon=3)
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
            assert isinstance(array, gpu.Array), name
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


WRONG = (
    (TypeError, "latents: expected float32, got float64", "plan(on(latents.astype('f8')), on(goal))"),
    (ValueError, "latents: expected (1, C, 24), got (1, 1, 23)", "plan(on(latents[..., 1:]), on(goal))"),
    (ValueError, "goal: expected an array in the GPU's memory, as the others", "plan(on(latents), goal)"),
    (
        ValueError,
        "warm_start: expected at most 3 blocks, got 4",
        "plan(on(latents), on(goal), warm_start=on(draw(1, 4, c.block_dim)))",
    ),
    (ValueError, "past_actions: needed with 2 context frames", "plan(on(draw(1, 2, 24)), on(goal))"),
    (TypeError, "frames: expected uint8 or float32, got float64", "model.encode(on(floats.astype('f8')))"),
    (ValueError, "actions: expected (1, S, H,", "model.rollout(on(latents), on(actions[..., 1:]))"),
    (
        ValueError,
        "fit: expected None or one of stretch, crop, letterbox, got 'tile'",
        "model.encode(on(floats), 'tile')",
    ),
    (ValueError, "load it with device='cuda'", "cpu.encode(on(floats))"),
    (ValueError, "load it with device='cuda'", "lewm.Planner(cpu).plan_latents(on(latents), on(goal))"),
)


def test_wrong_arrays_are_named(run) -> None:
    cases = [(kind.__name__, words, expression) for kind, words, expression in WRONG]
    run(f"""
plan = lewm.Planner(model, samples=12, elites=3, iterations=2, horizon=3).plan_latents
cpu = lewm.load(sys.argv[1])
on = gpu.array
latents, goal, actions = draw(1, 1, c.latent_dim), draw(1, c.latent_dim), draw(1, 3, 2, c.block_dim)
floats = draw(1, 3, c.image_size, c.image_size)
for kind, words, expression in {cases!r}:
    try:
        eval(expression)
    except Exception as error:
        assert type(error).__name__ == kind and words in str(error), (expression, repr(error))
    else:
        raise AssertionError(expression)
""")


SIGREG = """
import contextlib, sys
import numpy as np, host_gpu
host_gpu.install()
import torch, lewm
from lewm.nn import sigreg_cuda
module = sys.modules["lewm.nn.sigreg"]  # not the function of that name
assert sigreg_cuda.available(torch.device("cpu"))
# CPU tensors stand in for CUDA ones: their memory is what the kernels get, and the CPU's operators are the CUDA ones.
torch.cuda.device_of = lambda tensor: contextlib.nullcontext()
module._core, module._sums_plain, module._sigreg_plain = None, module._sums_cuda, module._sigreg_cuda
rank, parts, out, rendezvous = int(sys.argv[1]), [int(n) for n in sys.argv[2].split(",")], sys.argv[3], sys.argv[4]
z = torch.randn(3, sum(parts), 10, generator=torch.Generator().manual_seed(1))
mine = z.split(parts, dim=1)[rank].clone().requires_grad_()
group = None
if len(parts) > 1:
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=len(parts))
    group = torch.distributed.group.WORLD
value = lewm.sigreg(mine, num_proj=70, seed=5, process_group=group, averaged_gradients=False)
value.backward()
np.savez(out, value=value.detach().numpy(), gradient=mine.grad.numpy())
"""


@needs_host_module
@pytest.mark.parametrize("parts", ["9", "4,5", "2,1,6", "6,0,3"])
def test_sigreg_on_cuda_tensors_over_ranks(tmp_path: Path, parts: str) -> None:
    torch = pytest.importorskip("torch")
    ranks = parts.split(",")
    running = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                SIGREG,
                str(rank),
                parts,
                str(tmp_path / f"{rank}.npz"),
                str(tmp_path / "meet"),
            ],
            env=environment(),
        )
        for rank in range(len(ranks))
    ]
    assert [process.wait(timeout=300) for process in running] == [0] * len(ranks)
    z = torch.randn(3, 9, 10, generator=torch.Generator().manual_seed(1)).requires_grad_()
    value = lewm.sigreg(z, num_proj=70, seed=5)
    value.backward()
    results = [np.load(tmp_path / f"{rank}.npz") for rank in range(len(ranks))]
    for result in results:
        np.testing.assert_allclose(result["value"], value.item(), rtol=1e-5)
    gradient = np.concatenate([result["gradient"] for result in results], axis=1)
    assert np.linalg.norm(gradient - z.grad.numpy()) <= 1e-5 * np.linalg.norm(z.grad.numpy())
