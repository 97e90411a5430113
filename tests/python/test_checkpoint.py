"""Published folders and deployment files: sizes, namings, conversions, and checkpoints that contradict themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lewm
import synthetic
from lewm.checkpoint import Checkpoint, expected_shapes, read_checkpoint
from lewm.checkpoint.torch_reader import read_state_dict
from lewm.checkpoint.torch_writer import write_state_dict

CONFIG = synthetic.small(encoder_depth=2, predictor_depth=2)
SCALING = {"action_mean": [0.5, -1.0], "action_std": [2.0, 0.25]}
# The config.json of the published checkpoints.
PUBLISHED_NODES = {
    "_target_": "stable_worldmodel.wm.lewm.LeWM",
    "encoder": {
        "_target_": "stable_pretraining.backbone.utils.vit_hf",
        "size": "tiny",
        "patch_size": 14,
        "image_size": 224,
        "pretrained": False,
        "use_mask_token": False,
    },
    "predictor": {
        "_target_": "stable_worldmodel.wm.lewm.module.Predictor",
        "num_frames": 3,
        "input_dim": 192,
        "hidden_dim": 192,
        "output_dim": 192,
        "depth": 6,
        "heads": 16,
        "mlp_dim": 2048,
        "dim_head": 64,
        "dropout": 0.1,
        "emb_dropout": 0.0,
    },
    "action_encoder": {
        "_target_": "stable_worldmodel.wm.lewm.module.Embedder",
        "input_dim": 10,
        "emb_dim": 192,
    },
    "projector": {
        "_target_": "stable_worldmodel.wm.lewm.module.MLP",
        "input_dim": 192,
        "output_dim": 192,
        "hidden_dim": 2048,
        "norm_fn": {"_target_": "torch.nn.BatchNorm1d", "_partial_": True},
    },
}
PUBLISHED_NODES["pred_proj"] = PUBLISHED_NODES["projector"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published folder of the small model, as others write it."""
    path = tmp_path / "run"
    lewm.save(synthetic.state(CONFIG), path, config=CONFIG)
    (path / "lewm.json").unlink()
    return path


def _edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    nodes = json.loads((folder / "config.json").read_text())
    change(nodes)
    (folder / "config.json").write_text(json.dumps(nodes))


def _edit_tensors(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tensors = read_state_dict(folder / "weights.pt")
    change(tensors)
    with (folder / "weights.pt").open("wb") as file:
        write_state_dict(file, tensors)


def test_the_published_sizes_have_the_published_tensors() -> None:
    shapes = expected_shapes(lewm.LeWMConfig())
    assert len(shapes) == 303
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 18_042_672


def test_the_published_config_is_the_default(tmp_path: Path) -> None:
    config = lewm.LeWMConfig()
    tensors = {name: np.zeros(shape, np.float32) for name, shape in expected_shapes(config).items()}
    with (tmp_path / "weights.pt").open("wb") as file:
        write_state_dict(file, tensors)
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED_NODES))
    assert read_checkpoint(tmp_path).config == config
    lewm.save(tensors, tmp_path / "ours", config=config)
    ours = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert ours == {
        **PUBLISHED_NODES,
        "action_encoder": {**PUBLISHED_NODES["action_encoder"], "smoothed_dim": 10, "mlp_scale": 4},
    }


