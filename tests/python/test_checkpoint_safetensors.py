"""``.safetensors`` files: what is written is read, here and by others; headers that lie and
files of other contents are refused, twice over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lewm
import synthetic
from lewm import _core
from lewm.checkpoint import read_checkpoint, safetensors

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "count": np.array(5, np.int64),
    "bytes": np.arange(3, dtype=np.uint8),
    "empty": np.empty((0, 4), np.float32),
}


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _join(header: Any, body: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("deployment") / "model.safetensors"
    config = synthetic.small(encoder_depth=1, predictor_depth=1)
    lewm.save(synthetic.state(config), path, config=config)
    return path.read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    safetensors.write(tmp_path / "a.safetensors", ARRAYS, {"key": "value"})
    read, metadata = safetensors.read(tmp_path / "a.safetensors")
    assert metadata == {"key": "value"}
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype and read[name].shape == array.shape
        np.testing.assert_array_equal(read[name], array)


def test_the_reference_library_agrees(tmp_path: Path) -> None:
    reference = pytest.importorskip("safetensors.numpy")
    safetensors.write(tmp_path / "ours.safetensors", ARRAYS)
    for name, array in reference.load_file(tmp_path / "ours.safetensors").items():
        np.testing.assert_array_equal(array, ARRAYS[name])
    reference.save_file(ARRAYS, tmp_path / "theirs.safetensors")
    read, _ = safetensors.read(tmp_path / "theirs.safetensors")
    assert set(read) == set(ARRAYS)


def test_bfloat16_is_read_as_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.0e38], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    header = {"a": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
    (tmp_path / "b.safetensors").write_bytes(_join(header, bits.tobytes()))
    read, _ = safetensors.read(tmp_path / "b.safetensors")
    np.testing.assert_array_equal(read["a"], (bits.astype(np.uint32) << 16).view(np.float32))


def test_an_array_that_no_file_can_hold_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.write(path, ARRAYS)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="complex64"):
        safetensors.write(path, {"a": np.zeros(2, np.complex64)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def _edit(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def edited(data: bytes) -> bytes:
        header, body = _split(data)
        change(header)
        return _join(header, body)

    return edited


def _last(header: dict[str, Any]) -> dict[str, Any]:
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    return max(entries, key=lambda entry: entry["data_offsets"][1])


def _metadata(key: str, value: Any) -> Callable[[bytes], bytes]:
    def change(header: dict[str, Any]) -> None:
        if value is None:
            del header["__metadata__"][key]
        else:
            header["__metadata__"][key] = value

    return _edit(change)


def _config(**changes: Any) -> Callable[[bytes], bytes]:
    def change(header: dict[str, Any]) -> None:
        config = json.loads(header["__metadata__"]["config"])
        header["__metadata__"]["config"] = json.dumps({**config, **changes})

    return _edit(change)


_CLS = "encoder.embeddings.cls_token"
LIES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "only a length": lambda data: data[:8],
    "half a header": lambda data: data[:200],
    "without its last byte": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\0",
    "oversized header": lambda data: _join(b"{}", b"", length=2**63),
    "header beyond the file": lambda data: _join(b"{}", b"", length=1000),
    "header no JSON": lambda data: _join(b"{not json", b""),
    "header a list": lambda data: _join([], b""),
    "header too deep": lambda data: _join(b"[" * 100_000, b""),
    "header not UTF-8": lambda data: _join(b'{"\xff": 1}', b""),
    "a name twice": lambda data: _join(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "offsets beyond the file": _edit(lambda h: _last(h).update(data_offsets=[0, 2**40])),
    "offsets backwards": _edit(lambda h: h[_CLS].update(data_offsets=h[_CLS]["data_offsets"][::-1])),
    "offsets negative": _edit(lambda h: h[_CLS].update(data_offsets=[-512, 0])),
    "offsets overlapping": _edit(lambda h: h[_CLS].update(data_offsets=[0, 512])),
    "shape larger than its bytes": _edit(lambda h: h[_CLS].update(shape=[1, 1, 129])),
    "shape that overflows": _edit(lambda h: h[_CLS].update(shape=[2**62, 4, 128])),
    "shape of nothing that overflows": _edit(
        lambda h: h.update(none={"dtype": "F32", "shape": [2**62, 8, 0], "data_offsets": [0, 0]})
    ),
    "shape of too many dimensions": _edit(lambda h: h[_CLS].update(shape=[1] * 99 + [128])),
    "shape of fractions": _edit(lambda h: h[_CLS].update(shape=[1, 1.0, 128])),
    "unknown dtype": _edit(lambda h: h[_CLS].update(dtype="F8")),
    "dtype that is no name": _edit(lambda h: h[_CLS].update(dtype=["F32"])),
    "dtype of another width": _edit(lambda h: h[_CLS].update(dtype="F64")),
    "missing field": _edit(lambda h: h[_CLS].pop("shape")),
    "no format": _metadata("format", None),
    "another format": _metadata("format", "pt"),
    "a later version": _metadata("format_version", "2"),
    "no config": _metadata("config", None),
    "config no JSON": _metadata("config", "{"),
    "config a list": _metadata("config", "[]"),
    "config with another field": _config(depth=3),
    "config with a fraction": _config(latent_dim=128.5),
    "config that the tensors contradict": _config(latent_dim=96),
    "config of endless depth": _config(encoder_depth=10**15),
    "config with a deeper predictor": _config(predictor_depth=2),
    "config with a shallower predictor": _config(encoder_depth=0),
    "no preprocessing": _metadata("preprocessing", None),
    "preprocessing of two channels": _metadata("preprocessing", '{"mean":[0,0],"std":[1,1]}'),
    "preprocessing with std 0": _metadata("preprocessing", '{"mean":[0,0,0],"std":[1,1,0]}'),
    "preprocessing NaN": _metadata("preprocessing", '{"mean":[0,0,NaN],"std":[1,1,1]}'),
    "scaling of another size": _metadata("action_scaling", '{"mean":[0],"std":[1]}'),
    "scaling beyond float32": _metadata("action_scaling", '{"mean":[0,1e300],"std":[1,1]}'),
    "scaling with an std that is 0 in float32": _metadata("action_scaling", '{"mean":[0,0],"std":[1,1e-46]}'),
    "scaling with a denormal std": _metadata("action_scaling", '{"mean":[0,0],"std":[1,1e-40]}'),
    "scaling of huge integers": _metadata("action_scaling", '{"mean":[0,1%s],"std":[1,1]}' % ("0" * 400)),
    "scaling negative": _metadata("action_scaling", '{"mean":[0,0],"std":[1,-1]}'),
    "metadata of numbers": _edit(lambda h: h["__metadata__"].update(config=3)),
    "tensor missing": lambda data: _without_tensor(data),
    "tensor renamed": _edit(lambda h: h.update({"other": h.pop(_CLS)})),
    "NaN in a tensor": lambda data: data[:-4] + np.float32(np.nan).tobytes(),
}


def _without_tensor(data: bytes) -> bytes:
    header, body = _split(data)
    last = _last(header)
    name = next(name for name, entry in header.items() if entry is last)
    begin, _ = header.pop(name)["data_offsets"]
    return _join(header, body[:begin])


@pytest.mark.parametrize("lie", LIES)
def test_files_that_lie_are_refused_by_both_readers(deployment: bytes, tmp_path: Path, lie: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(LIES[lie](deployment))
    with pytest.raises(lewm.Error, match=r"bad\.safetensors"):
        lewm.convert(path, tmp_path / "copy.safetensors")
    with pytest.raises(lewm.Error, match=r"bad\.safetensors"):
        _core.Model.open(os.fsencode(path), "fp32", 1)


def test_the_file_of_those_tests_is_good_as_it_stands(deployment: bytes, tmp_path: Path) -> None:
    path = tmp_path / "good.safetensors"
    path.write_bytes(deployment)
    lewm.convert(path, tmp_path / "copy.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == deployment
    lewm.load(path)


def test_random_corruption_never_crashes(deployment: bytes, tmp_path: Path) -> None:
    """A wrong byte in the header ends in lewm.Error or in a model; the two readers agree which."""
    rng, path = np.random.default_rng(1), tmp_path / "fuzzed.safetensors"
    length = 8 + int.from_bytes(deployment[:8], "little")
    refused = 0
    for position in rng.integers(0, length, 60):
        fuzzed = bytearray(deployment)
        fuzzed[position] ^= int(rng.integers(1, 256))
        path.write_bytes(fuzzed)
        outcomes = []
        for open_file in (
            lambda: lewm.checkpoint.read_checkpoint(path),
            lambda: _core.Model.open(os.fsencode(path), "fp32", 1),
        ):
            try:
                open_file()
                outcomes.append("read")
            except lewm.Error:
                outcomes.append("refused")
        assert outcomes[0] == outcomes[1], (position, outcomes)
        refused += outcomes[0] == "refused"
    assert refused > 10


ODD_FILES: dict[str, tuple[Callable[[dict[str, Any], dict[str, str]], Any], bool]] = {
    "as written": (lambda t, m: None, True),
    "no actions": (lambda t, m: m.pop("action_scaling"), True),
    "later names": (lambda t, m: t.update({"encoder.layers.0.mlp.fc1.bias": t.pop(_FC1)}), True),
    "names mixed": (lambda t, m: t.update({"encoder.layers.0.intermediate.dense.bias": t.pop(_FC1)}), False),
    "compiled names": (lambda t, m: t.update({f"_orig_mod.{_FC1}": t.pop(_FC1)}), False),
    "unused": (lambda t, m: t.update({"encoder.embeddings.mask_token": np.zeros((1, 1, 16), "<f4")}), False),
    "no count": (lambda t, m: t.pop(_COUNT), True),
    "float count": (lambda t, m: t.update({_COUNT: np.array(np.nan, np.float32)}), True),
    "counts": (lambda t, m: t.update({_COUNT: np.zeros((2, 3), np.int64)}), True),
    "int16 count": (lambda t, m: t.update({_COUNT: np.array(3, np.int16)}), True),
    "bool count": (lambda t, m: t.update({_COUNT: np.array(True)}), True),
    "count of nothing": (lambda t, m: t.update({f"x{_COUNT}": np.zeros((), np.int64)}), False),
    "further key": (lambda t, m: m.update(preprocessing=m["preprocessing"][:-1] + ', "max": 1}'), False),
    "further key of actions": (
        lambda t, m: m.update(action_scaling=m["action_scaling"][:-1] + ', "max": 1}'),
        False,
    ),
    "empty actions": (lambda t, m: m.update(action_scaling='{"mean": [], "std": []}'), False),
    "a key twice": (lambda t, m: m.update(action_scaling='{"mean":[0,0],"std":[2,2],"std":[1,1]}'), False),
    "a size twice": (lambda t, m: m.update(config=m["config"][:-1] + ', "history": 3}'), False),
    "least std": (lambda t, m: m.update(action_scaling='{"mean":[0,0],"std":[1,1.17549434e-38]}'), True),
    "largest mean": (lambda t, m: m.update(action_scaling='{"mean":[0,3.4028235e38],"std":[1,1]}'), True),
    "text": (lambda t, m: m.update(action_scaling='{"mean": ["0", 0], "std": [1, 1]}'), False),
    "truth": (lambda t, m: m.update(action_scaling='{"mean": [0, 0], "std": [true, 1]}'), False),
}
_FC1 = "encoder.encoder.layer.0.intermediate.dense.bias"
_COUNT = "projector.net.1.num_batches_tracked"


@pytest.mark.parametrize("name", ODD_FILES)
def test_the_core_opens_the_deployment_files_that_python_reads(tmp_path: Path, name: str) -> None:
    """What was loaded can be saved, and what is refused is refused by both."""
    change, good = ODD_FILES[name]
    path, again = tmp_path / "model.safetensors", tmp_path / "again.safetensors"
    lewm.save(
        synthetic.state(synthetic.TINY),
        path,
        config=synthetic.TINY,
        action_mean=[0.5, -1.0],
        action_std=[2.0, 0.25],
    )
    tensors, metadata = safetensors.read(path)
    change(tensors, metadata)
    safetensors.write(path, tensors, metadata)
    if good:
        lewm.save(lewm.load(path), again)
        assert lewm.load(again).action_scaling == lewm.load(path).action_scaling
        return
    for opened in (lewm.load, read_checkpoint):
        with pytest.raises(lewm.Error, match=r"model\.safetensors: "):
            opened(path)


@pytest.mark.parametrize("change", [lambda h: b" " + h, lambda h: h.replace(b"of a test", b"\\ud800")])
def test_headers_that_the_core_refuses_python_refuses(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "model.safetensors"
    lewm.save(synthetic.state(synthetic.TINY), path, config=synthetic.TINY, provenance="of a test")
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = change(data[8:end])
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
    for opened in (lewm.load, read_checkpoint):
        with pytest.raises(lewm.Error, match=r"model\.safetensors: .*header"):
            opened(path)
