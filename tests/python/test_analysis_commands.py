"""``lewm probe``, ``surprise`` and ``decode``, from files to files, on a small untrained model."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
h5py = pytest.importorskip("h5py")
for needed in ("gymnasium", "sklearn", "matplotlib"):
    pytest.importorskip(needed)

import lewm
from lewm.cli import main
from lewm.data.collection import collect
from lewm.nn import LeWM
from synthetic import TINY


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("analysis")
    torch.manual_seed(0)
    lewm.save(LeWM(TINY), folder / "model.safetensors")
    collect("two_room", folder / "data.h5", episodes=8, image_size=32, workers=1)
    return folder


def test_probe_writes_scores_with_controls_beside_them(files, tmp_path, capsys):
    out = tmp_path / "probe"
    assert main(["probe", str(files / "model.safetensors"), str(files / "data.h5"), "--out", str(out)]) == 0
    results = json.loads((out / "probe.json").read_text())
    assert {score["features"] for score in results["scores"]} == {
        "latents",
        "random weights",
        "pixel components",
    }
    assert {score["target"] for score in results["scores"]} == {"state"}
    assert 1.0 <= results["geometry"]["effective_rank"] <= TINY.latent_dim
    with (out / "probe.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(results["scores"]) == 6
    assert (out / "latents.png").read_bytes().startswith(b"\x89PNG")
    assert "| state | linear |" in capsys.readouterr().out


def test_probe_takes_columns_for_angles(files, tmp_path, capsys):
    arguments = ["probe", str(files / "model.safetensors"), str(files / "data.h5"), "--no-controls"]
    assert main([*arguments, "--out", str(tmp_path), "--angles", "state"]) == 0
    results = json.loads((tmp_path / "probe.json").read_text())
    assert {score["target"] for score in results["scores"]} == {"state (cos, sin)"}
    assert main([*arguments, "--out", str(tmp_path), "--angles", "bearing"]) == 1
    assert "angles: expected some of ['state'], got 'bearing'" in capsys.readouterr().err


def test_probe_takes_latents_of_one_dimension(files, tmp_path):
    lewm.save(LeWM(replace(TINY, latent_dim=1)), tmp_path / "narrow.safetensors")
    words = [str(tmp_path / "narrow.safetensors"), str(files / "data.h5"), "--out", str(tmp_path / "out")]
    assert main(["probe", *words]) == 0
    assert json.loads((tmp_path / "out" / "probe.json").read_text())["geometry"]["latent_dim"] == 1


def test_probe_of_a_file_without_episodes_is_refused(files, tmp_path, capsys):
    data = tmp_path / "data.h5"
    data.write_bytes((files / "data.h5").read_bytes())
    with h5py.File(data, "r+") as file:
        for name in ("ep_len", "ep_offset"):
            file[name].resize(0, axis=0)
    assert main(["probe", str(files / "model.safetensors"), str(data), "--out", str(tmp_path / "out")]) == 1
    assert "data.h5: expected episodes, it holds none" in capsys.readouterr().err


def test_probe_of_a_column_that_is_not_there_names_those_that_are(files, tmp_path, capsys):
    arguments = ["probe", str(files / "model.safetensors"), str(files / "data.h5"), "--columns", "velocity"]
    assert main([*arguments, "--out", str(tmp_path)]) == 1
    assert "no column 'velocity', there are" in capsys.readouterr().err


def test_probe_of_a_column_of_text_names_it(files, tmp_path, capsys):
    data = tmp_path / "data.h5"
    shutil.copy(files / "data.h5", data)
    with h5py.File(data, "r+") as file:
        file["note"] = np.array([b"x"] * len(file["pixels"]))
    arguments = ["probe", str(files / "model.safetensors"), str(data), "--columns", "note"]
    assert main([*arguments, "--out", str(tmp_path)]) == 1
    assert "data.h5: note: expected numbers, got text" in capsys.readouterr().err


def test_surprise_tests_every_perturbation(files, tmp_path, capsys):
    out = tmp_path / "surprise"
    arguments = ["--pairs", "3", "--blocks", "4", "--out", str(out)]
    assert main(["surprise", str(files / "model.safetensors"), "two_room", *arguments]) == 0
    results = json.loads((out / "surprise.json").read_text())
    assert [test["kind"] for test in results["tests"]] == ["colour", "teleport"]
    none, teleport = (np.array(results["surprise"][name]) for name in ("none", "teleport"))
    assert none.shape == (3, 4)
    np.testing.assert_array_equal(teleport[:, :1], none[:, :1])  # equal until the second frame shows it
    assert (teleport[:, 1] != none[:, 1]).all()
    assert (out / "surprise.png").read_bytes().startswith(b"\x89PNG")
    assert "| teleport | 3 |" in capsys.readouterr().out


def test_surprise_refuses_a_model_of_other_actions(tmp_path, capsys):
    lewm.save(LeWM(replace(TINY, action_dim=3)), tmp_path / "model.safetensors")
    assert main(["surprise", str(tmp_path / "model.safetensors"), "two_room", "--out", str(tmp_path)]) == 1
    assert "lewm/TwoRoom-v0 has 2 action dimensions, the model has 3" in capsys.readouterr().err


@pytest.mark.parametrize(("env", "action_dim"), [("push_t", 2), ("reacher", 2), ("cube", 5)])
def test_surprise_knows_every_environment(env, action_dim, tmp_path):
    """Two pairs with an untrained model: both perturbations change what it sees, from the frame that they should."""
    if env == "push_t":
        pytest.importorskip("pymunk")
    else:
        for needed in ("mujoco", "dm_control", "ogbench"):
            pytest.importorskip(needed)
        drawing = pytest.importorskip("drawing")
        if drawing.needs_opengl.args[0]:
            pytest.skip("MuJoCo cannot draw here")
    torch.manual_seed(0)
    lewm.save(LeWM(replace(TINY, action_dim=action_dim)), tmp_path / "model.safetensors")
    words = ["--pairs", "2", "--blocks", "4", "--precision", "fp32", "--out", str(tmp_path / "out")]
    assert main(["surprise", str(tmp_path / "model.safetensors"), env, *words]) == 0
    results = json.loads((tmp_path / "out" / "surprise.json").read_text())
    assert [test["kind"] for test in results["tests"]] == ["colour", "teleport"]
    assert all(test["pairs"] == 2 and 0 <= test["p"] <= 1 for test in results["tests"])
    none = np.array(results["surprise"]["none"])
    for kind in ("colour", "teleport"):
        perturbed = np.array(results["surprise"][kind])
        np.testing.assert_array_equal(perturbed[:, :1], none[:, :1])
        assert (perturbed[:, 1] != none[:, 1]).all(), kind


def test_decode_draws_a_strip(files, tmp_path):
    out = tmp_path / "decoded.png"
    arguments = ["--steps", "3", "--blocks", "2", "--strips", "1", "--out", str(out)]
    assert main(["decode", str(files / "model.safetensors"), str(files / "data.h5"), *arguments]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("probe {model} {data} --stride 0", "stride: expected an int of at least 1, got 0"),
        ("probe {model} {data} --stride -1", "stride: expected an int of at least 1, got -1"),
        (
            "probe {model} {data} --stride 99999999999999999999",
            "steps of an episode, got 99999999999999999999",
        ),
        ("probe {model} {data} --stride 60", "expected an episode with at least 3 different frames"),
        ("probe {model} {data} --columns state pixels", "columns: expected quantities, got 'pixels'"),
        ("probe {model} {data} --seed -1", "seed: expected 0..2^32 - 1, got -1"),
        ("surprise {model} two_room --seed -1", "seed: expected an int of at least 0, got -1"),
        ("decode {model} {data} --seed -1", "seed: expected 0..2^64 - 1, got -1"),
        ("decode {model} {data} --episodes 0", "episodes: expected an int of at least 1, got 0"),
        ("decode {model} {data} --steps 0", "steps: expected an int of at least 1, got 0"),
        ("decode {model} {data} --blocks 0", "blocks: expected an int of at least 1, got 0"),
        ("decode {model} {data} --strips 0", "strips: expected an int of at least 1, got 0"),
        ("decode {model} {data} --strips -1", "strips: expected an int of at least 1, got -1"),
    ],
)
def test_numbers_out_of_range_are_named(files, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    paths = {"model": files / "model.safetensors", "data": files / "data.h5"}
    assert main(words.format(**paths).split()) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "out", "message"),
    [
        ("probe", "file", "--out: expected a folder, file is a file"),
        ("surprise", "file/results", "--out: expected a folder, file is a file"),
        ("decode", "folder", "--out: expected a file, folder is a folder"),
        ("decode", "none/decoded.png", "--out: no folder none"),
    ],
)
def test_a_place_for_results_that_cannot_be_is_refused_first(
    tmp_path, monkeypatch, capsys, command, out, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    assert main([command, "no_model", "two_room", "--out", out]) == 1
    assert message in capsys.readouterr().err


def test_decode_does_not_write_over_what_it_reads(files, capsys):
    for name in ("model.safetensors", "data.h5"):
        out, before = files / name, (files / name).read_bytes()
        command = ["decode", str(files / "model.safetensors"), str(files / "data.h5"), "--out", str(out)]
        assert main([*command, "--steps", "1", "--blocks", "2"]) == 1
        assert "--out: " in capsys.readouterr().err
        assert out.read_bytes() == before


def test_decode_says_when_no_episode_is_long_enough(files, tmp_path, capsys):
    arguments = ["--steps", "1", "--blocks", "99", "--out", str(tmp_path / "x.png")]
    assert main(["decode", str(files / "model.safetensors"), str(files / "data.h5"), *arguments]) == 1
    assert "blocks: expected an episode longer than 495 steps" in capsys.readouterr().err
