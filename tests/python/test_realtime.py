"""``lewm bench --realtime`` measures what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lewm
import synthetic
from lewm.cli import main

CONFIG = synthetic.small(encoder_depth=1, predictor_depth=1)


@pytest.fixture
def model(tmp_path: Path) -> str:
    lewm.save(synthetic.state(CONFIG), tmp_path / "model.safetensors", config=CONFIG)
    return str(tmp_path / "model.safetensors")


def test_realtime(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", model, "--realtime", "--precision", "fp32", "--samples", "8", "--iterations", "2"]
    plot = tmp_path / "latency.png"
    assert (
        main([*command, "--acts", "50", "--starts", "1", "--load", "1", "--json", "--plot", str(plot)]) == 0
    )
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["precision"] == "fp32" and row["first_action_seconds"] > 0 and row["resident_mb"] > 1
    assert list(row["loops"]) == ["alone", "1 spinning processes beside it"]
    for loop in row["loops"].values():
        assert 0 < loop["plan"]["p50"] <= loop["plan"]["p99"] <= loop["plan"]["p99.9"] <= loop["plan"]["most"]
        assert loop["hand_out"]["p50"] < loop["plan"]["p50"]
        assert 0 < loop["iterations"] <= 2
    assert plot.read_bytes().startswith(b"\x89PNG")

    assert main([*command, "--acts", "10", "--starts", "1", "--load", "0"]) == 0
    out = capsys.readouterr().out
    assert "process start to first action" in out and "spinning" not in out and "acts that plan" in out


def test_realtime_of_a_model_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.safetensors"
    assert main(["bench", str(missing), "--realtime", "--precision", "fp32", "--starts", "1"]) == 1
    told = capsys.readouterr().err
    assert f"no checkpoint at {missing}" in told and "Traceback" not in told


def test_realtime_says_what_is_wrong(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    for options, told in (
        (["--realtime", "--acts", "0"], "--acts: expected at least 1, got 0"),
        (["--realtime", "--samples", "0"], "--samples: expected at least 1, got 0"),
        (["--realtime", "--plot", model], f"--plot: {model} would overwrite the input {model}"),
        (["--realtime", "--plot", "no/such.png"], "--plot: no folder no"),
        (["--plot", "latency.png"], "--plot: only with --realtime"),
        (["--acts", "500"], "--acts: only with --realtime"),
        (["--deadline", "0"], "--deadline: only with --realtime"),
        (["--encoder-precision", "int8"], "--encoder-precision: only with --realtime"),
        (["--realtime", "--repeats", "3"], "--repeats: not with --realtime, which has --acts"),
    ):
        assert main(["bench", model, *options]) == 1
        assert told in capsys.readouterr().err
