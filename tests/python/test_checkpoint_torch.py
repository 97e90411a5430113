"""``.pt`` files: read without torch, nothing in them is run, and whatever is wrong with them is said."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lewm
from lewm.checkpoint.torch_reader import read_state_dict
from lewm.checkpoint.torch_writer import write_state_dict

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.array(5, np.int64),
    "half": np.array([1.5, -2.0], np.float16),
    "double": np.array([np.pi]),
    "empty": np.empty((0, 3), np.float32),
}


class Call:
    """Pickles as a call of a global with arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self._reduced


def _entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write_zip(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.pt"
    with path.open("wb") as file:
        write_state_dict(file, ARRAYS)
    return path


def _with_pickle(tmp_path: Path, data: bytes, storage: bytes = bytes(16)) -> Path:
    return _write_zip(
        tmp_path / "bad.pt", {"x/data.pkl": data, "x/byteorder": b"little", "x/data/0": storage}
    )


def _tensor_pickle(
    kind: bytes = b"FloatStorage",
    count: int = 4,
    offset: int = 0,
    size: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    key: str = "0",
    tag: str = "storage",
) -> bytes:
    """A pickled {"a": tensor} whose fields are free."""

    def ints(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(_int(value) for value in values) + b"t"

    def _int(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def text(value: str) -> bytes:
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    identifier = b"(" + text(tag) + b"ctorch\n" + kind + b"\n" + text(key) + text("cpu") + _int(count) + b"tQ"
    arguments = (
        b"(" + identifier + _int(offset) + ints(size) + ints(stride) + b"\x89ccollections\nOrderedDict\n)Rt"
    )
    return b"\x80\x02}" + text("a") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def test_what_is_written_is_read(good: Path) -> None:
    read = read_state_dict(good)
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype and read[name].shape == array.shape
        np.testing.assert_array_equal(read[name], array)


def test_torch_reads_what_is_written_and_the_other_way_round(good: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for mmap in (False, True):
        loaded = torch.load(good, weights_only=True, mmap=mmap)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(loaded[name].numpy(), array)
    state = OrderedDict(
        transposed=torch.randn(3, 4).t(),
        part=torch.randn(10)[3:7],
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
        bfloat16=torch.randn(5).bfloat16(),
        shared=torch.ones(4),
    )
    state["alias"] = state["shared"][1:]
    for protocol in (2, 3, 4, 5):
        torch.save(state, tmp_path / "torch.pt", pickle_protocol=protocol)
        read = read_state_dict(tmp_path / "torch.pt")
        for name, tensor in state.items():
            np.testing.assert_array_equal(read[name], tensor.detach().float().numpy())


def test_a_module_state_dict_with_metadata_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    torch.save(module.state_dict(), tmp_path / "module.pt")
    assert set(read_state_dict(tmp_path / "module.pt")) == set(module.state_dict())


def test_deflated_entries_are_read(good: Path, tmp_path: Path) -> None:
    path = _write_zip(tmp_path / "deflated.pt", _entries(good), zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(read_state_dict(path)["matrix"], ARRAYS["matrix"])


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (print, "print"),
        (eval, "eval"),
        (Path, "Path"),
        (pickle.loads, "loads"),
        (getattr, "getattr"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_calls_anything_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], function: Any, name: str, protocol: int
) -> None:
    data = pickle.dumps({"a": Call(function, "x")}, protocol)
    with pytest.raises(lewm.Error, match=name) as caught:
        read_state_dict(_with_pickle(tmp_path, data))
    assert "torch.save(model.state_dict()" in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_pickled_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(lewm.Error, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
        read_state_dict(tmp_path / "module.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(lewm.Error, match=r"plain pickle.*state_dict"):
        read_state_dict(tmp_path / "old.pt")


def test_object_checkpoints_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "lewm_object.ckpt").write_bytes(b"PK")
    for path in (tmp_path / "lewm_object.ckpt", tmp_path):
        with pytest.raises(lewm.Error, match=r"lewm_object\.ckpt.*pickled module.*state_dict"):
            lewm.load(path)


@pytest.mark.parametrize("cut", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_truncated_files_are_refused(good: Path, tmp_path: Path, cut: float) -> None:
    data = good.read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(lewm.Error, match=r"cut\.pt"):
        read_state_dict(path)


def test_every_truncation_of_the_pickle_is_refused(good: Path, tmp_path: Path) -> None:
    entries = _entries(good)
    name = next(name for name in entries if name.endswith("data.pkl"))
    data = entries[name]
    for length in range(0, len(data), 7):
        with pytest.raises(lewm.Error, match=r"bad\.pt"):
            read_state_dict(_write_zip(tmp_path / "bad.pt", {**entries, name: data[:length]}))


def test_corrupted_bytes_are_refused_or_read(good: Path, tmp_path: Path) -> None:
    """Whatever byte of the file is wrong, the reader returns arrays or raises lewm.Error."""
    data = bytearray(good.read_bytes())
    rng, path = np.random.default_rng(0), tmp_path / "fuzzed.pt"
    refused = 0
    end_record = range(len(data) - 22, len(data))
    for position in (*rng.integers(0, len(data), 400), *end_record):
        fuzzed = bytearray(data)
        fuzzed[position] ^= int(rng.integers(1, 256))
        path.write_bytes(fuzzed)
        try:
            read_state_dict(path)
        except lewm.Error:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 5, "size": (5,)}, "expected 20 bytes, got 16"),
        ({"count": 3, "size": (3,)}, "expected at most 12 bytes"),
        ({"count": 2**60}, "claims 1152921504606846976 elements"),
        ({"count": -4}, "claims -4 elements"),
        ({"size": (5,)}, "reaches beyond its storage of 4 elements"),
        ({"offset": 1}, "reaches beyond"),
        ({"offset": -1}, "reaches beyond"),
        ({"stride": (2,)}, "reaches beyond"),
        ({"stride": (-1,)}, "sizes of at least 0"),
        ({"size": (-4,)}, "sizes of at least 0"),
        ({"size": (2**40,), "stride": (0,)}, "reaches beyond"),
        ({"size": (2, 2)}, "2 sizes and 1 strides"),
        ({"size": (1,) * 40, "stride": (1,) * 40}, "at most 32 sizes"),
        ({"kind": b"QInt8Storage"}, "torch.QInt8Storage"),
        ({"kind": b"Size"}, "of type 'Size'"),
        ({"key": "../../etc/passwd"}, "missing from the zip"),
        ({"tag": "module"}, "persistent id"),
    ],
)
def test_tensors_that_lie_are_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(lewm.Error, match=message):
        read_state_dict(_with_pickle(tmp_path, _tensor_pickle(**fields)))


def test_the_tensor_of_those_tests_is_good_as_it_stands(tmp_path: Path) -> None:
    storage = np.arange(4, dtype=np.float32)
    read = read_state_dict(_with_pickle(tmp_path, _tensor_pickle(), storage.tobytes()))
    np.testing.assert_array_equal(read["a"], storage)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02}X\x01\x00\x00\x00aK\x01s.", "got a int under 'a'"),
        (b"\x80\x02]K\x01a.", "expected a state dict, got a list"),
        (b"\x80\x02}K\x01K\x01s.", "expected a state dict"),
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "'os.system'"),
        (b"\x80\x02ctorch\nfloat32\n)R.", "calls 'torch.float32'"),
        (b"\x80\x02K\x01)R.", "calls 'int'"),
        (b"\x80\x02i__main__\nx\n.", "uses INST"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "uses NEWOBJ"),
        (b"\x80\x02\x8f.", "uses EMPTY_SET"),
        (b"\x80\x020.", "uses POP"),
        (b"\x80\x02}}}s.", "malformed"),
        (b"\x80\x02}(K\x01u.", "malformed"),
        (b"\x80\x02}", "malformed"),
        (b"", "malformed"),
        (b"\xff\xff\xff", "malformed"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "malformed"),
        (b"\x80\x02h\x07.", "malformed"),
        (b"\x80\x02R.", "malformed"),
        (b"\x80\x02K\x01K\x02.", "malformed"),
        (b"\x80\x02]K\x01b.", "malformed"),
    ],
)
def test_pickles_of_other_things_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(lewm.Error, match=message):
        read_state_dict(_with_pickle(tmp_path, data))