@pytest.mark.parametrize("case", [case for case in synthetic.CASES if synthetic.CASES[case].image_size < 224])
@pytest.mark.parametrize("transformers", [4, 5])
def test_folders_and_files_hold_the_same_model(tmp_path: Path, case: str, transformers: int) -> None:
    config, state = synthetic.CASES[case], synthetic.state(synthetic.CASES[case])
    lewm.save(state, tmp_path / "run", config=config, transformers=transformers, **SCALING)
    lewm.convert(tmp_path / "run", tmp_path / "model.safetensors")
    lewm.convert(tmp_path / "model.safetensors", tmp_path / "back", transformers=transformers)
    for path in (
        tmp_path / "run",
        tmp_path / "model.safetensors",
        tmp_path / "back",
        tmp_path / "run" / "weights.pt",
    ):
        checkpoint = read_checkpoint(path)
        assert checkpoint.config == config
        assert checkpoint.action_scaling == {"mean": SCALING["action_mean"], "std": SCALING["action_std"]}
        assert list(checkpoint.state) == list(expected_shapes(config))
        for name, tensor in state.items():
            np.testing.assert_array_equal(checkpoint.state[name], tensor)
    for name in ("weights.pt", "config.json", "lewm.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "back" / name).read_bytes()


def test_both_namings_of_transformers_are_written_and_read(tmp_path: Path) -> None:
    state = synthetic.state(CONFIG)
    for transformers, name in (
        (4, "encoder.encoder.layer.0.intermediate.dense.bias"),
        (5, "encoder.layers.0.mlp.fc1.bias"),
    ):
        lewm.save(state, tmp_path / str(transformers), config=CONFIG, transformers=transformers)
        assert name in read_state_dict(tmp_path / str(transformers) / "weights.pt")
    with pytest.raises(ValueError, match="transformers: expected 4 or 5, got 3"):
        lewm.save(state, tmp_path / "3", config=CONFIG, transformers=3)


def test_names_of_compiled_modules_and_unused_tensors_are_read(folder: Path) -> None:
    def change(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors[name.replace("predictor.", "predictor._orig_mod.")] = tensors.pop(name)
        tensors["encoder.embeddings.mask_token"] = np.zeros((1, 1, 128), np.float32)

    _edit_tensors(folder, change)
    assert list(read_checkpoint(folder).state) == list(expected_shapes(CONFIG))


def test_weights_in_half_precision_are_read_as_float32(folder: Path) -> None:
    _edit_tensors(
        folder,
        lambda tensors: tensors.update({n: t.astype(np.float16) for n, t in tensors.items() if t.ndim}),
    )
    assert {str(tensor.dtype) for tensor in read_checkpoint(folder).state.values()} == {"float32", "int64"}


@pytest.mark.parametrize(
    ("block", "given", "expected"), [(10, None, 5), (12, None, 1), (10, 2, 2), (12, 4, 4)]
)
def test_the_frame_skip_that_folders_do_not_record(
    tmp_path: Path, block: int, given: int | None, expected: int
) -> None:
    config = synthetic.small(encoder_depth=1, predictor_depth=1, action_dim=block, frame_skip=1)
    lewm.save(synthetic.state(config), tmp_path / "run", config=config)
    (tmp_path / "run" / "lewm.json").unlink()
    read = read_checkpoint(tmp_path / "run", given).config
    assert (read.frame_skip, read.action_dim) == (expected, block // expected)


def test_a_frame_skip_that_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="frame_skip: expected a divisor of the action block's width 10, got 3"
    ):
        lewm.load(folder, frame_skip=3)
    lewm.convert(folder, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"frame_skip: model\.safetensors says 5, got 2"):
        lewm.load(tmp_path / "model.safetensors", frame_skip=2)


def test_what_the_nodes_leave_out_the_tensors_decide(folder: Path) -> None:
    def strip(nodes: dict[str, Any]) -> None:
        nodes["encoder"] = {"size": "tiny", "hidden_size": 128, "num_attention_heads": 4} | {
            "num_hidden_layers": 2,
            "intermediate_size": 512,
        }
        nodes["predictor"] = {"heads": 4}
        for name in ("action_encoder", "projector", "pred_proj"):
            del nodes[name]

    _edit(folder, strip)
    assert read_checkpoint(folder).config == CONFIG


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "encoder size": (
        lambda n: n.update(encoder={"size": "small"}),
        r"encoder_dim is 128, but encoder.hidden_size says 384",
    ),
    "patch size": (lambda n: n["encoder"].update(patch_size=8), r"patch_size is 8, the tensors say 16"),
    "image size": (lambda n: n["encoder"].update(image_size=224), r"image_size is 224, the tensors say 64"),
    "history": (
        lambda n: n["predictor"].update(num_frames=4),
        r"num_frames: history is 4, the tensors say 3",
    ),
    "depth": (lambda n: n["predictor"].update(depth=6), r"predictor_depth is 6, the tensors say 2"),
    "heads": (lambda n: n["predictor"].update(heads=5), r"heads x dim_head is 5 x 32, the tensors say 128"),
    "block": (lambda n: n["action_encoder"].update(input_dim=25), r"block_dim is 25, the tensors say 10"),
    "norm": (lambda n: n["projector"].update(norm_fn=None), r"projector_norm"),
    "two nodes": (
        lambda n: n["projector"].update(output_dim=100),
        r"latent_dim is 100, but predictor.input_dim says 128",
    ),
    "not a number": (
        lambda n: n["predictor"].update(depth="2"),
        r"predictor.depth: expected an integer, got '2'",
    ),
    "interpolation": (lambda n: n["predictor"].update(depth="${depth}"), r"expected an integer"),
    "unknown size": (
        lambda n: n["encoder"].update(size="giant"),
        r"encoder.size: expected one of tiny.*got 'giant'",
    ),
    "activation": (
        lambda n: n["encoder"].update(hidden_act="relu"),
        r"hidden_act: expected 'gelu', got 'relu'",
    ),
    "other norm": (
        lambda n: n["projector"].update(norm_fn={"_target_": "torch.nn.GroupNorm"}),
        r"norm_fn: expected one of BatchNorm1d",
    ),
    "other model": (
        lambda n: n.update(_target_="stable_worldmodel.wm.pldm.PLDM"),
        r"expected LeWM.*got.*PLDM",
    ),
    "other encoder": (
        lambda n: n["encoder"].update(_target_="os.system"),
        r"encoder._target_.*got 'os.system'",
    ),
    "node a list": (lambda n: n.update(predictor=[]), r"predictor: expected an object, got list"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_configs_that_contradict_are_refused_with_both_values(folder: Path, name: str) -> None:
    change, message = CONTRADICTIONS[name]
    _edit(folder, change)
    with pytest.raises(lewm.Error, match=message):
        lewm.load(folder)


TENSOR_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing": (
        lambda t: t.pop("encoder.layernorm.bias"),
        r"encoder.layernorm.bias: expected \(128,\), got no such",
    ),
    "no encoder": (lambda t: [t.pop(n) for n in list(t) if n.startswith("encoder.")], r"not a LeWM's"),
    "further": (lambda t: t.update(head=np.zeros(2, np.float32)), r"head: no tensor of a model"),
    "shape": (
        lambda t: t.update({"predictor.transformer.layers.1.mlp.net.1.bias": np.zeros(3, np.float32)}),
        r"mlp.net.1.bias: expected \(256,\), got \(3,\)",
    ),
    "rank": (
        lambda t: t.update({"predictor.pos_embedding": np.zeros(3, np.float32)}),
        r"expected 3 dimensions",
    ),
    "NaN": (
        lambda t: t["encoder.layernorm.bias"].__setitem__(3, np.nan),
        r"encoder.layernorm.bias: expected finite",
    ),
    "integers": (lambda t: t.update({"encoder.layernorm.bias": np.zeros(128, np.int64)}), r"floating-point"),
    "negative variance": (
        lambda t: t["projector.net.1.running_var"].__setitem__(3, -0.5),
        r"projector.net.1.running_var: expected variances of at least 0, got -0\.5",
    ),
    "overflow": (lambda t: t.update({"encoder.layernorm.bias": np.full(128, 1e300)}), r"beyond float32"),
    "two norms": (lambda t: t.pop("projector.net.1.running_mean"), r"norm"),
    "positions": (
        lambda t: t.update({"encoder.embeddings.position_embeddings": np.zeros((1, 12, 128), np.float32)}),
        r"11 patches are no square",
    ),
}


@pytest.mark.parametrize("name", TENSOR_FAULTS)
def test_tensors_that_are_not_the_models_are_refused(folder: Path, name: str) -> None:
    change, message = TENSOR_FAULTS[name]
    _edit_tensors(folder, change)
    with pytest.raises(lewm.Error, match=message):
        lewm.load(folder)


def test_paths_that_hold_no_checkpoint(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        lewm.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no \.pt or \.safetensors file"):
        lewm.load(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(lewm.Error, match=r"notes\.txt: expected a folder, a \.pt or a \.safetensors file"):
        lewm.load(tmp_path / "notes.txt")
    for text, message in (
        ("{", "not valid JSON"),
        ("[]", "expected an object, got list"),
        ("{}", "encoder: neither"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(lewm.Error, match=message):
            lewm.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no config\.json in"):
        lewm.load(folder)


def test_of_several_weights_the_named_one_is_read(folder: Path) -> None:
    (folder / "weights.pt").rename(folder / "weights_epoch_1.pt")
    (folder / "weights_epoch_2.pt").write_bytes((folder / "weights_epoch_1.pt").read_bytes())
    with pytest.raises(lewm.Error, match="several"):
        lewm.load(folder)
    assert lewm.load(folder / "weights_epoch_2.pt").config == CONFIG


def test_plain_safetensors_beside_a_config_are_read(folder: Path) -> None:
    from lewm.checkpoint import safetensors

    safetensors.write(folder / "model.safetensors", read_state_dict(folder / "weights.pt"))
    (folder / "weights.pt").unlink()
    assert lewm.load(folder).config == CONFIG
    assert lewm.load(folder / "model.safetensors").config == CONFIG


def test_scalings_of_a_checkpoint_may_be_arrays(tmp_path: Path) -> None:
    scales = [{"mean": np.zeros(n, np.float32), "std": np.ones(n, np.float32)} for n in (3, 2)]
    checkpoint = Checkpoint(synthetic.TINY, synthetic.state(synthetic.TINY), *scales)
    for name in ("model.safetensors", "run"):
        lewm.save(checkpoint, tmp_path / name)
        assert read_checkpoint(tmp_path / name).action_scaling == {"mean": [0.0, 0.0], "std": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "expected an object"),
        ('{"format_version": "9"}', "this lewm reads '1', got '9'"),
        ('{"format_version": "1", "frame_skip": 0}', "frame_skip: expected a positive integer"),
        ('{"format_version": "1", "frame_skip": 3}', "frame_skip: expected a divisor of the action block's"),
        ('{"format_version": "1", "frame_skip": 5}', "preprocessing: expected mean and std"),
        (
            '{"format_version":"1","frame_skip":5,"preprocessing":{"mean":[0,0,0],"std":[1,1,1]},'
            '"action_scaling":{"mean":[0],"std":[1]}}',
            "action_scaling.mean: expected 2 numbers, got 1",
        ),
    ],
)
def test_folders_with_a_bad_file_of_our_own(folder: Path, text: str, message: str) -> None:
    (folder / "lewm.json").write_text(text)
    with pytest.raises(lewm.Error, match=message):
        lewm.load(folder)


def test_what_cannot_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = synthetic.state(CONFIG)
    with pytest.raises(ValueError, match="config: a state dict needs its LeWMConfig"):
        lewm.save(state, tmp_path / "a")
    with pytest.raises(TypeError, match="expected a model or a state dict, got int"):
        lewm.save(3, tmp_path / "a")
    with pytest.raises(TypeError, match="expected a numpy array or a torch tensor, got list"):
        lewm.save({**state, "encoder.layernorm.bias": [1.0]}, tmp_path / "a", config=CONFIG)
    with pytest.raises(ValueError, match="expected both or neither"):
        lewm.save(state, tmp_path / "a", config=CONFIG, action_mean=[0, 0])
    with pytest.raises(ValueError, match="std: expected positive"):
        lewm.save(state, tmp_path / "a", config=CONFIG, action_mean=[0, 0], action_std=[1, 0])
    with pytest.raises(
        ValueError, match=r"expected a folder or a name that ends in \.safetensors, got 'a\.pt'"
    ):
        lewm.save(state, tmp_path / "a.pt", config=CONFIG)
    with pytest.raises(lewm.Error, match="expected"):
        lewm.save(state, tmp_path / "a", config=synthetic.small())
    with pytest.raises(TypeError, match="model_or_state: expected names of tensors, got 3"):
        lewm.save({**state, 3: np.zeros(1)}, tmp_path / "a", config=CONFIG)
    with pytest.raises(ValueError, match="provenance: expected text that UTF-8 holds"):
        lewm.save(state, tmp_path / "a.safetensors", config=CONFIG, provenance="\ud800")
    with pytest.raises(TypeError, match="provenance: expected text, got int"):
        lewm.save(state, tmp_path / "a.safetensors", config=CONFIG, provenance=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"config: expected a lewm\.LeWMConfig, got dict"):
        lewm.save(state, tmp_path / "a", config=CONFIG.__dict__)  # type: ignore[arg-type]
    with pytest.raises(lewm.Error, match="running_var: expected variances"):
        lewm.save(
            {**state, "projector.net.1.running_var": -state["projector.net.1.running_var"]},
            tmp_path / "a",
            config=CONFIG,
        )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"path: expected a folder or a name that ends .*got ''"):
        lewm.save(state, "", config=CONFIG)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 1e300), (0.0, 1e-320), (0.0, 1e-46), (0.0, 1e-40), (1e300, 1.0)]
)
def test_scalings_that_float32_does_not_hold_are_not_saved(tmp_path: Path, mean: float, std: float) -> None:
    state = synthetic.state(CONFIG)
    with pytest.raises(ValueError, match=r"action_scaling\.(mean|std): expected .* of float32"):
        lewm.save(state, tmp_path / "a", config=CONFIG, action_mean=[0, mean], action_std=[1, std])
    with pytest.raises(ValueError, match=r"preprocessing\.(mean|std): expected .* of float32"):
        lewm.save(state, tmp_path / "a", config=CONFIG, preprocessing={"mean": [mean] * 3, "std": [std] * 3})
    assert not list(tmp_path.iterdir())


