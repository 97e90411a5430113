"""lewm.Model: arrays in, latents out; and everything it refuses."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lewm
import synthetic
from lewm import _core
from lewm.checkpoint import Checkpoint
from lewm.device_arrays import _contiguous

CONFIG = synthetic.small(encoder_depth=2, predictor_depth=2)
D, A = CONFIG.latent_dim, CONFIG.block_dim
FRAMES = synthetic.frames(1, 3, CONFIG.image_size)
LATENTS = synthetic.uniform(1, "latents", (2, 3, D))
GOAL = synthetic.uniform(1, "goal", (2, D))
ACTIONS = synthetic.uniform(1, "actions", (2, 37, 4, A))
PAST = synthetic.uniform(1, "past", (2, 2, A))


@pytest.fixture(scope="module")
def model() -> lewm.Model:
    scaling: Any = {"mean": [0.5, -1.0], "std": [2.0, 0.25]}
    return lewm.Model.from_checkpoint(
        Checkpoint(CONFIG, synthetic.state(CONFIG), action_scaling=scaling), "fp32", 2
    )


def test_cost_is_the_squared_distance_of_the_last_latent(model: lewm.Model) -> None:
    predicted = model.rollout(LATENTS, ACTIONS, PAST)
    expected = ((predicted[:, :, -1] - GOAL[:, None]) ** 2).sum(-1)
    np.testing.assert_allclose(model.cost(LATENTS, GOAL, ACTIONS, PAST), expected, rtol=1e-5)


def test_results_do_not_depend_on_the_batch_or_the_threads(model: lewm.Model) -> None:
    alone = lewm.Model.from_checkpoint(model.checkpoint(), "fp32", threads=1)
    predicted, encoded = model.rollout(LATENTS, ACTIONS, PAST), model.encode(FRAMES)
    assert (model.threads, alone.threads) == (2, 1)
    for b in range(2):
        for s in (0, 36):
            one = alone.rollout(LATENTS[b : b + 1], ACTIONS[b : b + 1, s : s + 1], PAST[b : b + 1])
            assert one.tobytes() == predicted[b, s].tobytes()
    for i in range(3):
        assert alone.encode(FRAMES[i : i + 1]).tobytes() == encoded[i].tobytes()


def test_work_of_the_published_sizes() -> None:
    """Counted by hand: of the encoder's last layer only CLS has a query, an output and an MLP."""
    config = lewm.LeWMConfig()
    model = lewm.Model.from_checkpoint(Checkpoint(config, synthetic.state(config)), "fp32", 1)
    d, tokens, mlp = 192, 257, 2 * 192 * 768
    layer = tokens * (4 * d * d + mlp + 2 * tokens * d)
    last = tokens * 2 * d * d + 2 * d * d + mlp + 2 * tokens * d
    head = 2048 * (d + d)
    assert model.encode_flops == 2 * (256 * 3 * 14 * 14 * d + 11 * layer + last + head)
    assert model.rollout_flops(5) == 157_707_264
    assert model.rollout_flops(5, context=3) > model.rollout_flops(5)
    with pytest.raises(ValueError, match=r"context: expected 1\.\.3 \(the model's history\), got 4"):
        model.rollout_flops(5, context=4)
    with pytest.raises(ValueError, match="horizon: expected an int of at least 1, got 0"):
        model.rollout_flops(0)
    with pytest.raises(ValueError, match=r"horizon: expected 1\.\.1048576, got 1000000000000"):
        model.rollout_flops(10**12)


def test_many_problems_are_rolled_out_in_parts(model: lewm.Model) -> None:
    latents = synthetic.uniform(2, "latents", (40, 1, D))
    actions = synthetic.uniform(2, "actions", (40, 2, 2, A))
    whole = model.rollout(latents, actions)
    for b in (0, 15, 16, 39):
        assert model.rollout(latents[b : b + 1], actions[b : b + 1]).tobytes() == whole[b].tobytes()


def test_normalised_floats_encode_like_pixels(model: lewm.Model) -> None:
    scale = model.preprocessing
    normalised = (FRAMES / np.float32(255) - np.float32(scale["mean"])) / np.float32(scale["std"])
    channels_first = np.ascontiguousarray(normalised.transpose(0, 3, 1, 2), np.float32)
    np.testing.assert_allclose(model.encode(channels_first), model.encode(FRAMES), rtol=0, atol=1e-5)