def test_deep_nesting_and_endless_hashing_end_in_an_error(tmp_path: Path) -> None:
    deep = b"\x80\x02" + b"](" * 100_000 + b"e" * 100_000 + b"."
    with pytest.raises(lewm.Error):
        read_state_dict(_with_pickle(tmp_path, deep))
    doubled = (
        b"\x80\x02}(K\x01q\x00" + b"h\x00h\x00\x86q\x00" * 200 + b"tK\x01s."
    )  # a key whose hash takes 2^200 steps
    with pytest.raises(lewm.Error, match="key is neither"):
        read_state_dict(_with_pickle(tmp_path, doubled))


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    huge = 256 << 20
    entries = {"x/data.pkl": _tensor_pickle(count=huge // 4, size=(huge // 4,)), "x/data/0": bytes(huge)}
    path = _write_zip(tmp_path / "bomb.pt", entries, zipfile.ZIP_DEFLATED)
    with pytest.raises(lewm.Error, match="more than the file can hold"):
        read_state_dict(path)
    path = _write_zip(tmp_path / "bomb.pt", {"x/data.pkl": bytes(huge)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(lewm.Error, match="expected at most"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"x/data.pkl": b"\x80\x02}.", "x/byteorder": b"big"}, "byteorder: expected little, got 'big'"),
        ({"data.pkl": b"\x80\x02}."}, "expected one NAME/data.pkl"),
        ({"x/data.pkl": b"\x80\x02}.", "y/data.pkl": b"\x80\x02}."}, "expected one NAME/data.pkl"),
        ({"x/data.pkl": b"\x80\x02}.", "/etc/passwd": b""}, "not a name inside"),
        ({"x/data.pkl": b"\x80\x02}.", "x/../../y": b""}, "not a name inside"),
        ({"x/data.pkl": b"\x80\x02}.", "x/code/y.py": b""}, "TorchScript"),
    ],
)
def test_zips_of_another_layout_are_refused(tmp_path: Path, entries: dict[str, bytes], message: str) -> None:
    with pytest.raises(lewm.Error, match=message):
        read_state_dict(_write_zip(tmp_path / "bad.pt", entries))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.pt"
    path.write_text("hello")
    with pytest.raises(lewm.Error, match="expected a zip written by"):
        read_state_dict(path)
    path.write_bytes(b"")
    with pytest.raises(lewm.Error, match="expected a zip"):
        read_state_dict(path)
    buffer = io.BytesIO()
    pickle.dump({"a": 1}, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(lewm.Error, match="plain pickle"):
        read_state_dict(path)
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "none.pt")
