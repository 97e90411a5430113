"""Runs on several ranks: the losses of one rank, every file written once, resuming on another number of ranks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("h5py")

import torch.distributed as dist
import torch.multiprocessing as mp

import lewm
from lewm.lock import WriterLock
from lewm.nn.batch_norm import BatchNorm
from lewm.training import read_metrics
from processes import environment
from train_helpers import TINY_RUN, write_episodes, write_settings

if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("torch without gloo", allow_module_level=True)

TOLERANCE = 1e-5  # between sums taken on one rank and over several
GROWN_TOLERANCE = (
    5e-3  # after a dozen steps: Adam divides by the gradients' size, and so enlarges their rounding
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("data") / "episodes.h5")


def torchrun(ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command += ["-m", "lewm", "train", *arguments]
    return subprocess.run(command, env=environment(), timeout=300, capture_output=True, text=True)


def curve(folder: Path, column: str) -> list[float]:
    return [row[column] for row in read_metrics(folder / "metrics.csv")]


def test_two_ranks_train_as_one_and_resume_on_one(data, tmp_path):
    """Without dropout the ranks' shares of a batch add up to the very step that one rank takes."""
    changes = {"data": str(data), "dropout": 0.0, "progress": True}
    alone = lewm.train(**{**TINY_RUN, **changes, "out": tmp_path / "alone", "progress": False})

    folder = tmp_path / "two"
    settings = write_settings(tmp_path / "s.yaml", **changes, out=str(folder))
    done = torchrun(2, str(settings), "steps=12")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("steps done") == 1
    for column in ("loss", "pred_loss", "sigreg_loss", "grad_norm", "val_loss"):
        expected = [row[column] for row in read_metrics(alone.metrics_file) if column in row]
        got = [row[column] for row in read_metrics(folder / "metrics.csv") if column in row]
        assert got == pytest.approx(expected, rel=GROWN_TOLERANCE), column
    assert curve(folder, "loss")[0] == pytest.approx(curve(alone.folder, "loss")[0], rel=TOLERANCE)

    more = lewm.train(resume=folder, steps=14)
    assert more.steps == 14
    assert curve(folder, "step") == list(range(1, 15))
    again = torchrun(2, "--resume", str(folder), "steps=16")
    assert again.returncode == 0, again.stderr
    assert curve(folder, "step") == list(range(1, 17))


def test_a_batch_that_the_ranks_cannot_share_is_refused(data, tmp_path):
    settings = write_settings(tmp_path / "s.yaml", data=str(data), out=str(tmp_path / "run"), batch_size=7)
    done = torchrun(2, str(settings))
    assert done.returncode != 0
    assert "batch_size: expected a multiple of 2 ranks, got 7" in done.stderr


def test_ranks_do_not_write_where_another_training_does(data, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    settings = write_settings(tmp_path / "s.yaml", data=str(data), out=str(run))
    lock = WriterLock(run / "training.lock", "")
    done = torchrun(2, str(settings))
    lock.release()
    assert done.returncode != 0
    assert f"{run}: another training is writing into this folder" in done.stderr
    assert {path.name for path in run.iterdir()} <= {"commands.txt"}


def _some_loss(y: torch.Tensor) -> torch.Tensor:
    """Not constant under normalisation, as a sum of squares would be."""
    return (y.exp() * torch.arange(1.0, y.shape[1] + 1)).sum()


def _norm_on_rank(rank: int, world: int, rendezvous: str, rows: list[torch.Tensor], results) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    norm = BatchNorm(rows[0].shape[1])
    norm.sync(dist.group.WORLD)
    x = rows[rank].requires_grad_()
    y = norm(x)
    _some_loss(y).backward()
    gradient = norm.weight.grad.clone()
    dist.all_reduce(gradient)
    results[rank] = tuple(
        t.tolist() for t in (y.detach(), x.grad, gradient, norm.running_mean, norm.running_var)
    )
    dist.destroy_process_group()


@pytest.mark.parametrize("shares", [(5, 5), (7, 2), (4, 1, 6)])
def test_synchronised_batch_norm_is_that_of_the_concatenated_batch(shares, tmp_path):
    torch.manual_seed(0)
    whole = torch.randn(sum(shares), 3) * torch.tensor([1.0, 5.0, 0.1]) + 2
    norm = torch.nn.BatchNorm1d(3)
    x = whole.clone().requires_grad_()
    y = norm(x)
    _some_loss(y).backward()

    results = mp.Manager().dict()
    rows = list(whole.split(list(shares)))
    mp.spawn(_norm_on_rank, (len(shares), str(tmp_path / "rendezvous"), rows, results), nprocs=len(shares))
    for index, expected in ((0, y.detach()), (1, x.grad)):
        got = torch.cat([torch.tensor(results[rank][index]) for rank in range(len(shares))])
        torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=10 * TOLERANCE)
    for rank in range(len(shares)):
        for index, expected in ((2, norm.weight.grad), (3, norm.running_mean), (4, norm.running_var)):
            torch.testing.assert_close(
                torch.tensor(results[rank][index]), expected, atol=TOLERANCE, rtol=10 * TOLERANCE
            )
