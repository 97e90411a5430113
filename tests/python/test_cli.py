"""The commands that need numpy alone: export, plan, doctor, bench; and how the command line fails."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import lewm
import synthetic
from lewm.checkpoint import read_checkpoint
from lewm.cli import main
from lewm.cli.outputs import check_inputs
from lewm.images import fit_image, read_image
from processes import environment

CONFIG = synthetic.small(encoder_depth=1, predictor_depth=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lewm.save(synthetic.state(CONFIG), tmp_path / "run", config=CONFIG, action_mean=[1, 2], action_std=[3, 4])
    return tmp_path / "run"


def test_export_writes_a_deployment_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model.safetensors"
    assert main(["export", str(folder), str(target)]) == 0
    assert "5 steps x 2 action dimensions" in capsys.readouterr().out
    assert read_checkpoint(target).action_scaling == {"mean": [1.0, 2.0], "std": [3.0, 4.0]}
    for mean in (0.0, -0.5):
        arguments = ["--action-mean", f"{mean},1", "--action-std", "2,2", "--transformers", "5"]
        assert main(["export", str(target), str(tmp_path / "other"), *arguments]) == 0
        assert read_checkpoint(tmp_path / "other").action_scaling == {"mean": [mean, 1.0], "std": [2.0, 2.0]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "a.safetensors"], "no checkpoint at missing"),
        (
            ["{folder}", "{folder}/a.safetensors", "--transformers", "4"],
            "--transformers: only with a folder as target",
        ),
        (["{folder}", "a.pt"], "expected a folder or a name that ends in .safetensors"),
        (["{folder}", "{folder}/a.safetensors", "--frame-skip", "3"], "frame_skip"),
        (["{folder}", "{folder}/a.safetensors", "--action-mean", "0,0"], "expected both or neither"),
        (
            ["{folder}", "{folder}/a.safetensors", "--action-mean", "0", "--action-std", "1"],
            "expected 2 numbers, got 1",
        ),
    ],
)
def test_export_says_what_is_wrong(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["export", *(argument.format(folder=folder) for argument in arguments)]) == 1
    assert message in capsys.readouterr().err


def _images(tmp_path: Path) -> list[str]:
    frame, goal = synthetic.frames(1, 2, 96)
    np.save(tmp_path / "frame.npy", frame)
    np.save(tmp_path / "goal.npy", goal[:, 10:70])
    return [str(tmp_path / "frame.npy"), str(tmp_path / "goal.npy")]


def test_plan_prints_what_the_planner_finds(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, sizes = (
        _images(tmp_path),
        ["--samples", "30", "--elites", "4", "--iterations", "2", "--horizon", "3"],
    )
    command = ["plan", str(folder), *images, *sizes, "--precision", "fp32", "--fit", "crop"]
    assert main([*command, "--json", "--out", str(tmp_path / "plan.npy")]) == 0
    printed = json.loads(capsys.readouterr().out)
    model = lewm.load(folder, "fp32")
    frame, goal = (fit_image(read_image(path), 64, "crop") for path in images)
    plan = lewm.Planner(model, samples=30, elites=4, iterations=2, horizon=3).plan(frame, goal)
    expected = model.environment_actions(plan.actions).reshape(15, 2)
    np.testing.assert_allclose(printed["actions"], expected, rtol=1e-6)
    np.testing.assert_array_equal(np.load(tmp_path / "plan.npy"), expected)
    assert main(command) == 0
    assert len(capsys.readouterr().out.splitlines()) == 16


def test_plan_refuses_a_place_where_it_cannot_write_before_it_plans(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lewm, "load", None)
    for out in (tmp_path / "missing" / "actions.npy", tmp_path):
        assert main(["plan", str(folder), *_images(tmp_path), "--out", str(out)]) == 1
        assert "--out: " in capsys.readouterr().err


def test_plan_does_not_write_over_what_it_reads(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, model = _images(tmp_path), tmp_path / "model.safetensors"
    lewm.convert(folder, model)
    for source, out in (
        (model, model),
        (model, images[0]),
        (model, images[1]),
        (folder, folder / "weights.pt"),
    ):
        before = Path(out).read_bytes()
        assert (
            main(["plan", str(source), *images, "--samples", "8", "--horizon", "1", "--out", str(out)]) == 1
        )
        assert "--out: " in capsys.readouterr().err
        assert Path(out).read_bytes() == before


def test_what_is_read_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("run/weights.pt", "run/old.npy", "frame.npy"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link.npy").symlink_to("frame.npy")
    inputs = [tmp_path / "run", tmp_path / "frame.npy", tmp_path / "missing"]
    for name in ("frame.npy", "link.npy", "run/weights.pt", "run/../frame.npy", "run"):
        with pytest.raises(ValueError, match=r"--out: .* would overwrite the input"):
            check_inputs(tmp_path / name, inputs, ".npy")
    for name in ("new.npy", "run/old.npy", "run/new.txt", "missing"):
        check_inputs(tmp_path / name, inputs, ".npy")


def test_images_of_other_formats_are_read(folder: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    frame = synthetic.frames(1, 1, 64)[0]
    image.fromarray(frame).save(tmp_path / "frame.png")
    np.testing.assert_array_equal(read_image(tmp_path / "frame.png"), frame)
    image.fromarray(frame).convert("L").save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").shape == (64, 64, 3)
    deep = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), np.stack([deep >> 8] * 3, axis=2))


def test_images_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no image at"):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.npy").write_text("hello")
    np.save(tmp_path / "float.npy", np.zeros((4, 4, 3)))
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    with (tmp_path / "zip.npy").open("wb") as file:
        np.savez(file, np.zeros((4, 4, 3), np.uint8))
    for name, header in (
        ("huge", "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 1000000, 3)}"),
        ("open", "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 4, 3"),
        ("string", "{'descr': '''"),
    ):
        header = header.ljust(117) + "\n"
        (tmp_path / f"{name}.npy").write_bytes(
            b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
        )
    names = ("text", "float", "objects", "zip", "huge", "open", "string")
    for name in (f"{name}.npy" for name in names):
        with pytest.raises(lewm.Error, match=name):
            read_image(tmp_path / name)
    pytest.importorskip("PIL")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(lewm.Error, match=r"text\.png"):
        read_image(tmp_path / "text.png")
    chunks = b"IHDR" + struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0), b"IDAT"
    png = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png))
    with pytest.raises(lewm.Error, match=r"bomb\.png: not readable as an image: .*exceeds limit"):
        read_image(tmp_path / "bomb.png")


def test_images_are_fitted() -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, :20] = 255
    assert (
        fit_image(image, 20, "stretch")[10, 2, 0] == 255 and fit_image(image, 20, "stretch")[10, 17, 0] == 0
    )
    assert fit_image(image, 20, "crop").max() == 0
    letterbox = fit_image(image, 20, "letterbox")
    assert letterbox[0].max() == 0 and letterbox[10, 1, 0] == 255
    np.testing.assert_array_equal(fit_image(image[:, :40], 40, "stretch"), image[:, :40])
    with pytest.raises(ValueError, match="fit: expected one of stretch, crop, letterbox, got 'fill'"):
        fit_image(image, 20, "fill")


def test_doctor_reports_the_build_and_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lewm.doctor._PACKAGES", {"absent_package": ("absent", "nothing", "envs")})
    monkeypatch.setattr("lewm.doctor._LIBRARIES", {"AbsentLibrary": ("nothing", "libabsent")})
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    info = lewm.build_info()
    assert lewm.__version__ in out and info["isa"] in out and info["precision_reason"] in out
    assert "missing, needed for nothing: pip install 'lewm[envs]'" in out
    assert "missing, needed for nothing: apt-get install libabsent" in out
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["core"] == info


def test_bench_on_a_gpu(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--samples", "16", "--iterations", "2", "--horizon", "3", "--repeats", "1")
    status = main(["bench", str(folder), *sizes, "--device", "cuda"])
    told = capsys.readouterr()
    if lewm.build_info()["cuda"]:
        assert status == 0 and "cuda; shortest of 1" in told.out and "bf16" in told.out
    else:
        assert status == 1 and "device: 'cuda' is not available" in told.err


def test_bench_prints_work_time_ceiling_and_ratio(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--samples", "20", "--iterations", "2", "--horizon", "2", "--repeats", "1"]
    assert main(["bench", str(folder), *sizes, "--precision", "fp32", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["work"] for row in rows][-1] == "plan 20 x 2, H 2"
    assert all(row["seconds"] > 0 and row["flop"] > 0 and row["peak"] > 0 for row in rows)
    assert main(["bench", str(folder), *sizes, "--precision", "fp32"]) == 0
    assert "GFLOP/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--samples", "-1", "samples: expected at least 1, got -1"),
        ("--samples", "99999999999", "samples: expected at most"),
        ("--samples", "0", "samples: expected at least 1, got 0"),
        ("--iterations", "0", "iterations: expected at least 1, got 0"),
    ],
)
def test_bench_refuses_what_a_planner_does(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    assert main(["bench", str(folder), "--precision", "fp32", option, value]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "lewm doctor: MemoryError"),
        (OverflowError("too large"), 1, "lewm doctor: too large"),
    ],
)
def test_a_command_ends_in_one_line(
    raised: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also while its module is imported, which takes seconds where that imports torch."""

    def fail(*_: object) -> None:
        raise raised

    for where in ("lewm.cli.doctor.run", "lewm.cli.importlib.import_module"):
        with monkeypatch.context() as patch:
            patch.setattr(where, fail)
            assert main(["doctor"]) == status
        assert capsys.readouterr().err == f"{message}\n"


def test_a_character_that_the_terminal_has_not_is_printed_as_an_escape(folder: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "lewm", "export", str(folder), str(tmp_path / "modèle.safetensors")]
    done = subprocess.run(words, env=environment(PYTHONIOENCODING="ascii"), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mod\\xe8le.safetensors: " in done.stdout


def test_bad_usage_ends_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["nothing"], ["plan"], ["plan", "a", "b", "c", "--method", "x"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err
