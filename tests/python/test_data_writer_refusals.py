"""EpisodeWriter: what it refuses, by name, and that the file stays as it was."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import lewm
from lewm.data import EpisodeFile, EpisodeWriter
from writer_helpers import assert_holds, episode


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.int32, 2**40),
        (np.int8, -300),
        (np.int64, np.uint64(2**63)),
        (np.uint8, np.uint16(300)),
        (np.float16, 1e300),
        (np.float32, -1e300),
        (np.float16, 70000),
    ],
)
def test_numbers_beyond_a_columns_type_are_refused(tmp_path: Path, dtype: type, value: float) -> None:
    held = np.array([np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else np.inf] * 5, dtype)
    rows = np.full(5, 7, np.asarray(value).dtype)
    with EpisodeWriter(tmp_path / "a.h5") as writer:
        writer.write_episode({**episode(5), "state": held})
        writer.write_episode({**episode(5), "state": rows})
        rows[3] = value
        message = rf"state: expected numbers that fit {np.dtype(dtype)}, got {rows[3]}".replace("+", r"\+")
        with pytest.raises(ValueError, match=message):
            writer.write_episode({**episode(5), "state": rows})
    assert_holds(
        tmp_path / "a.h5", [{**episode(5), "state": held}, {**episode(5), "state": np.full(5, 7, dtype)}]
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pixels": None}, ValueError, "expected 'pixels' and 'action'"),
        ({"pixels": np.zeros((5, 8, 8, 3), np.float32)}, TypeError, "pixels: expected uint8, got float32"),
        ({"pixels": np.zeros((5, 3, 8, 8), np.uint8)}, ValueError, r"pixels: expected \(T, H, W, 3\)"),
        ({"pixels": np.zeros((0, 8, 8, 3), np.uint8)}, ValueError, r"pixels: expected .* T >= 1"),
        (
            {"action": np.zeros((3, 2), np.float32)},
            ValueError,
            r"action: expected \(5, A\) or \(4, A\), got \(3, 2\)",
        ),
        ({"action": np.zeros(5, np.float32)}, ValueError, "action: expected"),
        ({"action": np.array([["a", "b"]] * 5)}, TypeError, "action: expected numbers"),
        ({"state": np.zeros((4, 3))}, ValueError, r"state: expected 5 rows as in pixels, got \(4, 3\)"),
        ({"state": np.array([["x"]] * 5)}, TypeError, "state: expected numbers"),
        ({"ep_len": np.zeros(5)}, ValueError, "'ep_len' is kept by the writer"),
    ],
)
def test_a_bad_episode_is_refused_by_name(tmp_path: Path, change: dict, error: type, message: str) -> None:
    columns = {name: value for name, value in {**episode(5), **change}.items() if value is not None}
    with EpisodeWriter(tmp_path / "a.h5") as writer, pytest.raises(error, match=message):
        writer.write_episode(columns)
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_action_that_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    columns = episode(5)
    columns["action"][2, 1] = value
    with EpisodeWriter(tmp_path / "a.h5") as writer, pytest.raises(ValueError, match="row 2 is"):
        writer.write_episode(columns)


@pytest.mark.parametrize("name", ["obs/state", "", ".", "..", "a\0b", "a\udcff", 3])
def test_a_name_that_is_none_of_a_column_is_refused(tmp_path: Path, name: str) -> None:
    with EpisodeWriter(tmp_path / "a.h5") as writer:
        with pytest.raises(ValueError, match="columns: expected names without '/', got "):
            writer.write_episode({**episode(5), name: np.zeros(5)})
        writer.write_episode(episode(5))
    assert_holds(tmp_path / "a.h5", [episode(5)])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((5, 0)), r"depth: expected rows that hold something, got \(5, 0\)"),
        (np.zeros((5, 0, 4, 1)), r"depth: expected rows that hold something, got \(5, 0, 4, 1\)"),
        ([[1], [1, 2], 1, 1, 1], r"depth: expected an array of numbers, got list \("),
    ],
)
def test_a_column_of_nothing_or_of_several_lengths_is_named(
    tmp_path: Path, value: object, message: str
) -> None:
    with EpisodeWriter(tmp_path / "a.h5") as writer, pytest.raises(ValueError, match=message):
        writer.write_episode({**episode(5), "depth": value})


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("env", None, TypeError, "attributes: env: expected a number or a string, got NoneType"),
        ("sizes", [1, 2], TypeError, "attributes: sizes: expected a number or a string, got list"),
        ("sizes", np.arange(2), TypeError, "attributes: sizes: expected a number or a string, got ndarray"),
        ("env", "a\0b", ValueError, "attributes: env: expected text that UTF-8 holds, without NUL"),
        ("env", "a\udcff", ValueError, "attributes: env: expected text that UTF-8 holds, without NUL"),
        ("a\udcff", 1, ValueError, "attributes: expected names, got"),
        ("seed", 2**64, ValueError, "attributes: seed: expected an integer of 64 bits"),
        ("", 1, ValueError, "attributes: expected names, got ''"),
    ],
)
def test_attributes_that_no_file_holds_are_refused_at_once(
    tmp_path: Path, name: str, value: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        EpisodeWriter(tmp_path / "a.h5", attributes={name: value})
    assert not list(tmp_path.iterdir())


def test_another_shape_or_column_is_refused_and_the_file_stays_good(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "a.h5") as writer:
        writer.write_episode(episode(5, 0))
        with pytest.raises(ValueError, match=r"pixels: expected \(T, 16, 16, 3\)"):
            writer.write_episode(episode(5, 1, size=8))
        with pytest.raises(ValueError, match="columns: expected"):
            writer.write_episode({**episode(5, 1), "reward": np.zeros(5)})
        writer.write_episode(episode(6, 2))
    assert_holds(tmp_path / "a.h5", [episode(5, 0), episode(6, 2)])


def test_other_attributes_are_refused(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "a.h5", attributes={"seed": 1}) as writer:
        writer.write_episode(episode(5))
    with pytest.raises(ValueError, match=r"seed: .* was written with 1, got 2"):
        EpisodeWriter(tmp_path / "a.h5", attributes={"seed": 2})
    with pytest.raises(ValueError, match="env: expected 'x'"):
        EpisodeWriter(tmp_path / "a.h5", attributes={"env": "x"})


def test_text_of_numpy_is_an_attribute(tmp_path: Path) -> None:
    for _ in range(2):
        with EpisodeWriter(tmp_path / "a.h5", attributes={"env": np.str_("x")}) as writer:
            writer.write_episode(episode(5))
    assert EpisodeFile(tmp_path / "a.h5").attributes == {"env": "x"}


@pytest.mark.parametrize("replaced", [False, True])
def test_an_episode_is_not_written_into_a_file_that_is_gone(tmp_path: Path, replaced: bool) -> None:
    path = tmp_path / "a.h5"
    with EpisodeWriter(path) as writer:
        writer.write_episode(episode(5, 0))
        writer.write_episode(episode(5, 1))
        path.rename(tmp_path / "moved.h5")
        if replaced:
            path.write_text("another's")
        for seed in (2, 3):
            with pytest.raises(lewm.Error, match="was removed or replaced"):
                writer.write_episode(episode(5, seed))
    assert_holds(tmp_path / "moved.h5", [episode(5, 0), episode(5, 1)])
    assert (path.read_text() if path.exists() else "another's") == "another's"


def test_bad_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        EpisodeWriter(tmp_path / "no" / "a.h5")
    with pytest.raises(ValueError, match="compression: expected one of"):
        EpisodeWriter(tmp_path / "a.h5", compression="zip")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(lewm.Error, match="not an HDF5 file"):
        EpisodeWriter(tmp_path / "text.h5")
    assert (tmp_path / "text.h5").read_text() == "not HDF5"
    with EpisodeWriter(tmp_path / "damaged.h5") as writer:
        writer.write_episode(episode(5))
    damaged = (tmp_path / "damaged.h5").read_bytes().replace(b"SNOD", b"XXXX")
    (tmp_path / "damaged.h5").write_bytes(damaged)
    with pytest.raises(lewm.Error, match=r"damaged\.h5: not an HDF5 file that can be continued"):
        EpisodeWriter(tmp_path / "damaged.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["pixels"] = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(lewm.Error, match="no column 'action'"):
        EpisodeWriter(tmp_path / "other.h5")