def test_arrays_of_other_kinds_are_accepted(model: lewm.Model) -> None:
    expected = model.rollout(LATENTS, ACTIONS, PAST)
    spread = np.zeros((2, 37, 4, 2 * A), np.float32)[..., ::2]
    spread[...] = ACTIONS
    read_only = LATENTS.copy()
    read_only.flags.writeable = False
    assert not spread.flags.c_contiguous
    np.testing.assert_array_equal(model.rollout(read_only, spread, PAST), expected)
    np.testing.assert_array_equal(
        model.rollout(memoryview(LATENTS), memoryview(ACTIONS), memoryview(PAST)), expected
    )
    torch = pytest.importorskip("torch")
    tensors = [torch.from_numpy(array).requires_grad_() for array in (LATENTS, ACTIONS, PAST)]
    np.testing.assert_array_equal(model.rollout(*tensors), expected)
    np.testing.assert_array_equal(model.encode(torch.from_numpy(FRAMES)), model.encode(FRAMES))
    flipped = torch.from_numpy(FRAMES).flip(2)
    np.testing.assert_array_equal(model.encode(flipped), model.encode(FRAMES[:, :, ::-1]))


def test_signs_that_torch_has_yet_to_flip_are_flipped(model: lewm.Model) -> None:
    torch = pytest.importorskip("torch")
    actions = torch.from_numpy(ACTIONS)
    lazy = torch.complex(actions, actions).conj().imag
    assert lazy.is_neg()
    np.testing.assert_array_equal(model.rollout(LATENTS, lazy, PAST), model.rollout(LATENTS, -ACTIONS, PAST))
    assert not _contiguous(lazy).is_neg()  # of arrays on a GPU


def test_tensors_without_memory_are_refused(model: lewm.Model) -> None:
    torch = pytest.importorskip("torch")
    for call, name in (
        (lambda: model.encode(torch.zeros(FRAMES.shape, dtype=torch.uint8, device="meta")), "frames"),
        (lambda: model.rollout(torch.zeros(LATENTS.shape, device="meta"), ACTIONS, PAST), "latents"),
        (lambda: model.rollout(LATENTS, torch.zeros(ACTIONS.shape, device="meta"), PAST), "actions"),
    ):
        with pytest.raises(TypeError, match=f"{name}: expected an array on the CPU, got Tensor"):
            call()


_WEIGHT = "encoder.encoder.layer.0.intermediate.dense.weight"


def test_tensors_in_memory_may_lie_in_any_order(model: lewm.Model) -> None:
    state, expected = synthetic.state(CONFIG), model.encode(FRAMES)
    for tensors in (
        {name: np.asfortranarray(tensor) for name, tensor in state.items()},
        {**state, _WEIGHT: np.repeat(state[_WEIGHT], 2, axis=1)[:, ::2]},
        {**state, _WEIGHT: state[_WEIGHT].astype(np.float64)},
    ):
        other = lewm.Model.from_checkpoint(Checkpoint(CONFIG, tensors), "fp32", 1)
        np.testing.assert_array_equal(other.encode(FRAMES), expected)


@pytest.mark.parametrize("kind", [">f4", "float16", "list"])
def test_tensors_of_other_kinds_are_refused_by_name(kind: str) -> None:
    state = synthetic.state(CONFIG)
    tensor: Any = state[_WEIGHT].tolist() if kind == "list" else state[_WEIGHT].astype(kind)
    with pytest.raises(TypeError, match=rf"tensors: {_WEIGHT}: expected a float32.*got .*{kind}"):
        lewm.Model.from_checkpoint(Checkpoint(CONFIG, {**state, _WEIGHT: tensor}), "fp32", 1)


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX alone")
def test_file_names_need_not_be_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"model\xff.safetensors")
    try:
        lewm.save(synthetic.state(CONFIG), path, config=CONFIG)
    except OSError:
        pytest.skip("a file system whose names are UTF-8")
    assert lewm.load(path).config == CONFIG
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(lewm.Error, match=r"model\\xff\.safetensors: "):
        lewm.load(path)


