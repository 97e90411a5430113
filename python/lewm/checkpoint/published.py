"""``config.json`` of a published checkpoint folder: Hydra nodes, read as data and never instantiated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from lewm.checkpoint.sizes import sizes_of_tensors
from lewm.config import LeWMConfig
from lewm.errors import Error

__all__ = ["config_from_nodes", "nodes_from_config"]

# Encoder sizes by name: (width, layers, heads); the MLP is 4 times as wide.
_ENCODER_SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
_ENCODER_FIELDS = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "hidden_size": "encoder_dim",
    "num_hidden_layers": "encoder_depth",
    "num_attention_heads": "encoder_heads",
    "intermediate_size": "encoder_mlp_dim",
}
_PREDICTOR_FIELDS = {
    "num_frames": "history",
    "depth": "predictor_depth",
    "heads": "predictor_heads",
    "dim_head": "predictor_head_dim",
    "mlp_dim": "predictor_mlp_dim",
    "input_dim": "latent_dim",
    "hidden_dim": "predictor_dim",
    "output_dim": "predictor_output_dim",
}
_ACTION_FIELDS = {
    "input_dim": "block_dim",
    "emb_dim": "latent_dim",
    "smoothed_dim": "action_smoothed_dim",
    "mlp_scale": "action_mlp_scale",
}
_PROJECTOR_FIELDS = {"input_dim": "encoder_dim", "hidden_dim": "projector_dim", "output_dim": "latent_dim"}
_PRED_PROJ_FIELDS = {
    "input_dim": "predictor_output_dim",
    "hidden_dim": "pred_proj_dim",
    "output_dim": "latent_dim",
}
# What the core computes; a node that asks for anything else describes another model.
_ENCODER_FIXED = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True, "num_channels": 3}
_NORMS = {"BatchNorm1d": "batch", "LayerNorm": "layer", "Identity": "none"}
_MODELS = ("LeWM", "JEPA")
_DEFAULT_FRAME_SKIP = 5

Sizes = dict[str, Any]


def config_from_nodes(
    nodes: Any,
    tensors: Mapping[str, NDArray[Any]],
    frame_skip: int | None = None,
    source: str = "config.json",
) -> LeWMConfig:
    """The sizes of a published checkpoint, from its ``config.json`` and its tensors (in the naming lewm writes).

    Args:
        nodes: the JSON object of ``config.json``.
        tensors: the state dict; it decides what the nodes leave open, and must agree with what they say.
        frame_skip: environment steps in an action block, which the folder does not record; by default 5 where the
            block's width is divisible by 5, else 1.

    Raises:
        lewm.Error: a node contradicts another or the tensors (the message names the field and both values), or asks
            for a model that is not LeWM.
        ValueError: ``frame_skip`` does not divide the width of an action block.
    """
    if not isinstance(nodes, dict):
        raise Error(f"{source}: expected an object, got {type(nodes).__name__}")
    _check_target(nodes, "model", _MODELS, source)
    stated = _stated_sizes(nodes, source)
    sizes = sizes_of_tensors(tensors, source)
    for field, (value, where) in stated.items():
        if field in sizes and sizes[field] != value:
            raise Error(f"{source}: {where}: {field} is {value!r}, the tensors say {sizes[field]!r}")
        sizes[field] = value
    return _config_from_sizes(sizes, frame_skip, source)


def _config_from_sizes(sizes: Sizes, frame_skip: int | None, source: str) -> LeWMConfig:
    sizes |= _predictor_heads(sizes.pop("predictor_heads_width"), sizes, source)
    if "encoder_heads" not in sizes:
        raise Error(
            f"{source}: encoder: neither size nor num_attention_heads is given, and no tensor tells it"
        )
    block_dim = sizes.pop("block_dim")
    sizes["frame_skip"] = _frame_skip(block_dim, frame_skip)
    sizes["action_dim"] = block_dim // sizes["frame_skip"]
    try:
        return LeWMConfig(**sizes)
    except (ValueError, TypeError) as error:
        raise Error(f"{source}: {error}") from None


def _predictor_heads(width: int, sizes: Sizes, source: str) -> Sizes:
    """The number and the width of the predictor's heads, which together are ``width`` wide."""
    heads, head_dim = sizes.get("predictor_heads"), sizes.get("predictor_head_dim")
    if head_dim is None:
        head_dim = width // heads if heads else 64  # the published predictor's default
    if heads is None:
        heads = width // head_dim if head_dim else 0
    if heads * head_dim != width:
        raise Error(
            f"{source}: predictor: heads x dim_head is {heads} x {head_dim}, the tensors say {width} in all"
        )
    return {"predictor_heads": heads, "predictor_head_dim": head_dim}


def _frame_skip(block_dim: int, frame_skip: int | None) -> int:
    if frame_skip is None:
        return 1 if block_dim % _DEFAULT_FRAME_SKIP else _DEFAULT_FRAME_SKIP
    if frame_skip < 1 or block_dim % frame_skip:
        raise ValueError(
            f"frame_skip: expected a divisor of the action block's width {block_dim}, got {frame_skip}"
        )
    return frame_skip


