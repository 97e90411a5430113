"""What this installation and machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lewm._version import __version__
from lewm.errors import Error

__all__ = ["build_info", "choose_device", "choose_precision", "choose_weights", "cmake_dir", "get_include"]

PRECISIONS = ("fp32", "bf16", "int8")


def build_info() -> dict[str, Any]:
    """Facts about the compiled core and this machine, as ``lewm doctor`` prints them.

    Returns a dict: ``version``; ``isas_built``, ``isas_available`` (lists of instruction-set names), ``isa`` (the one
    in use); ``threads`` (cores available to this process); ``precisions`` (of the instruction set in use) and
    ``multiplied_in`` (a dict: what most layers of a model of each are multiplied in, "fp32", "bf16", "int8", "int16"
    or "int24"); ``precision`` (what ``precision="auto"`` means here) and ``precision_reason``; ``cuda`` (whether
    ``device="cuda"`` works), ``cuda_reason`` (why not, and what to do) and ``cuda_module`` (where the CUDA module is or
    was looked for).
    """
    from lewm import _core

    precision, reason = choose_precision("auto")
    precisions = _core.precisions(_core.active_isa())
    gpus, cuda_reason, cuda_module = _core.cuda_module()
    return {
        "version": __version__,
        "isas_built": _core.isas_built(),
        "isas_available": _core.isas_available(),
        "isa": _core.active_isa(),
        "threads": _core.available_threads(),
        "precisions": precisions,
        "multiplied_in": {name: _core.layer_precision(name, _core.active_isa()) for name in precisions},
        "precision": precision,
        "precision_reason": reason,
        "cuda": gpus > 0,
        "cuda_reason": cuda_reason,
        "cuda_module": cuda_module,
    }


def choose_precision(precision: str, isa: str = "") -> tuple[str, str]:
    """The precision that a request means for an instruction set ("": the active one), and why.

    "auto" is the core's choice, in C too: bf16 where the CPU has bf16 dot products faster than fp32 ones; int8 with
    AVX-512 VNNI otherwise, and with AVX2, which computes it in 16-bit integers if it lacks AVX-VNNI; else fp32.

    Raises:
        ValueError: no such precision.
    """
    from lewm import _core

    if precision in PRECISIONS:
        return precision, "requested"
    if precision != "auto":
        raise ValueError(f"precision: expected auto, {', '.join(PRECISIONS)}, got {precision!r}")
    isa = isa or _core.active_isa()
    chosen = _core.auto_precision(isa)
    if chosen == "bf16":
        return (
            chosen,
            f"{isa} has fast bf16 dot products here, and bf16 keeps latents within cosine 0.999 of fp32",
        )
    if chosen == "int8":
        bits = "10 to 12" if _core.layer_precision("int8", isa) == "int16" else "8"
        reason = f"{bits} bits here, faster than fp32 and bf16, and latents stay within cosine 0.999 of fp32"
        return chosen, f"{isa} computes int8 with {reason}"
    return chosen, f"{isa} has no fast dot products of fewer bits here"


def choose_device(device: str) -> int:
    """The GPU that "cuda" (the first) or "cuda:N" means; -1 for "cpu".

    Raises:
        ValueError: an unknown device. TypeError: no str.
        lewm.Error: one that this installation or machine cannot use, and what to do.
    """
    from lewm import _core

    if device == "cpu":
        return -1
    if not isinstance(device, str):
        raise TypeError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    kind, colon, index = device.partition(":")
    if kind != "cuda" or (colon and not index.isdecimal()):
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    gpus, reason, _ = _core.cuda_module()
    if gpus == 0:
        raise Error(f"device: {device!r} is not available: {reason}")
    number = int(index or 0)
    if number >= gpus:
        raise Error(f"device: expected a GPU of 0..{gpus - 1}, got {device!r}")
    return number


def choose_weights(precision: str, isa: str, device: int) -> tuple[str, str]:
    """The precision that a model computes with, and the one that its weights are packed in for the CPU.

    A GPU computes in bf16; its weights are read from those that the CPU holds.

    Raises:
        ValueError: no such precision, or not on this device.
    """
    from lewm import _core

    if device < 0:
        chosen, _ = choose_precision(precision, isa)
        return chosen, chosen
    if precision not in ("auto", "bf16"):
        raise ValueError(f"precision: expected auto or bf16 with device='cuda', got {precision!r}")
    return "bf16", _core.precision_for_gpu(isa)


def choose_encoder(encoder_precision: str, device: int) -> str:
    """The precision that an encoder's weights are packed in; "": the same as the rest of the model.

    Raises:
        ValueError: no such precision, or not on this device.
    """
    if device >= 0:
        if encoder_precision not in ("auto", "bf16"):
            raise ValueError(
                f"encoder_precision: expected auto or bf16 with device='cuda', got {encoder_precision!r}"
            )
        return ""
    if encoder_precision == "auto":
        return "fp32"
    if encoder_precision not in PRECISIONS:
        raise ValueError(
            f"encoder_precision: expected auto, {', '.join(PRECISIONS)}, got {encoder_precision!r}"
        )
    return encoder_precision


def get_include() -> str:
    """The folder to put on a C or C++ compiler's include path for ``<lewm/lewm.h>`` and ``<lewm/lewm.hpp>``.

    Raises:
        lewm.Error: this installation has no headers (lewm was imported from its source tree).
    """
    return str(_installed("include", "lewm/lewm.h"))


def cmake_dir() -> str:
    """The folder of ``lewmConfig.cmake``, for ``cmake -Dlewm_DIR=...``.

    Raises:
        lewm.Error: this installation has no CMake package (lewm was imported from its source tree).
    """
    return str(_installed("lib/cmake/lewm", "lewmConfig.cmake"))


def _installed(folder: str, file: str) -> Path:
    """A folder inside the installed package that holds ``file``."""
    root = Path(__file__).resolve().parent
    for candidate in (root / folder, root / folder.replace("lib/", "lib64/")):
        if (candidate / file).is_file():
            return candidate
    raise Error(f"{file} is not in {root}: install lewm (pip install .) instead of importing its source tree")