def _changed(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[-1] = value
    return changed


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((LATENTS[0], ACTIONS, PAST), ValueError, r"latents: expected \(B, C, 128\), got \(3, 128\)"),
        ((LATENTS[:, :, :5], ACTIONS, PAST), ValueError, r"latents: expected \(B, C, 128\), got \(2, 3, 5\)"),
        (
            (np.repeat(LATENTS, 2, 1), ACTIONS, PAST),
            ValueError,
            r"latents: expected \(B, 1\.\.3, 128\), got \(2, 6",
        ),
        (
            (LATENTS, ACTIONS[..., :4], PAST),
            ValueError,
            r"actions: expected \(2, S, H, 10\), got \(2, 37, 4, 4\)",
        ),
        (
            (LATENTS, ACTIONS[:1], PAST),
            ValueError,
            r"actions: expected \(2, S, H, 10\), got \(1, 37, 4, 10\)",
        ),
        (
            (LATENTS, ACTIONS[:, :0], PAST),
            ValueError,
            r"actions: expected \(2, S, H, 10\), got \(2, 0, 4, 10\)",
        ),
        ((LATENTS, ACTIONS[:, :, :0], PAST), ValueError, r"got \(2, 37, 0, 10\)"),
        ((LATENTS, ACTIONS), ValueError, r"past_actions: needed with 3 context frames, got None"),
        (
            (LATENTS, ACTIONS, PAST[:, :1]),
            ValueError,
            r"past_actions: expected \(2, 2, 10\), got \(2, 1, 10\)",
        ),
        ((LATENTS[:, :1], ACTIONS, PAST), ValueError, r"past_actions: expected None with one context frame"),
        ((LATENTS.astype(np.float64), ACTIONS, PAST), TypeError, "latents: expected float32, got float64"),
        ((LATENTS, ACTIONS.astype(np.int32), PAST), TypeError, "actions: expected float32, got int32"),
        ((LATENTS.tolist(), ACTIONS, PAST), TypeError, "latents: expected an array on the CPU, got list"),
        ((None, ACTIONS, PAST), TypeError, "latents: expected an array on the CPU, got NoneType"),
        (
            (_changed(LATENTS, np.nan), ACTIONS, PAST),
            ValueError,
            r"latents: expected finite.*nan at \(1, 2, 127\)",
        ),
        (
            (LATENTS, _changed(ACTIONS, np.inf), PAST),
            ValueError,
            r"actions: expected finite.*inf at \(1, 36, 3, 9\)",
        ),
        ((LATENTS, ACTIONS, _changed(PAST, np.nan)), ValueError, "past_actions: expected finite"),
    ],
)
def test_rollouts_of_anything_else_are_refused(
    model: lewm.Model, arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.rollout(*arguments)


@pytest.mark.parametrize(
    ("goal", "error", "message"),
    [
        (GOAL[0], ValueError, r"goal: expected \(2, 128\), got \(128,\)"),
        (GOAL[:1], ValueError, r"goal: expected \(2, 128\), got \(1, 128\)"),
        (_changed(GOAL, np.nan), ValueError, "goal: expected finite"),
        (GOAL.astype(np.float16), TypeError, "goal: expected float32, got float16"),
    ],
)
def test_costs_to_anything_else_are_refused(
    model: lewm.Model, goal: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.cost(LATENTS, goal, ACTIONS, PAST)


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (FRAMES[0], ValueError, r"frames: expected \(n, 64, 64, 3\), got \(64, 64, 3\)"),
        (FRAMES[:, :32], ValueError, r"frames: expected \(n, 64, 64, 3\), got \(3, 32, 64, 3\)"),
        (FRAMES[..., :1], ValueError, r"got \(3, 64, 64, 1\)"),
        (FRAMES[:0], ValueError, r"got \(0, 64, 64, 3\)"),
        (FRAMES.astype(np.float32), ValueError, r"frames: expected \(n, 3, 64, 64\), got \(3, 64, 64, 3\)"),
        (FRAMES.astype(np.int64), TypeError, "frames: expected uint8 or float32, got int64"),
        (np.full((1, 3, 64, 64), np.nan, np.float32), ValueError, r"frames: expected finite.*\(0, 0, 0, 0\)"),
        ("frame.png", TypeError, "frames: expected an array on the CPU, got str"),
        (FRAMES.tolist(), TypeError, "frames: expected an array on the CPU, got list"),
    ],
)
def test_frames_of_anything_else_are_refused(
    model: lewm.Model, frames: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.encode(frames)


def test_actions_go_to_the_model_and_back(model: lewm.Model) -> None:
    actions = synthetic.uniform(3, "actions", (4, CONFIG.frame_skip, CONFIG.action_dim))
    blocks = model.standardise(actions)
    np.testing.assert_allclose(
        blocks.reshape(actions.shape), (actions - [0.5, -1.0]) / [2.0, 0.25], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(model.environment_actions(blocks), actions, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"actions: expected \(\.\.\., 5, 2\), got \(4, 10\)"):
        model.standardise(blocks)
    with pytest.raises(ValueError, match=r"blocks: expected \(\.\.\., 10\), got \(4, 5, 2\)"):
        model.environment_actions(actions)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"precision": "fp16"}, ValueError, "precision: expected auto, fp32, bf16, int8, got 'fp16'"),
        (
            {"encoder_precision": "fp16"},
            ValueError,
            "encoder_precision: expected auto, fp32, bf16, int8, got 'fp16'",
        ),
        ({"threads": 0}, ValueError, r"threads: expected 1\.\.1024 or None, got 0"),
        ({"threads": 2.0}, ValueError, "threads: expected"),
        ({"threads": True}, ValueError, "threads: expected"),
        ({"device": None}, TypeError, "device: expected 'cpu', 'cuda' or 'cuda:N', got None"),
        ({"frame_skip": 2.0}, ValueError, "frame_skip: expected an int of at least 1, got 2.0"),
        ({"device": "tpu"}, ValueError, "device: expected 'cpu', 'cuda' or 'cuda:N', got 'tpu'"),
        ({"device": "cuda:-1"}, ValueError, "device: expected 'cpu', 'cuda' or 'cuda:N', got 'cuda:-1'"),
        ({"isa": "sse"}, ValueError, "isa: expected one of scalar.*got 'sse'"),
        ({"isa": "neon" if "neon" not in _core.isas_built() else "avx2"}, lewm.Error, "."),
    ],
)
def test_loading_with_other_settings_is_refused(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    lewm.save(synthetic.state(CONFIG), tmp_path / "model.safetensors", config=CONFIG)
    with pytest.raises(error, match=message):
        lewm.load(tmp_path / "model.safetensors", **arguments)


def test_numpy_integers_are_integers(tmp_path: Path) -> None:
    lewm.save(synthetic.state(CONFIG), tmp_path / "run", config=CONFIG)
    (tmp_path / "run" / "lewm.json").unlink()
    model = lewm.load(tmp_path / "run", threads=np.int64(1), frame_skip=np.int64(CONFIG.frame_skip))  # type: ignore[arg-type]
    assert (model.threads, model.config.frame_skip) == (1, CONFIG.frame_skip)


def test_a_model_is_only_saved_as_it_was_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lewm.save(synthetic.state(CONFIG), tmp_path / "model.safetensors", config=CONFIG)
    model = lewm.load("model.safetensors", "fp32", 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    lewm.save(model, "copy.safetensors")
    np.testing.assert_array_equal(
        lewm.load("copy.safetensors", "fp32", 1).encode(FRAMES), model.encode(FRAMES)
    )
    lewm.save(synthetic.state(CONFIG, seed=5), tmp_path / "model.safetensors", config=CONFIG)
    with pytest.raises(
        lewm.Error, match=r"model\.safetensors: the file has changed since the model was loaded"
    ):
        lewm.save(model, "other.safetensors")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(lewm.Error, match="the file has changed since"):
        model.checkpoint()
    assert not Path("other.safetensors").exists()


def test_a_refused_rollout_leaves_the_model_as_it_was(model: lewm.Model) -> None:
    fresh = lewm.Model.from_checkpoint(model.checkpoint(), "fp32", 1)
    expected = fresh.rollout(LATENTS, ACTIONS, PAST)
    with pytest.raises(ValueError, match=r"horizon: expected 1\.\.1048576, got 1048577"):
        fresh.rollout(LATENTS[:1, :1], np.zeros((1, 1, (1 << 20) + 1, A), np.float32))
    np.testing.assert_array_equal(fresh.rollout(LATENTS, ACTIONS, PAST), expected)


def test_a_file_that_promises_more_layers_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    lewm.save(synthetic.state(CONFIG), path, config=CONFIG)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    config = f'\\"predictor_depth\\": {CONFIG.predictor_depth}'.encode()
    assert config in content
    many = content.replace(config, b'\\"predictor_depth\\": 1048576')
    grown = length + len(many) - len(content)
    path.write_bytes(grown.to_bytes(8, "little") + many[8:])
    with pytest.raises(lewm.Error, match=r"tensor .*layers\.2.*: missing"):
        lewm.load(path)


def test_auto_is_the_fastest_precision_that_keeps_latents() -> None:
    checkpoint = Checkpoint(CONFIG, synthetic.state(CONFIG))
    cpu = Path("/proc/cpuinfo")
    # Intel's CPUs multiply bf16 at half of fp32's speed, AMX aside.
    intel = cpu.exists() and "GenuineIntel" in cpu.read_text()
    wanted = {
        "avx2": ("int8",),
        "avx512": ("int8",) if intel else ("bf16", "int8"),
        "amx": ("bf16",),
    }
    for isa in _core.isas_available():
        chosen = lewm.Model.from_checkpoint(checkpoint, "auto", isa=isa)
        assert chosen.isa == isa
        available = [precision for precision in wanted.get(isa, ()) if precision in _core.precisions(isa)]
        assert chosen.precision == (available or ["fp32"])[0]


@pytest.mark.parametrize("precision", _core.precisions(_core.active_isa()))
def test_the_encoder_is_fp32_unless_asked_otherwise(tmp_path: Path, precision: str) -> None:
    lewm.save(synthetic.state(CONFIG), tmp_path / "model.safetensors", config=CONFIG)
    reference = lewm.load(tmp_path / "model.safetensors", "fp32").encode(FRAMES)
    model = lewm.load(tmp_path / "model.safetensors", precision)
    assert (model.precision, model.encoder_precision) == (precision, "fp32")
    assert np.array_equal(model.encode(FRAMES), reference)
    same = lewm.load(tmp_path / "model.safetensors", precision, encoder_precision=precision)
    assert same.encoder_precision == precision
    assert np.array_equal(same.encode(FRAMES), reference) == (precision == "fp32")


def test_files_and_folders_load_the_same_model(tmp_path: Path) -> None:
    lewm.save(synthetic.state(CONFIG), tmp_path / "run", config=CONFIG)
    lewm.convert(tmp_path / "run", tmp_path / "model.safetensors")
    expected = lewm.load(tmp_path / "run", "fp32").encode(FRAMES)
    np.testing.assert_array_equal(lewm.load(tmp_path / "model.safetensors", "fp32").encode(FRAMES), expected)
    np.testing.assert_array_equal(
        lewm.load(str(tmp_path / "run" / "weights.pt"), "fp32").encode(FRAMES), expected
    )


def test_a_model_is_shared_by_threads(model: lewm.Model) -> None:
    expected, results = model.rollout(LATENTS, ACTIONS, PAST), {}

    def work(i: int) -> None:
        for _ in range(5):
            results[i] = model.rollout(LATENTS, ACTIONS, PAST)
            model.encode(FRAMES)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results.values():
        np.testing.assert_array_equal(result, expected)


def test_the_core_refuses_what_the_wrapper_would_have(model: lewm.Model) -> None:
    """The extension itself checks shapes: no array of any shape makes it read beyond one."""
    core, out = model._core, np.empty((2, 37, 4, D), np.float32)
    with pytest.raises(ValueError, match="out: expected"):
        core.rollout(LATENTS, ACTIONS, PAST, out[:, :1].copy())
    with pytest.raises(ValueError, match="actions: expected"):
        core.rollout(LATENTS, ACTIONS[:1], PAST, out)
    with pytest.raises(ValueError, match="past_actions"):
        core.rollout(LATENTS, ACTIONS, None, out)
    with pytest.raises(ValueError, match="frames: expected"):
        core.encode(FRAMES[:, :8].copy(), np.empty((3, D), np.float32))
    with pytest.raises(TypeError):
        core.rollout(LATENTS, ACTIONS[..., ::-1], PAST, out)
