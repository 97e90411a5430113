"""Names and shapes of a world model's tensors: the naming that is written, and the others that are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lewm.config import LeWMConfig
from lewm.errors import Error

__all__ = ["check_tensors", "expected_shapes", "from_any_naming", "to_transformers5"]

# Encoder layers before transformers 5 ("encoder.encoder.layer.N.") -> since ("encoder.layers.N.").
_LAYER_NAMES = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "layernorm_before",
    "layernorm_after": "layernorm_after",
}
_LAYER_NAMES_BACK = {new: old for old, new in _LAYER_NAMES.items()}
_OLD_LAYER = re.compile(r"encoder\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")
_NEW_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")

# Tensors that some encoders carry and inference has no use for.
_IGNORED = ("encoder.embeddings.mask_token", "encoder.pooler.dense.weight", "encoder.pooler.dense.bias")


def from_any_naming(
    tensors: Mapping[str, NDArray[Any]], *, deployment: bool = False
) -> dict[str, NDArray[Any]]:
    """The tensors under the names that lewm writes (the encoder's of before transformers 5).

    Drops the prefix that ``torch.compile`` leaves in names, and tensors without use in inference; neither belongs into
    a ``deployment`` file, where the core refuses them.

    Raises:
        lewm.Error: two names mean the same tensor.
    """
    result: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        plain = name if deployment else name.replace("_orig_mod.", "")
        if plain in _IGNORED and not deployment:
            continue
        match = _NEW_LAYER.fullmatch(plain)
        if match and match[2] in _LAYER_NAMES_BACK:
            plain = f"encoder.encoder.layer.{match[1]}.{_LAYER_NAMES_BACK[match[2]]}.{match[3]}"
        if plain in result:
            raise Error(f"{name}: the checkpoint holds {plain} under two names")
        result[plain] = tensor
    return result


def to_transformers5(name: str) -> str:
    """The name of a tensor in checkpoints of transformers 5 and later."""
    match = _OLD_LAYER.fullmatch(name)
    return f"encoder.layers.{match[1]}.{_LAYER_NAMES[match[2]]}.{match[3]}" if match else name


def expected_shapes(config: LeWMConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a model of these sizes, in the order of its state dict."""
    shapes = _encoder_shapes(config)
    shapes |= _predictor_shapes(config)
    shapes |= _action_encoder_shapes(config)
    width, norm = config.latent_dim, config.projector_norm
    shapes |= _mlp_shapes("projector", config.encoder_dim, config.projector_dim, width, norm)
    shapes |= _mlp_shapes("pred_proj", config.predictor_output_dim, config.pred_proj_dim, width, norm)
    return shapes


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _encoder_shapes(config: LeWMConfig) -> dict[str, tuple[int, ...]]:
    d, mlp, patch = config.encoder_dim, config.encoder_mlp_dim, config.patch_size
    embeddings = "encoder.embeddings"
    shapes: dict[str, tuple[int, ...]] = {
        f"{embeddings}.cls_token": (1, 1, d),
        f"{embeddings}.position_embeddings": (1, config.tokens, d),
        f"{embeddings}.patch_embeddings.projection.weight": (d, 3, patch, patch),
        f"{embeddings}.patch_embeddings.projection.bias": (d,),
    }
    for layer in range(config.encoder_depth):
        prefix = f"encoder.encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{prefix}.attention.attention.{part}", d, d)
        shapes |= _linear(f"{prefix}.attention.output.dense", d, d)
        shapes |= _linear(f"{prefix}.intermediate.dense", mlp, d)
        shapes |= _linear(f"{prefix}.output.dense", d, mlp)
        shapes |= _norm(f"{prefix}.layernorm_before", d)
        shapes |= _norm(f"{prefix}.layernorm_after", d)
    return shapes | _norm("encoder.layernorm", d)


