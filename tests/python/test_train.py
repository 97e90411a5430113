"""Training runs: what they write, that they resume as if nothing had happened, and how they end when interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("h5py")
pytest.importorskip("yaml")

import lewm
from lewm.data import EpisodeFile, EpisodeWriter
from lewm.nn import LeWM
from lewm.training import read_metrics
from lewm.training.checkpoints import read_checkpoint
from lewm.training.log import Log
from processes import environment
from train_helpers import TINY_RUN, doubled, interrupt_after, write_episodes, write_settings

LOSSES = ("loss", "pred_loss", "sigreg_loss", "grad_norm")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("data") / "episodes.h5")


def losses(folder: Path) -> dict[int, tuple[float, ...]]:
    """Step -> losses, as the run wrote them."""
    return {
        int(row["step"]): tuple(row[key] for key in LOSSES) for row in read_metrics(folder / "metrics.csv")
    }


@pytest.fixture(scope="module")
def whole_run(data, tmp_path_factory):
    return lewm.train(data=data, out=tmp_path_factory.mktemp("runs") / "whole", **TINY_RUN)


@pytest.fixture
def run(whole_run, tmp_path) -> Path:
    """A copy of the whole run's folder, to be changed."""
    return Path(shutil.copytree(whole_run.folder, tmp_path / "run"))


def test_a_run_writes_its_log_checkpoints_and_models(whole_run, data):
    assert whole_run.steps == 12
    assert list(losses(whole_run.folder)) == list(range(1, 13))
    rows = {int(row["step"]): row for row in read_metrics(whole_run.metrics_file)}
    for step in (4, 8, 12):
        assert rows[step]["val_loss"] > 0
        assert 1 <= rows[step]["effective_rank"] <= 8
        assert (
            rows[step]["val_sigreg_loss"] < 2 * rows[step]["sigreg_loss"]
        )  # running averages would lag behind
    assert "val_loss" not in rows[5]
    assert rows[12]["lr"] < rows[2]["lr"]
    assert {path.name for path in (whole_run.folder / "checkpoints").iterdir()} == {"last.pt", "best.pt"}
    for path in (whole_run.model_file, whole_run.folder / "published"):
        model = LeWM.from_checkpoint(path)
        for name, tensor in whole_run.model.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name
        assert model.action_scaling == lewm.TrajectoryDataset(data, 3, 2).action_scaling


def test_training_learns(data, tmp_path):
    run = lewm.train(data=data, out=tmp_path / "run", **{**TINY_RUN, "steps": 80, "lr": 3e-3})
    curve = [row["loss"] for row in read_metrics(run.metrics_file)]
    assert np.mean(curve[-10:]) < 0.9 * np.mean(curve[:5])


def test_resume_repeats_the_uninterrupted_losses_bit_for_bit(whole_run, data, tmp_path):
    folder = tmp_path / "run"
    settings = write_settings(tmp_path / "settings.yaml", data=str(data), out=str(folder))
    interrupted = interrupt_after(7, settings)
    assert interrupted == 130
    cut_at = max(losses(folder))
    assert 7 <= cut_at < 12
    lewm.train(resume=folder)
    assert losses(folder) == losses(whole_run.folder)
    resumed = LeWM.from_checkpoint(folder / "model.safetensors").state_dict()
    for name, tensor in whole_run.model.state_dict().items():
        assert torch.equal(resumed[name], tensor), name