def _stated_sizes(nodes: dict[str, Any], source: str) -> dict[str, tuple[Any, str]]:
    """Field -> (value, where it is said) of everything that the nodes say."""
    stated: dict[str, tuple[Any, str]] = {}

    def say(field: str, value: Any, where: str) -> None:
        if type(value) is not int and field != "projector_norm":
            raise Error(f"{source}: {where}: expected an integer, got {value!r}")
        known, other = stated.setdefault(field, (value, where))
        if known != value:
            raise Error(f"{source}: {where}: {field} is {value!r}, but {other} says {known!r}")

    encoder = _node(nodes, "encoder", ("vit_hf", "ViTModel"), source)
    for key, value in _encoder_sizes(encoder, source).items():
        say(_ENCODER_FIELDS[key], value, f"encoder.{key}")
    for name, targets, fields in (
        ("predictor", ("Predictor", "ARPredictor"), _PREDICTOR_FIELDS),
        ("action_encoder", ("Embedder",), _ACTION_FIELDS),
        ("projector", ("MLP",), _PROJECTOR_FIELDS),
        ("pred_proj", ("MLP",), _PRED_PROJ_FIELDS),
    ):
        node = _node(nodes, name, targets, source)
        for key, field in fields.items():
            if node.get(key) is not None:
                say(field, node[key], f"{name}.{key}")
        if "norm_fn" in node:
            say("projector_norm", _norm(node["norm_fn"], name, source), f"{name}.norm_fn")
        if "act_fn" in node and _class_name(node["act_fn"]) != "GELU":
            raise Error(f"{source}: {name}.act_fn: expected GELU, got {node['act_fn']!r}")
    return stated


def _encoder_sizes(node: dict[str, Any], source: str) -> dict[str, Any]:
    """What an encoder node says, its size's name spelled out; single keys override the size."""
    for key, value in _ENCODER_FIXED.items():
        if node.get(key, value) != value:
            raise Error(f"{source}: encoder.{key}: expected {value!r}, got {node[key]!r}")
    sizes: dict[str, Any] = {}
    if "size" in node:
        size = node["size"]
        if not isinstance(size, str) or size not in _ENCODER_SIZES:
            raise Error(f"{source}: encoder.size: expected one of {', '.join(_ENCODER_SIZES)}, got {size!r}")
        width, layers, heads = _ENCODER_SIZES[size]
        sizes = {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
        }
    return sizes | {key: node[key] for key in _ENCODER_FIELDS if key in node}


def _norm(node: Any, where: str, source: str) -> str:
    norm = "none" if node is None else _NORMS.get(_class_name(node))
    if norm is None:
        raise Error(f"{source}: {where}.norm_fn: expected one of {', '.join(_NORMS)}, got {node!r}")
    return norm


def _class_name(node: Any) -> str:
    """The last part of the class that a node, or a bare string, names."""
    target = node.get("_target_") if isinstance(node, dict) else node
    return str(target).rpartition(".")[2]


def _node(nodes: dict[str, Any], name: str, targets: tuple[str, ...], source: str) -> dict[str, Any]:
    node = nodes.get(name)
    if node is None:
        return {}
    if not isinstance(node, dict):
        raise Error(f"{source}: {name}: expected an object, got {type(node).__name__}")
    _check_target(node, name, targets, source)
    return node


def _check_target(node: dict[str, Any], name: str, known: tuple[str, ...], source: str) -> None:
    """Compares the class that a node names with those whose weights lewm reads; it is never imported."""
    if "_target_" in node and _class_name(node) not in known:
        raise Error(f"{source}: {name}._target_: expected {' or '.join(known)}, got {node['_target_']!r}")


def nodes_from_config(config: LeWMConfig) -> dict[str, Any]:
    """The ``config.json`` object that ``stable_worldmodel.wm.utils.load_pretrained`` instantiates."""
    nodes: dict[str, Any] = {
        "_target_": "stable_worldmodel.wm.lewm.LeWM",
        "encoder": _encoder_node(config),
        "predictor": {
            "_target_": "stable_worldmodel.wm.lewm.module.Predictor",
            **{key: getattr(config, field) for key, field in _PREDICTOR_FIELDS.items()},
            "dropout": 0.1,
            "emb_dropout": 0.0,
        },
        "action_encoder": {
            "_target_": "stable_worldmodel.wm.lewm.module.Embedder",
            **{key: getattr(config, field) for key, field in _ACTION_FIELDS.items()},
        },
    }
    if config.projector_dim:
        nodes["projector"] = _mlp_node(config, _PROJECTOR_FIELDS)
    if config.pred_proj_dim:
        nodes["pred_proj"] = _mlp_node(config, _PRED_PROJ_FIELDS)
    return nodes


def _encoder_node(config: LeWMConfig) -> dict[str, Any]:
    """The size whose width is the model's (else tiny), and every key in which the model differs from it."""
    size = next(
        (name for name, (width, _, _) in _ENCODER_SIZES.items() if width == config.encoder_dim), "tiny"
    )
    named = _encoder_sizes({"size": size}, "")
    sizes = {key: getattr(config, field) for key, field in _ENCODER_FIELDS.items()}
    return {
        "_target_": "stable_pretraining.backbone.utils.vit_hf",
        "size": size,
        **{key: value for key, value in sizes.items() if named.get(key) != value},
        "pretrained": False,
        "use_mask_token": False,
    }


def _mlp_node(config: LeWMConfig, fields: dict[str, str]) -> dict[str, Any]:
    classes = {"batch": "torch.nn.BatchNorm1d", "layer": "torch.nn.LayerNorm"}
    norm = classes.get(config.projector_norm)
    return {
        "_target_": "stable_worldmodel.wm.lewm.module.MLP",
        **{key: getattr(config, field) for key, field in fields.items()},
        "norm_fn": {"_target_": norm, "_partial_": True} if norm else None,
    }