def _predictor_shapes(config: LeWMConfig) -> dict[str, tuple[int, ...]]:
    inputs, d, outputs = config.latent_dim, config.predictor_dim, config.predictor_output_dim
    heads = config.predictor_heads * config.predictor_head_dim
    shapes: dict[str, tuple[int, ...]] = {"predictor.pos_embedding": (1, config.history, inputs)}
    shapes |= _norm("predictor.transformer.norm", d)
    for layer in range(config.predictor_depth):
        prefix = f"predictor.transformer.layers.{layer}"
        shapes |= _norm(f"{prefix}.attn.norm", d)
        shapes[f"{prefix}.attn.to_qkv.weight"] = (3 * heads, d)
        if not (config.predictor_heads == 1 and config.predictor_head_dim == d):
            shapes |= _linear(f"{prefix}.attn.to_out.0", d, heads)
        shapes |= _norm(f"{prefix}.mlp.net.0", d)
        shapes |= _linear(f"{prefix}.mlp.net.1", config.predictor_mlp_dim, d)
        shapes |= _linear(f"{prefix}.mlp.net.4", d, config.predictor_mlp_dim)
        shapes |= _linear(f"{prefix}.adaLN_modulation.1", 6 * d, d)
    if inputs != d:
        shapes |= _linear("predictor.transformer.input_proj", d, inputs)
        shapes |= _linear("predictor.transformer.cond_proj", d, inputs)
    if outputs != d:
        shapes |= _linear("predictor.transformer.output_proj", outputs, d)
    return shapes


def _action_encoder_shapes(config: LeWMConfig) -> dict[str, tuple[int, ...]]:
    smoothed, d = config.action_smoothed_dim, config.latent_dim
    shapes: dict[str, tuple[int, ...]] = {
        "action_encoder.patch_embed.weight": (smoothed, config.block_dim, 1),
        "action_encoder.patch_embed.bias": (smoothed,),
    }
    shapes |= _linear("action_encoder.embed.0", config.action_mlp_scale * d, smoothed)
    return shapes | _linear("action_encoder.embed.2", d, config.action_mlp_scale * d)


def _mlp_shapes(name: str, inputs: int, hidden: int, outputs: int, norm: str) -> dict[str, tuple[int, ...]]:
    if not hidden:
        return {}
    shapes = _linear(f"{name}.net.0", hidden, inputs)
    if norm != "none":
        shapes |= _norm(f"{name}.net.1", hidden)
    if norm == "batch":
        shapes |= {f"{name}.net.1.running_mean": (hidden,), f"{name}.net.1.running_var": (hidden,)}
        shapes[f"{name}.net.1.num_batches_tracked"] = ()
    return shapes | _linear(f"{name}.net.3", outputs, hidden)


def check_tensors(
    tensors: Mapping[str, NDArray[Any]], config: LeWMConfig, source: str
) -> dict[str, NDArray[Any]]:
    """The tensors that a model of these sizes has, contiguous, in the order of its state dict.

    Floating-point tensors come as float32. ``num_batches_tracked`` has no use in inference: where it is absent, or no
    single integer, it comes as 0.

    Raises:
        lewm.Error: a tensor is missing, has another shape, is not finite, is a negative variance, or belongs to no
            such model.
    """
    result: dict[str, NDArray[Any]] = {}
    for field in ("encoder_depth", "predictor_depth"):
        if getattr(config, field) > len(tensors):
            raise Error(f"{source}: {field} is {getattr(config, field)}, the file has {len(tensors)} tensors")
    shapes = expected_shapes(config)
    for name, shape in shapes.items():
        tensor = tensors.get(name)
        if name.endswith(".num_batches_tracked") and not _is_count(tensor):
            tensor = np.zeros(shape, np.int64)
        if tensor is None:
            raise Error(f"{source}: {name}: expected {shape}, got no such tensor")
        if tensor.shape != shape:
            raise Error(f"{source}: {name}: expected {shape}, got {tensor.shape}")
        result[name] = _as_float32(tensor, name, source)
    _refuse_extra(tensors, shapes, source)
    return result


def _is_count(tensor: NDArray[Any] | None) -> bool:
    return tensor is not None and tensor.shape == () and tensor.dtype.kind in "iu"


def _as_float32(tensor: NDArray[Any], name: str, source: str) -> NDArray[Any]:
    if name.endswith(".num_batches_tracked"):
        return np.asarray(tensor, np.int64)
    if tensor.dtype.kind != "f":
        raise Error(f"{source}: {name}: expected floating-point numbers, got {tensor.dtype}")
    with np.errstate(over="ignore"):
        array = np.asarray(tensor, np.float32, order="C")
    if not np.isfinite(array).all():
        raise Error(f"{source}: {name}: expected finite numbers, got NaN, infinity or a value beyond float32")
    if name.endswith(".running_var") and (array < 0).any():
        raise Error(f"{source}: {name}: expected variances of at least 0, got {array.min()}")
    return array


def _refuse_extra(names: Iterable[str], known: Mapping[str, Any], source: str) -> None:
    extra = sorted(set(names) - set(known))
    if extra:
        more = f" (and {len(extra) - 1} more)" if len(extra) > 1 else ""
        raise Error(f"{source}: {extra[0]}{more}: no tensor of a model of these sizes has this name")
