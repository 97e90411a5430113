"""The compiled core. Private: use lewm.load, lewm.Planner and lewm.Controller.

Arrays are C-contiguous and on the CPU; those named ``out`` are filled. Shapes: see csrc/python.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]
_Bytes = NDArray[np.uint8]

version: str

def isas_built() -> list[str]: ...
def isas_available() -> list[str]: ...
def cuda_module() -> tuple[int, str, str]: ...
def active_isa() -> str: ...
def precisions(isa: str) -> list[str]: ...
def layer_precision(precision: str, isa: str) -> str: ...
def precision_for_gpu(isa: str) -> str: ...
def auto_precision(isa: str) -> str: ...
def available_threads() -> int: ...
def normals(seed: int, plan: int, iteration: int, problem: int, out: _Floats) -> None: ...
def planner_options(
    method: str, options: Mapping[str, Any], block_dim: int, action_dim: int
) -> dict[str, Any]: ...
def resize(frame: _Bytes, out: _Bytes, fit: int) -> None: ...
def gemm_peak(precision: str, threads: int, isa: str = "") -> float: ...
def sigreg_value(
    z: Any,
    directions: Any | None,
    seed: int,
    num_proj: int,
    knots: int,
    t_max: float,
    gradient: Any | None,
    threads: int,
    isa: str = "",
) -> float: ...
def sigreg_sums(
    z: Any,
    directions: Any | None,
    seed: int,
    num_proj: int,
    knots: int,
    t_max: float,
    out: Any,
    threads: int,
    isa: str = "",
) -> None: ...
def sigreg_gradient(
    z: Any,
    directions: Any | None,
    seed: int,
    num_proj: int,
    knots: int,
    t_max: float,
    sums: Any,
    total: float,
    scale: float,
    out: Any,
    threads: int,
    isa: str = "",
) -> None: ...
def sigreg_directions(seed: int, out: Any) -> None: ...
def cuda_sigreg_workspace(sizes: tuple[int, int, int, int, int, int], t_max: float) -> int: ...
def cuda_sigreg_sums(
    sizes: tuple[int, int, int, int, int, int],
    t_max: float,
    z: int,
    directions: int,
    workspace: int,
    out: int,
    stream: int,
) -> None: ...
def cuda_sigreg_statistic(
    sizes: tuple[int, int, int, int, int, int], t_max: float, sums: int, total: float, out: int, stream: int
) -> None: ...
def cuda_sigreg_gradient(
    sizes: tuple[int, int, int, int, int, int],
    t_max: float,
    z: int,
    directions: int,
    workspace: int,
    sums: int,
    total: float,
    scale: float,
    out: int,
    stream: int,
) -> None: ...

class Model:
    @staticmethod
    def create(
        config: str,
        tensors: Mapping[str, NDArray[Any]],
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        action_mean: Sequence[float],
        action_std: Sequence[float],
        precision: str,
        threads: int,
        isa: str = "",
        device: int = -1,
        encoder_precision: str = "",
    ) -> Model: ...
    @staticmethod
    def open(
        path: bytes,
        precision: str,
        threads: int,
        isa: str = "",
        device: int = -1,
        encoder_precision: str = "",
    ) -> Model: ...
    # Arrays on the CPU, or with a GPU's model all of them in its memory, as DLPack capsules.
    def encode(self, frames: Any, out: Any, stream: int = 0) -> None: ...
    def encode_camera(self, frames: Any, out: Any, fit: int, stream: int = 0) -> None: ...
    def rollout(self, latents: Any, actions: Any, past: Any, out: Any, stream: int = 0) -> None: ...
    def cost(self, latents: Any, goal: Any, actions: Any, past: Any, out: Any, stream: int = 0) -> None: ...
    @property
    def config(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def encoder_precision(self) -> str: ...
    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def encode_flops(self) -> int: ...
    def rollout_flops(self, horizon: int, context: int) -> int: ...
    @property
    def weight_bytes(self) -> int: ...
    @property
    def pixel_scaling(self) -> tuple[list[float], list[float]]: ...
    @property
    def action_scaling(self) -> tuple[list[float], list[float]]: ...

# Arrays on the CPU, or with a GPU's model in its memory, as DLPack capsules.
class Request:
    def __init__(
        self, past: Any, warm_start: Any, problem_ids: Any, plan_index: int, deadline: float
    ) -> None: ...

class Result:
    def __init__(self, actions: Any, cost: Any, elite_cost: Any, std: Any, elites: Any) -> None: ...

class Planner:
    @staticmethod
    def create(
        model: Model,
        method: str,
        options: Mapping[str, Any],
        cost: Callable[[_Floats, _Floats, _Floats], _Floats] | None,
        threads: int,
    ) -> Planner: ...
    def plan_latents(
        self, latents: Any, goal: Any, request: Request, out: Result, stream: int = 0
    ) -> tuple[int, float]: ...
    def plan_frames(
        self, frame: Any, goal: Any, request: Request, out: Result, stream: int = 0
    ) -> tuple[int, float]: ...
    def evaluate(
        self, latents: Any, goal: Any, actions: Any, request: Request, out: Any, stream: int = 0
    ) -> None: ...
    @property
    def options(self) -> dict[str, Any]: ...
    @property
    def threads(self) -> int: ...

class Controller:
    @staticmethod
    def create(
        planner: Planner,
        replan_every: int,
        context: int,
        warm_start: bool,
        deadline: float,
        low: Sequence[float],
        high: Sequence[float],
    ) -> Controller: ...
    def reset(self) -> None: ...
    def set_goal(self, goal: _Bytes) -> None: ...
    def set_goal_latent(self, goal: _Floats) -> None: ...
    def act(self, frame: _Bytes | None, out: _Floats, spent: float = ...) -> None: ...
    def current(self, out: _Floats) -> tuple[float, int, float] | None: ...
    @property
    def needs_frame(self) -> bool: ...
    @property
    def needs_plan(self) -> bool: ...
    @property
    def plans(self) -> int: ...
