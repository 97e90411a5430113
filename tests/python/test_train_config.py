"""Settings of a training run: presets, files, overrides, and the errors of wrong ones."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("yaml")

import lewm
from lewm.cli import main
from lewm.training import PRESETS, TrainConfig, make_config, parse_overrides


def test_defaults_are_the_published_recipe():
    config = make_config(preset="paper")
    assert config == TrainConfig()
    assert config.model == lewm.LeWMConfig()
    assert (config.lr, config.weight_decay, config.batch_size, config.clip) == (5e-5, 1e-3, 128, 1.0)
    assert (config.sigreg_weight, config.num_proj, config.knots, config.dropout) == (0.09, 1024, 17, 0.1)
    assert (config.frames, config.warmup) == (4, 0.01)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset):
    make_config(preset=preset)


def test_overrides_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("preset: tiny\nlr: 1e-4\nsteps: 7\nmodel:\n  encoder_depth: 3\n  history: 2\n")
    config = make_config(file, overrides={"steps": 9, "model.history": 4})
    tiny = make_config(preset="tiny")
    assert (config.lr, config.steps) == (1e-4, 9)
    assert (config.model.encoder_depth, config.model.history) == (3, 4)
    assert (config.batch_size, config.model.encoder_dim) == (tiny.batch_size, tiny.model.encoder_dim)


def test_the_preset_that_is_named_last_counts(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("preset: tiny\n")
    paper = make_config(preset="paper")
    assert make_config(file, preset="paper") == paper == make_config(file, overrides={"preset": "paper"})
    assert make_config(file, preset="paper", overrides={"preset": "tiny"}) == make_config(file)


def test_base_is_kept_where_nothing_overrides_it():
    base = make_config(preset="tiny", overrides={"seed": 5, "model.history": 2})
    config = make_config(base=base, overrides={"model": {"patch_size": 16}})
    assert (config.seed, config.model.history, config.model.patch_size) == (5, 2, 16)
    assert config.model.encoder_dim == base.model.encoder_dim


def test_saved_settings_come_back(tmp_path):
    config = make_config(preset="tiny", overrides={"data": "a.h5", "out": "run", "lr": 3e-4, "compile": True})
    config.save(tmp_path / "config.yaml")
    assert make_config(tmp_path / "config.yaml") == config


def test_overrides_are_yaml_scalars():
    words = ["lr=1e-3", "steps=10", "compile=true", "data=a=b.h5", "model.history=2"]
    parsed = parse_overrides(words)
    assert parsed == {"lr": "1e-3", "steps": 10, "compile": True, "data": "a=b.h5", "model.history": 2}
    assert make_config(overrides=parsed).lr == 1e-3


def test_texts_are_taken_as_they_stand():
    words = ["out=runs/trial #2", "data=2024-05-01", "precision=on", "preset=none"]
    expected = {"out": "runs/trial #2", "data": "2024-05-01", "precision": "on", "preset": "none"}
    assert parse_overrides(words) == expected


def test_settings_in_the_place_of_a_path_are_named():
    with pytest.raises(TypeError, match="config: expected a TrainConfig or a YAML file's path, got dict"):
        lewm.train({"steps": 3})
    with pytest.raises(TypeError, match="resume: expected a folder's path, got TrainConfig"):
        lewm.train(resume=TrainConfig())


@pytest.mark.parametrize("word", ["lr", "=3", "lr=[1"])
def test_malformed_overrides_are_refused(word):
    with pytest.raises(ValueError, match=r"expected key=value|not a value that YAML reads"):
        parse_overrides([word])


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"learning_rate": 1}, ValueError, "learning_rate: no such setting"),
        ({"batchsize": 1}, ValueError, r"batchsize: no such setting; did you mean batch_size\?"),
        (
            {"model.patchsize": 1},
            ValueError,
            r"model\.patchsize: no such setting; did you mean model\.patch_size\?",
        ),
        ({"model": 3}, TypeError, "model: expected a mapping of sizes, got 3"),
        ({"lr": "fast"}, TypeError, "lr: expected a number, got 'fast'"),
        ({"lr": True}, TypeError, "lr: expected a number, got True"),
        ({"steps": 2.5}, TypeError, r"steps: expected int, got 2\.5"),
        ({"steps": True}, TypeError, "steps: expected int, got True"),
        ({"compile": "maybe"}, TypeError, "compile: expected bool, got 'maybe'"),
        ({"lr": 0}, ValueError, r"lr: expected more than 0, got 0\.0"),
        ({"lr": float("nan")}, ValueError, "lr: expected more than 0, got nan"),
        ({"lr": float("inf")}, ValueError, "lr: expected a finite number, got inf"),
        ({"lr": 10**400}, ValueError, "lr: expected a finite number, got 1000"),
        ({"epochs": float("inf")}, ValueError, "epochs: expected a finite number, got inf"),
        ({"num_proj": 2_000_000_000}, ValueError, "num_proj: expected at most 1048576, got 2000000000"),
        ({"knots": 2_000_000_000}, ValueError, "knots: expected at most 1048576, got 2000000000"),
        ({"threads": 100_000}, ValueError, "threads: expected at most 1024, got 100000"),
        ({"dropout": 1.0}, ValueError, r"dropout: expected in \[0, 1\), got 1\.0"),
        ({"batch_size": 0}, ValueError, "batch_size: expected at least 1, got 0"),
        ({"precision": "fp8"}, ValueError, "precision: expected one of"),
        ({"attention": "linear"}, ValueError, "attention: expected one of"),
        ({"preset": "huge"}, ValueError, "preset: expected one of"),
        ({"preset": ["tiny"]}, ValueError, "preset: expected one of"),
        ({"steps": 0, "epochs": 0}, ValueError, "epochs: expected more than 0"),
        ({"model.patch_size": 15}, ValueError, "image_size: expected a multiple of patch_size"),
    ],
)
def test_wrong_settings_are_named(overrides, error, message):
    with pytest.raises(error, match=message):
        make_config(overrides=overrides)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        make_config(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match=r"list\.yaml: expected settings as key: value, got list"):
        make_config(tmp_path / "list.yaml")
    (tmp_path / "numbered.yaml").write_text("3: 4\n")
    with pytest.raises(ValueError, match="3: no such setting"):
        make_config(tmp_path / "numbered.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(ValueError, match=r"broken\.yaml: not readable as YAML"):
        make_config(tmp_path / "broken.yaml")
    for name, content in (("binary", b"\x89HDF\r\n\xff"), ("deep", b"a: " + b"[" * 5000)):
        (tmp_path / f"{name}.yaml").write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.yaml: not readable as YAML"):
            make_config(tmp_path / f"{name}.yaml")


def test_command_line_reports_errors_without_a_traceback(tmp_path, capsys):
    assert main(["train", "lrr=1", f"out={tmp_path / 'run'}"]) == 1
    assert "lewm train: lrr: no such setting; did you mean lr?" in capsys.readouterr().err
    assert main(["train", "a.yaml", "b.yaml"]) == 1
    assert "expected one YAML file, got a.yaml, b.yaml" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path), "--preset", "tiny"]) == 1
    assert "expected neither config nor preset" in capsys.readouterr().err
    assert main(["train", "preset=tiny", "out=run"]) == 1
    assert "data: expected a path, got none" in capsys.readouterr().err
    assert main(["train", "preset=tiny", "data=nowhere.h5", "out=run"]) == 1
    assert "data: no file nowhere.h5" in capsys.readouterr().err