def test_models_and_modules_are_saved_with_what_they_know(tmp_path: Path) -> None:
    state = synthetic.state(CONFIG)
    preprocessing = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    lewm.save(
        state,
        tmp_path / "a.safetensors",
        config=CONFIG,
        preprocessing=preprocessing,
        provenance="x",
        **SCALING,
    )
    model = lewm.load(tmp_path / "a.safetensors", precision="fp32")
    lewm.save(model, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert model.preprocessing == preprocessing
    in_memory = lewm.Model.from_checkpoint(Checkpoint(CONFIG, state), "fp32")
    lewm.save(in_memory, tmp_path / "c")
    np.testing.assert_array_equal(
        read_checkpoint(tmp_path / "c").state["encoder.layernorm.bias"], state["encoder.layernorm.bias"]
    )


def test_the_torch_module_goes_both_ways(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = lewm.LeWM(CONFIG, action_scaling={"mean": [0.0, 1.0], "std": [1.0, 2.0]})
    assert {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()} == expected_shapes(
        CONFIG
    )
    lewm.save(module, tmp_path / "run")
    assert read_checkpoint(tmp_path / "run").action_scaling == {"mean": [0.0, 1.0], "std": [1.0, 2.0]}
    again = lewm.LeWM.from_checkpoint(tmp_path / "run")
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)
    loaded = torch.load(tmp_path / "run" / "weights.pt", weights_only=True)
    module.load_state_dict(loaded)
    lewm.save(module.bfloat16(), tmp_path / "bf16")
    read_checkpoint(tmp_path / "bf16")
