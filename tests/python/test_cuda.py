"""device="cuda": what is refused without a GPU, and - marked cuda - that a GPU agrees with the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lewm
import synthetic

CONFIG = synthetic.small()
COSINE = 0.999  # DESIGN.md section 6, bf16


def _loading_with(module: str, folder: Path) -> str:
    """What lewm.load(device="cuda") says in a process that looks for the CUDA module at `module`."""
    lewm.save(synthetic.state(CONFIG), folder / "model.safetensors", config=CONFIG)
    program = (
        "import lewm, sys\n"
        "try:\n"
        "    lewm.load(sys.argv[1], device='cuda')\n"
        "except lewm.Error as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "LEWM_CUDA_MODULE": module, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "model.safetensors")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _compiled(folder: Path, name: str, source: str) -> str:
    """A shared library of C source, or a skip where there is no C compiler."""
    compiler = os.environ.get("CC", "cc")
    (folder / f"{name}.c").write_text(source)
    library = folder / f"{name}.so"
    try:
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-o", str(library), str(folder / f"{name}.c")], check=True
        )
    except FileNotFoundError:
        pytest.skip("no C compiler")
    return str(library)


def test_without_a_module_the_error_says_where_it_was_looked_for(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere.so")
    assert f"device: 'cuda' is not available: there is no CUDA module at {missing}" in _loading_with(
        missing, tmp_path
    )


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("not a library")
    assert "the CUDA module could not be loaded" in _loading_with(str(tmp_path / "text.so"), tmp_path)


def test_another_library_is_refused(tmp_path: Path) -> None:
    other = _compiled(tmp_path, "other", "int nothing(void) { return 0; }")
    assert "it is not lewm's CUDA module" in _loading_with(other, tmp_path)


def test_a_module_of_another_version_is_refused(tmp_path: Path) -> None:
    source = "static const int table[64] = {999, 1}; const void* lewm_cuda_table(void) { return table; }"
    newer = _compiled(tmp_path, "newer", source)
    assert "its table has version 999, this library reads version" in _loading_with(newer, tmp_path)


def test_doctor_says_what_to_do() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lewm", "doctor", "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LEWM_CUDA_MODULE": "/nowhere/x.so"},
        capture_output=True,
        text=True,
        check=True,
    )
    core = json.loads(done.stdout)["core"]
    assert core["cuda"] is False
    assert "install lewm where CMake finds nvcc" in core["cuda_reason"]


@pytest.mark.cuda
class TestOnAGpu:
    """Needs a GPU and the CUDA module."""

    @pytest.fixture
    def models(self, tmp_path: Path) -> tuple[lewm.Model, lewm.Model]:
        lewm.save(synthetic.state(CONFIG), tmp_path / "model.safetensors", config=CONFIG)
        path = tmp_path / "model.safetensors"
        return lewm.load(path, precision="fp32"), lewm.load(path, device="cuda")

    def test_encode_and_rollout_agree_with_the_cpu(self, models: tuple[lewm.Model, lewm.Model]) -> None:
        cpu, gpu = models
        rng = np.random.default_rng(0)
        frames = rng.integers(0, 256, (3, CONFIG.image_size, CONFIG.image_size, 3), np.uint8)
        latents = rng.standard_normal((2, 1, CONFIG.latent_dim), np.float32)
        actions = rng.standard_normal((2, 5, 4, CONFIG.block_dim), np.float32)
        for expected, got in (
            (cpu.encode(frames), gpu.encode(frames)),
            (cpu.rollout(latents, actions), gpu.rollout(latents, actions)),
        ):
            dot = (expected * got).sum(-1)
            lengths = np.linalg.norm(expected, axis=-1) * np.linalg.norm(got, axis=-1)
            assert (dot / lengths).min() >= COSINE

    @pytest.mark.parametrize("method", ["cem", "icem", "mppi", "predictive"])
    def test_plans_cost_what_the_cpus_cost(self, models: tuple[lewm.Model, lewm.Model], method: str) -> None:
        rng = np.random.default_rng(1)
        latents = rng.standard_normal((4, 1, CONFIG.latent_dim), np.float32)
        goals = rng.standard_normal((4, CONFIG.latent_dim), np.float32)
        plans = [lewm.Planner(model, method, horizon=4).plan_latents(latents, goals) for model in models]
        cpu, gpu = (
            models[0].cost(latents, goals, plan.actions[:, None]).mean(axis=1).mean() for plan in plans
        )
        assert gpu <= 1.01 * cpu

    def test_torch_tensors_stay_on_the_gpu(self, models: tuple[lewm.Model, lewm.Model]) -> None:
        torch = pytest.importorskip("torch")
        frames = torch.zeros(2, CONFIG.image_size, CONFIG.image_size, 3, dtype=torch.uint8, device="cuda")
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            latents = models[1].encode(frames)
        stream.synchronize()
        assert latents.is_cuda
        np.testing.assert_array_equal(latents.cpu().numpy(), models[1].encode(frames.cpu().numpy()))

    def test_sigreg_uses_the_module_and_agrees_with_the_formulas(self) -> None:
        torch = pytest.importorskip("torch")
        from lewm.nn import sigreg_cuda

        assert sigreg_cuda.available()
        z = torch.randn(4, 128, 192, generator=torch.Generator().manual_seed(2)).requires_grad_()
        on_gpu = z.detach().cuda().requires_grad_()
        values = [lewm.sigreg(x, seed=3) for x in (z, on_gpu)]
        for value in values:
            value.backward()
        assert values[1].item() == pytest.approx(values[0].item(), rel=1e-5)
        error = (on_gpu.grad.cpu() - z.grad).norm() / z.grad.norm()
        assert error <= 1e-4
