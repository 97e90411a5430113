"""device="cuda": what is refused without a GPU, and - marked cuda - that a GPU agrees with the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lewm
import synthetic
from lewm.checkpoint import Checkpoint
from processes import environment
from quality import least_cosine

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
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "model.safetensors")],
        env=environment(LEWM_CUDA_MODULE=module),
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
        env=environment(LEWM_CUDA_MODULE="/nowhere/x.so"),
        capture_output=True,
        text=True,
        check=True,
    )
    core = json.loads(done.stdout)["core"]
    assert core["cuda"] is False
    assert "install lewm where CMake finds nvcc" in core["cuda_reason"]


def _draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


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
        assert least_cosine(gpu.encode(frames), cpu.encode(frames)) >= COSINE
        assert least_cosine(gpu.rollout(latents, actions), cpu.rollout(latents, actions)) >= COSINE

    @pytest.mark.parametrize("method", ["cem", "icem", "mppi", "predictive"])
    def test_plans_cost_what_the_cpus_cost(self, models: tuple[lewm.Model, lewm.Model], method: str) -> None:
        latents, goals = _draw(50, 1, CONFIG.latent_dim), _draw(50, CONFIG.latent_dim)
        plans = [lewm.Planner(model, method, horizon=4).plan_latents(latents, goals) for model in models]
        cpu, gpu = (
            models[0].cost(latents, goals, plan.actions[:, None]).mean(axis=1).mean() for plan in plans
        )
        assert gpu <= 1.01 * cpu

    def test_published_sizes_agree_with_the_cpu(self) -> None:
        config = synthetic.CASES["published"]
        checkpoint = Checkpoint(config, synthetic.state(config))
        cpu, gpu = (
            lewm.Model.from_checkpoint(checkpoint, precision="fp32"),
            lewm.Model.from_checkpoint(checkpoint, device="cuda"),
        )
        frames = synthetic.frames(0, 3, config.image_size)
        latents, actions = _draw(2, 2, config.latent_dim), _draw(2, 70, 5, config.block_dim)
        past = _draw(2, 1, config.block_dim)
        assert least_cosine(gpu.encode(frames), cpu.encode(frames)) >= COSINE
        assert (
            least_cosine(gpu.rollout(latents, actions, past), cpu.rollout(latents, actions, past)) >= COSINE
        )

    @pytest.mark.parametrize("method", ["cem", "icem", "mppi", "predictive"])
    def test_a_problem_has_the_same_bytes_alone_and_in_a_batch(
        self, models: tuple[lewm.Model, lewm.Model], method: str
    ) -> None:
        latents, goals = _draw(8, 1, CONFIG.latent_dim), _draw(8, CONFIG.latent_dim)
        planner = lewm.Planner(models[1], method, horizon=4)
        together = planner.plan_latents(latents, goals)
        again = planner.plan_latents(latents, goals)
        alone = [planner.plan_latents(latents[i], goals[i]).actions for i in range(8)]
        np.testing.assert_array_equal(together.actions, again.actions)
        np.testing.assert_array_equal(together.actions, np.stack(alone))

    @pytest.mark.parametrize(
        ("method", "options"),
        [
            ("predictive", {}),
            ("predictive", {"action_hold": 5, "bounds": (-0.5, 0.7)}),
            ("icem", {"elites": 1, "iterations": 1, "return_best": True}),
        ],
    )
    def test_candidates_have_the_cpus_bits(
        self, models: tuple[lewm.Model, lewm.Model], method: str, options: dict[str, Any]
    ) -> None:
        latents, goals = _draw(32, 1, CONFIG.latent_dim), _draw(32, CONFIG.latent_dim)
        cpu, gpu = (
            lewm.Planner(model, method, samples=100, horizon=3, **options).plan_latents(latents, goals)
            for model in models
        )
        same = cpu.elites[:, 0] == gpu.elites[:, 0]  # costs differ by bf16, so the best may be another one
        assert same.mean() > 0.5
        np.testing.assert_array_equal(gpu.actions[same], cpu.actions[same])

    def test_deadlines_are_kept(self, models: tuple[lewm.Model, lewm.Model]) -> None:
        planner = lewm.Planner(models[1], iterations=1000)
        latents, goals = _draw(1, CONFIG.latent_dim), _draw(CONFIG.latent_dim)
        for _ in range(3):
            plan = planner.plan_latents(latents, goals, deadline=0.02)
        assert 0 < plan.iterations < 1000
        assert np.isfinite(plan.actions).all()

    def test_torch_s_search_plans_alike_on_the_gpu(self, models: tuple[lewm.Model, lewm.Model]) -> None:
        pytest.importorskip("torch")
        latents, goals = _draw(4, 1, CONFIG.latent_dim), _draw(4, CONFIG.latent_dim)
        compiled = lewm.Planner(models[0], horizon=4).plan_latents(latents, goals)
        torch_s = lewm.Planner(models[0], horizon=4, backend="torch", device="cuda").plan_latents(
            latents, goals
        )
        np.testing.assert_allclose(torch_s.cost, compiled.cost, rtol=1e-2)

    def test_torch_tensors_stay_on_the_gpu(self, models: tuple[lewm.Model, lewm.Model]) -> None:
        torch = pytest.importorskip("torch")
        shape = (2, CONFIG.image_size, CONFIG.image_size, 3)
        frames = torch.randint(256, shape, dtype=torch.uint8, device="cuda")
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            latents = models[1].encode(frames)
        stream.synchronize()
        assert latents.is_cuda
        np.testing.assert_array_equal(latents.cpu().numpy(), models[1].encode(frames.cpu().numpy()))

    @pytest.mark.parametrize(
        ("shape", "num_proj", "scale"),
        [
            ((4, 128, 192), 1024, 1.0),
            ((1, 20_000, 16), 64, 1.0),
            ((2, 2, 1), 1, 1.0),
            ((3, 65, 70), 33, 100.0),
        ],
    )
    def test_sigreg_uses_the_module_and_agrees_with_the_cpu(
        self, shape: tuple[int, int, int], num_proj: int, scale: float
    ) -> None:
        torch = pytest.importorskip("torch")
        from lewm.nn import sigreg_cuda

        assert sigreg_cuda.available(torch.device("cuda"))
        z = (scale * torch.from_numpy(_draw(*shape))).requires_grad_()
        on_gpu = z.detach().cuda().requires_grad_()
        values = [lewm.sigreg(x, num_proj=num_proj, seed=3) for x in (z, on_gpu)]
        for value in values:
            value.backward()
        assert values[1].item() == pytest.approx(values[0].item(), rel=1e-5)
        error = (on_gpu.grad.cpu() - z.grad).norm() / z.grad.norm()
        assert error <= 1e-4

    def test_sigreg_of_bf16_tensors_and_in_one_graph(self) -> None:
        torch = pytest.importorskip("torch")
        z = torch.from_numpy(_draw(2, 40, 24)).cuda().bfloat16()
        expected = lewm.sigreg(z.float(), seed=1)
        assert lewm.sigreg(z, seed=1).item() == pytest.approx(expected.item(), rel=1e-5)
        compiled = torch.compile(lambda x: 2 * lewm.sigreg(x, seed=1), fullgraph=True, backend="aot_eager")
        assert compiled(z.float()).item() == pytest.approx(2 * expected.item(), rel=1e-5)


@pytest.mark.cuda
class TestTrainingOnAGpu:
    """`lewm.train` with device="cuda"; without dropout, so that the CPU draws nothing else."""

    @pytest.fixture
    def train(self, tmp_path: Path) -> Callable[..., list[dict[str, float]]]:
        pytest.importorskip("torch")
        pytest.importorskip("h5py")
        from lewm.training import read_metrics
        from train_helpers import TINY_RUN, write_episodes

        data = write_episodes(tmp_path / "episodes.h5")

        def call(name: str, **changes: Any) -> list[dict[str, float]]:
            settings = {**TINY_RUN, "data": str(data), "out": tmp_path / name, "dropout": 0.0, **changes}
            return read_metrics(lewm.train(**settings).metrics_file)

        return call

    def test_it_starts_with_the_cpus_losses(self, train: Callable[..., list[dict[str, float]]]) -> None:
        cpu, gpu = (train(device, device=device) for device in ("cpu", "cuda"))
        for name in ("loss", "pred_loss", "sigreg_loss"):
            assert gpu[0][name] == pytest.approx(cpu[0][name], rel=2e-3), name
            assert gpu[-1][name] == pytest.approx(cpu[-1][name], rel=5e-2), name

    def test_bf16_and_processes_that_read(self, train: Callable[..., list[dict[str, float]]]) -> None:
        fp32 = train("fp32", device="cuda")
        bf16 = train("bf16", device="cuda", precision="bf16", workers=2)
        assert [row["step"] for row in bf16] == [row["step"] for row in fp32]
        assert bf16[0]["loss"] == pytest.approx(fp32[0]["loss"], rel=2e-2)

    def test_it_resumes(self, train: Callable[..., list[dict[str, float]]], tmp_path: Path) -> None:
        from lewm.training import read_metrics
        from train_helpers import interrupt_after, write_settings

        whole = train("whole", device="cuda", precision="bf16")
        folder, data = tmp_path / "parts", str(tmp_path / "episodes.h5")
        changes = {"data": data, "out": str(folder), "device": "cuda", "precision": "bf16", "dropout": 0.0}
        assert interrupt_after(7, write_settings(tmp_path / "settings.yaml", **changes)) == 130
        assert len(read_metrics(folder / "metrics.csv")) < len(whole)
        lewm.train(resume=folder)
        losses = [[row["loss"] for row in rows] for rows in (whole, read_metrics(folder / "metrics.csv"))]
        assert losses[1] == pytest.approx(losses[0], rel=1e-3)

    def test_nccl(self, tmp_path: Path) -> None:
        """One rank's group: SIGReg's sums and the gradients go through NCCL."""
        program = (
            "import sys, torch, torch.distributed as dist, lewm\n"
            "dist.init_process_group('nccl', init_method='file://' + sys.argv[1], rank=0, world_size=1)\n"
            "z = torch.randn(3, 9, 10, device='cuda')\n"
            "alone, together = z.clone().requires_grad_(), z.clone().requires_grad_()\n"
            "lewm.sigreg(alone, seed=5).backward()\n"
            "lewm.sigreg(together, seed=5, process_group=dist.group.WORLD).backward()\n"
            "torch.testing.assert_close(together.grad, alone.grad)\n"
            "dist.destroy_process_group()\n"
        )
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "meet")],
            env=environment(),
            check=True,
            timeout=120,
        )