def test_sigterm_saves_and_exits_143(data, tmp_path):
    folder = tmp_path / "run"
    settings = write_settings(tmp_path / "s.yaml", data=str(data), out=str(folder), steps=100_000)
    process = subprocess.Popen([sys.executable, "-m", "lewm", "train", str(settings)], env=environment())
    _wait_for(folder / "checkpoints" / "last.pt", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    saved = read_checkpoint(folder / "checkpoints" / "last.pt")["step"]
    assert saved == max(losses(folder))


def _wait_for(path: Path, process: subprocess.Popen) -> None:
    for _ in range(1200):
        if path.is_file():
            return
        assert process.poll() is None, f"ended with {process.returncode} before it wrote {path.name}"
        time.sleep(0.05)
    raise AssertionError(f"{path} was not written")


def test_kill_while_a_checkpoint_is_written_leaves_the_last_complete_one(data, tmp_path):
    folder = tmp_path / "run"
    settings = write_settings(tmp_path / "s.yaml", data=str(data), out=str(folder), steps=100, val_every=1000)
    program = f"""
import os, signal, sys
import torch
from lewm.cli import main
save, calls = torch.save, []
def killed_in_the_second_write(content, file):
    calls.append(1)
    if len(calls) == 2:
        file.write(b"PK half a checkpoint")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(content, file)
torch.save = killed_in_the_second_write
sys.exit(main(["train", {str(settings)!r}]))
"""
    process = subprocess.run([sys.executable, "-c", program], env=environment(), timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert read_checkpoint(folder / "checkpoints" / "last.pt")["step"] == 4
    with (folder / "metrics.csv").open("a") as log:
        log.write("9,0.5,1")  # a row that the kill cut off
    result = lewm.train(resume=folder, steps=10)
    assert result.steps == 10
    assert list(losses(folder)) == list(range(1, 11))


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(
    data, tmp_path, monkeypatch
):
    computed = LeWM.loss

    def poisoned(self, *args, **kwargs):
        out = computed(self, *args, **kwargs)
        poisoned.calls += 1
        return {**out, "loss": out["loss"] * float("nan")} if poisoned.calls == 7 else out

    poisoned.calls = 0
    monkeypatch.setattr(LeWM, "loss", poisoned)
    changes = {"log_every": 100, "val_every": 100}
    with pytest.raises(
        lewm.Error,
        match=r"the loss or its gradient is not finite at step 7; the last good checkpoint is .*last.pt",
    ):
        lewm.train(data=data, out=tmp_path / "run", **{**TINY_RUN, **changes})
    content = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert content["step"] == 4
    assert all(tensor.isfinite().all() for tensor in content["model"].values())


def test_a_folder_with_a_run_is_not_overwritten_by_accident(whole_run, data):
    before = losses(whole_run.folder)
    with pytest.raises(lewm.Error, match="holds a run already"):
        lewm.train(data=data, out=whole_run.folder, **TINY_RUN)
    assert losses(whole_run.folder) == before


def test_overwrite_starts_anew(data, tmp_path):
    for steps in (3, 2):
        result = lewm.train(data=data, out=tmp_path / "run", overwrite=True, **{**TINY_RUN, "steps": steps})
        assert result.steps == steps
        assert list(losses(tmp_path / "run")) == list(range(1, steps + 1))
    assert result.model_file.is_file()
    cloning = {**TINY_RUN, "steps": 1, "objective": "gcbc", "goal_blocks": 2}
    assert (
        lewm.train(data=data, out=tmp_path / "run", overwrite=True, **cloning).model_file.name == "model.pt"
    )
    assert not result.model_file.exists() and not list((tmp_path / "run" / "published").iterdir())
    (tmp_path / "run" / "checkpoints" / "last.pt").unlink()
    with pytest.raises(lewm.Error, match="holds a run already"):
        lewm.train(data=data, out=tmp_path / "run", **TINY_RUN)


def test_two_trainings_do_not_write_into_one_folder(data, tmp_path, monkeypatch):
    run, advance, refused = tmp_path / "run", Log.advance, []

    def with_a_second(self):
        advance(self)
        monkeypatch.setattr(Log, "advance", advance)
        changes = {**TINY_RUN, "data": data, "out": run}
        for arguments in (changes, {**changes, "overwrite": True}, {"resume": run}):
            before = sorted(run.rglob("*"))
            with pytest.raises((lewm.Error, FileNotFoundError)) as error:
                lewm.train(**arguments)
            refused.append(str(error.value))
            assert sorted(run.rglob("*")) == before

    monkeypatch.setattr(Log, "advance", with_a_second)
    lewm.train(data=data, out=run, **TINY_RUN)
    assert refused == [f"{run}: another training is writing into this folder"] * 3
    assert list(losses(run)) == list(range(1, 13))
    assert lewm.train(resume=run, steps=13).steps == 13
    assert not list(run.glob("*.lock"))


def test_a_killed_training_and_the_processes_that_it_leaves_keep_no_folder(data, tmp_path):
    run = tmp_path / "run"
    changes = {"workers": 1, "steps": 100_000, "val_batches": 0}
    settings = write_settings(tmp_path / "s.yaml", data=str(data), out=str(run), **changes)
    program = f"""
import os, signal, sys, time
from lewm.cli import main
from lewm.training.log import Log
advance, child = Log.advance, []
def leaving_a_child(self):
    advance(self)
    if not child:
        child.append(os.fork())
        if child == [0]:
            time.sleep(60)
            os._exit(0)
        print(child[0], flush=True)
Log.advance = leaving_a_child
sys.exit(main(["train", {str(settings)!r}]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment(), stdout=subprocess.PIPE, text=True
    )
    child = int(process.stdout.readline())
    try:
        _wait_for(run / "checkpoints" / "last.pt", process)
        process.kill()
        process.wait()
        done = read_checkpoint(run / "checkpoints" / "last.pt")["step"]
        assert lewm.train(resume=run, steps=done + 1).steps == done + 1
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_a_run_outlives_an_overwriting_that_is_refused(data, tmp_path):
    run, no_episodes = tmp_path / "run", tmp_path / "model.safetensors"
    lewm.train(data=data, out=run, **{**TINY_RUN, "steps": 1})
    no_episodes.write_bytes(b"no episodes")
    for changes in ({"batch_size": 1_000_000}, {"data": no_episodes}):
        with pytest.raises((ValueError, lewm.Error)):
            lewm.train(**{**TINY_RUN, "data": data, "out": run, "overwrite": True, **changes})
        assert read_checkpoint(run / "checkpoints" / "last.pt")["step"] == 1


def test_a_share_that_leaves_nothing_to_train_on_is_named(data, tmp_path):
    with pytest.raises(
        ValueError, match=r"^val_fraction: 0\.99 of \d+ episodes leaves none to train on; 0 holds"
    ):
        lewm.train(data=data, out=tmp_path / "run", **{**TINY_RUN, "val_fraction": 0.99})


def test_resume_errors(whole_run, data, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run to resume: it has no config\.yaml"):
        lewm.train(resume=tmp_path)
    with pytest.raises(ValueError, match=r"model\.encoder_depth: expected 2 as in the checkpoint, got 3"):
        lewm.train(resume=whole_run.folder, **{"model.encoder_depth": 3})
    write_settings(tmp_path / "config.yaml", data=str(data))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint to resume from"):
        lewm.train(resume=tmp_path)
    whole = (whole_run.folder / "checkpoints" / "last.pt").read_bytes()
    (tmp_path / "checkpoints" / "last.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(lewm.Error, match="not readable as a training checkpoint"):
        lewm.train(resume=tmp_path)
    torch.save({"step": 3}, tmp_path / "checkpoints" / "last.pt")
    with pytest.raises(lewm.Error, match="expected a training checkpoint of version 1, got None"):
        lewm.train(resume=tmp_path)


FOREIGN_STATES = {
    "only a model": (
        lambda c: [c.pop(name) for name in list(c) if name not in ("version", "model")],
        "with step",
    ),
    "no optimizer": (lambda c: c.pop("optimizer"), r"with optimizer \(dict\), got none"),
    "no number": (lambda c: c.update(step="12"), r"with step \(int\), got str"),
    "negative": (lambda c: c.update(step=-3), "step: expected at least 0, got -3"),
    "no settings": (lambda c: c.update(config={}), "config: expected the settings of a run"),
    "no sizes": (
        lambda c: c["config"].update(model={"depth": 3}),
        "config: not the sizes of a model .*'depth'",
    ),
    "missing": (
        lambda c: c["model"].pop("predictor.pos_embedding"),
        r"model: predictor\.pos_embedding: expected \(1, 2, 8\), got none; the file is another model's",
    ),
    "further": (
        lambda c: c["model"].update(head=torch.zeros(2)),
        r"model: head: expected no such tensor, got \(2,\)",
    ),
    "shape": (
        lambda c: c["model"].update({"predictor.pos_embedding": torch.zeros(1, 3, 8)}),
        r"model: predictor\.pos_embedding: expected \(1, 2, 8\), got \(1, 3, 8\)",
    ),
    "no tensor": (
        lambda c: c["model"].update({"predictor.pos_embedding": [3]}),
        r"model: predictor\.pos_embedding: expected \(1, 2, 8\), got list",
    ),
    "other optimizer": (
        lambda c: c.update(optimizer={}),
        r"optimizer: expected the moments of \d+ parameters",
    ),
    "more moments": (
        lambda c: c["optimizer"]["state"].update({10**6: {}}),
        r"optimizer: expected the moments of \d+ parameters",
    ),
    "small moments": (  # torch would write beyond them
        lambda c: c["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)),
        r"optimizer: exp_avg of parameter 0: expected \(.*\), got \(3,\)",
    ),
    "generators": (lambda c: c.update(generators=[3]), "generators: not states of random generators"),
}


@pytest.mark.parametrize("name", FOREIGN_STATES)
def test_a_state_of_something_else_is_named(whole_run, run, name):
    change, message = FOREIGN_STATES[name]
    last = run / "checkpoints" / "last.pt"
    content = torch.load(last, weights_only=True)
    change(content)
    torch.save(content, last)
    with pytest.raises(lewm.Error, match=rf"checkpoints/last\.pt: .*{message}"):
        lewm.train(resume=run, steps=13)
    assert losses(run) == losses(whole_run.folder)


def test_a_resumed_run_is_not_shorter_than_what_is_done(whole_run, run):
    with pytest.raises(ValueError, match="steps: expected at least the 12 done, got 5"):
        lewm.train(resume=run, steps=5)
    assert (run / "config.yaml").read_bytes() == (whole_run.folder / "config.yaml").read_bytes()
    assert lewm.train(resume=run).steps == 12


def test_a_log_with_other_columns_is_named_when_it_is_to_go_on(run):
    log = run / "metrics.csv"
    log.write_text(log.read_text().replace("grad_norm", "gradient"))
    with pytest.raises(lewm.Error, match=r"metrics\.csv: column 'gradient' is none of this lewm's"):
        lewm.train(resume=run, steps=13)


def test_a_resumed_run_takes_a_new_weight_decay(run):
    lewm.train(resume=run, steps=13, weight_decay=0.5)
    (group,) = read_checkpoint(run / "checkpoints" / "last.pt")["optimizer"]["param_groups"]
    assert group["weight_decay"] == 0.5


def test_a_gradient_that_is_not_finite_ends_the_run(data, tmp_path, monkeypatch):
    computed = LeWM.loss

    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return loss.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * float("inf")

    def poisoned(self, *args, **kwargs):
        out = computed(self, *args, **kwargs)
        poisoned.calls += 1
        return {**out, "loss": Poison.apply(out["loss"])} if poisoned.calls == 4 else out

    poisoned.calls = 0
    monkeypatch.setattr(LeWM, "loss", poisoned)
    changes = {"log_every": 100, "val_every": 100}
    with pytest.raises(lewm.Error, match="not finite at step 4; no checkpoint was written before"):
        lewm.train(data=data, out=tmp_path / "run", **{**TINY_RUN, **changes})


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(data, tmp_path):
    """Also where validations and checkpoints fall on different steps."""
    changes = {"val_every": 5, "checkpoint_every": 7, "steps": 13}
    run = lewm.train(data=data, out=tmp_path / "run", **{**TINY_RUN, **changes})
    validated = {
        int(row["step"]): row["val_loss"] for row in read_metrics(run.metrics_file) if "val_loss" in row
    }
    assert list(validated) == [5, 10, 13]
    best = read_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")
    assert best["step"] == min(validated, key=validated.get)
    assert best["best_val_loss"] == pytest.approx(min(validated.values()))


def test_a_resumed_run_keeps_to_what_it_began_with(data, tmp_path):
    mine, run = tmp_path / "mine.h5", tmp_path / "run"
    with closing(EpisodeFile(data)) as held, EpisodeWriter(mine) as writer:
        for first, length in zip(held.offsets.tolist(), held.lengths.tolist(), strict=True):
            episode = {name: held.read(name, first, first + length) for name in held.columns}
            writer.write_episode(episode)
    lewm.train(data=mine, out=run, **{**TINY_RUN, "steps": 3})
    for changes, message in (
        ({"seed": 1}, "seed: expected 0 as in the checkpoint, got 1"),
        ({"val_fraction": 0.4}, "val_fraction: expected"),
        ({"objective": "gcbc"}, "objective: expected 'lewm' as in the checkpoint, got 'gcbc'"),
        ({"encoder": "module:factory"}, "encoder: expected '' as in the checkpoint"),
        ({"out": tmp_path / "other"}, "out: expected none beside resume"),
        ({"overwrite": True}, "overwrite: expected none beside resume"),
    ):
        with pytest.raises(ValueError, match=message):
            lewm.train(resume=run, **changes)
    with EpisodeWriter(mine) as writer:
        writer.write_episode(episode)
    with pytest.raises(ValueError, match=r"data: expected the \d+ training windows, and actions, that"):
        lewm.train(resume=run, steps=4)
    wider = doubled(data, tmp_path / "wider.h5", "action", axis=1)
    with pytest.raises(ValueError, match=r"data: expected the \d+ training windows, and actions, that"):
        lewm.train(resume=run, steps=4, data=wider)
    assert lewm.train(resume=run, steps=4, data=data).steps == 4


def test_large_seeds_train(data, tmp_path):
    run = lewm.train(data=data, out=tmp_path / "run", **{**TINY_RUN, "steps": 1, "seed": 2**63 - 1})
    assert run.steps == 1
    with pytest.raises(ValueError, match=r"seed: expected less than 2\^63, got"):
        lewm.train(data=data, out=tmp_path / "other", **{**TINY_RUN, "seed": 2**63})


def test_settings_that_contradict_the_data_are_named(data, tmp_path):
    def train(**changes):
        lewm.train(**{"data": data, "out": tmp_path / "run", **TINY_RUN, **changes})

    with pytest.raises(ValueError, match=r"model\.image_size: expected 16 as in the data, got 32"):
        train(model={**TINY_RUN["model"], "image_size": 32})
    wide = doubled(data, tmp_path / "wide.h5", "pixels", axis=2)
    with pytest.raises(ValueError, match=r"data: expected square frames, .*wide\.h5 has 16 x 32 pixels"):
        train(data=wide)
    with pytest.raises(ValueError, match=r"batch_size: expected at most the \d+ training windows, got 4096"):
        train(batch_size=4096)
    with pytest.raises(FileNotFoundError):
        train(data=tmp_path / "absent.h5")
    with pytest.raises(ValueError, match="out: expected a path, got none"):
        train(out="")
    with pytest.raises(ValueError, match='device: expected "auto", "cpu", "cuda" or "cuda:N", got \'meta\''):
        train(device="meta")
    assert not (tmp_path / "run").exists()


def test_reading_with_worker_processes_gives_the_same_losses(whole_run, data, tmp_path):
    run = lewm.train(data=data, out=tmp_path / "run", **{**TINY_RUN, "workers": 2})
    assert losses(run.folder) == losses(whole_run.folder)


def test_bfloat16_run_stays_finite_and_learns(data, tmp_path):
    run = lewm.train(
        data=data, out=tmp_path / "run", **{**TINY_RUN, "steps": 80, "lr": 3e-3, "precision": "bf16"}
    )
    curve = np.array([row["loss"] for row in read_metrics(run.metrics_file)])
    assert np.isfinite(curve).all()
    assert curve[-10:].mean() < 0.9 * curve[:5].mean()
    assert curve[20:].max() < 5 * np.median(curve[20:])
    assert all(tensor.dtype != torch.bfloat16 for tensor in run.model.state_dict().values())


def test_keep_every_keeps_checkpoints(data, tmp_path):
    lewm.train(data=data, out=tmp_path / "run", **{**TINY_RUN, "steps": 5, "keep_every": 2, "val_batches": 0})
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["last.pt", "step_00000002.pt", "step_00000004.pt"]
