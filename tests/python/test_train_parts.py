"""The parts of a training by themselves: window order, reading ahead, learning rate, diagnostics, generators, log."""

from __future__ import annotations

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("h5py")
pytest.importorskip("yaml")

import lewm
from lewm.data.batches import ahead
from lewm.training import read_metrics
from lewm.training.checkpoints import read_checkpoint, restore_rng, rng_state, write_checkpoint
from lewm.training.data import WindowOrder
from lewm.training.diagnostics import effective_rank
from lewm.training.log import Log
from lewm.training.optim import learning_rate


def test_window_order_is_a_partition_of_each_epoch_and_of_each_batch():
    order = WindowOrder(windows=37, batch_size=6, seed=3)
    assert order.steps_per_epoch == 6
    for epoch in (0, 1):
        seen = [index for step in range(6) for index in order.batch(6 * epoch + step)]
        assert len(set(seen)) == 36 and set(seen) <= set(range(37))
    assert order.batch(3) != order.batch(9)
    for world in (2, 3):
        shares = [set(order.batch(7, rank, world)) for rank in range(world)]
        assert set().union(*shares) == set(order.batch(7))
        assert sum(map(len, shares)) == 6
    fresh = WindowOrder(windows=37, batch_size=6, seed=3)
    assert fresh.batch(10) == order.batch(10)
    assert WindowOrder(windows=37, batch_size=6, seed=4).batch(0) != order.batch(0)


def test_reading_ahead_keeps_order_and_passes_errors_on():
    assert list(ahead(range(20))) == list(range(20))

    def broken():
        yield 1
        raise OSError("disk on fire")

    items = ahead(broken())
    assert next(items) == 1
    with pytest.raises(OSError, match="disk on fire"):
        next(items)
    endless = ahead(iter(int, 1))
    assert next(endless) == 0
    endless.close()  # ends the thread instead of leaving it behind


def test_learning_rate_warms_up_and_falls_to_zero():
    rates = [learning_rate(step, 1000, 2.0, 0.01) for step in range(1000)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == pytest.approx(2.0)
    assert max(rates) == pytest.approx(2.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-4
    assert learning_rate(505, 1000, 2.0, 0.01) == pytest.approx(1.0)


def test_effective_rank_counts_directions():
    torch.manual_seed(0)
    assert effective_rank(torch.randn(4000, 12)) == pytest.approx(12, rel=0.02)
    assert effective_rank(torch.randn(4000, 3) @ torch.eye(3, 12)) == pytest.approx(3, rel=0.02)
    assert effective_rank(torch.ones(50, 12)) == 1.0
    line = torch.linspace(-1, 1, 50)[:, None] * torch.ones(1, 12)
    assert effective_rank(line) == pytest.approx(1.0, abs=1e-3)


def test_generators_are_restored(tmp_path):
    def draw():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), random.gauss(0, 1)

    random.gauss(0, 1)  # leaves a second number cached
    write_checkpoint(tmp_path / "c.pt", {"generators": rng_state(torch.device("cpu"))})
    first = draw()
    restore_rng(read_checkpoint(tmp_path / "c.pt")["generators"], torch.device("cpu"))
    assert draw() == first


@pytest.mark.parametrize("text", ["step,loss\n1,low\n", "step,loss\n1,2,3\n", "loss\n2\n"])
def test_a_log_that_is_none_is_named(text, tmp_path):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(lewm.Error, match=r"metrics\.csv: .* training log"):
        read_metrics(tmp_path / "metrics.csv")


def test_log_drops_rows_after_the_step_that_it_goes_on_from(tmp_path):
    log = Log(tmp_path, 10, 0, tensorboard=False, progress=False)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": step / 3})
    log.close()
    log = Log(tmp_path, 10, 2, tensorboard=False, progress=False)
    log.write({"step": 3, "loss": 7.0})
    log.close()
    assert read_metrics(tmp_path / "metrics.csv") == [
        {"step": 1, "loss": pytest.approx(1 / 3)},
        {"step": 2, "loss": pytest.approx(2 / 3)},
        {"step": 3, "loss": 7.0},
    ]
