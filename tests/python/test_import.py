"""Importing lewm is light, and everything but training works with numpy alone."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import lewm
import synthetic

CONFIG = synthetic.small(encoder_depth=1, predictor_depth=1)
_BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""
_HEAVY = (
    "torch",
    "h5py",
    "hdf5plugin",
    "gymnasium",
    "mujoco",
    "pymunk",
    "matplotlib",
    "imageio",
    "PIL",
    "safetensors",
)


def run(code: str, *arguments: str, blocked: tuple[str, ...] = ()) -> str:
    """What a new interpreter prints, in which some packages are not installed."""
    script = _BLOCK.format(blocked=blocked) + code
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_but_numpy_at_most() -> None:
    loaded = run("import lewm; print(*sys.modules)").split()
    ours = {name for name in loaded if name.startswith("lewm")}
    assert ours == {"lewm", "lewm._version"}
    assert not set(_HEAVY) & set(loaded)


def test_all_public_names_are_there() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("h5py")
    for name in lewm.__all__:
        assert getattr(lewm, name) is not None
    assert set(lewm.__all__) <= set(dir(lewm))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lewm.nothing


def test_torch_names_say_what_to_install() -> None:
    code = """
import lewm
for name in ("LeWM", "SIGReg", "sigreg", "train", "TrajectoryDataset"):
    try:
        getattr(lewm, name)
    except ImportError as error:
        print(error)
"""
    lines = run(code, blocked=("torch",)).splitlines()
    assert len(lines) == 5 and all("needs torch: pip install 'lewm[train]'" in line for line in lines)


def test_planning_needs_numpy_alone(tmp_path: Path) -> None:
    lewm.save(synthetic.state(CONFIG), tmp_path / "run", config=CONFIG)
    code = """
import lewm, numpy as np
folder = sys.argv[1]
lewm.convert(folder, folder + "/../model.safetensors")
for path in (folder, folder + "/../model.safetensors"):
    model = lewm.load(path)
    frame, goal = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 200, np.uint8)
    assert model.encode(frame[None]).shape == (1, 128)
    planner = lewm.Planner(model, samples=20, elites=4, iterations=2)
    assert planner.plan(frame, goal).actions.shape == (5, 10)
    assert lewm.Controller(planner).act(frame, goal).shape == (2,)
    lewm.save(model, folder + "/../copy")
print(lewm.build_info()["version"])
"""
    assert run(code, str(tmp_path / "run"), blocked=_HEAVY).strip() == lewm.__version__


@pytest.mark.parametrize("work", ["model.encode(frame[None])", "planner.plan(frame, frame)"])
def test_a_thread_that_computes_at_the_end_does_not_spoil_it(tmp_path: Path, work: str) -> None:
    lewm.save(synthetic.state(CONFIG), tmp_path / "model.safetensors", config=CONFIG)
    code = f"""
import lewm, numpy as np, threading
model = lewm.load(sys.argv[1])
planner = lewm.Planner(model, samples=20, elites=4, cost=lambda latents, *_: latents[:, -1, 0])
frame, computed = np.zeros((64, 64, 3), np.uint8), threading.Semaphore(0)
def loop():
    while True:
        {work}
        computed.release()
threading.Thread(target=loop, daemon=True).start()
for _ in range(20):
    computed.acquire()
print("done")
"""
    assert run(code, str(tmp_path / "model.safetensors")).strip() == "done"


def test_build_info_is_consistent() -> None:
    info = lewm.build_info()
    assert info["version"] == lewm.__version__
    assert set(info["isas_available"]) <= set(info["isas_built"]) and "scalar" in info["isas_available"]
    assert info["isa"] in info["isas_available"] and info["precision"] in info["precisions"]
    assert list(info["multiplied_in"]) == info["precisions"]
    assert info["threads"] >= 1


def test_the_instruction_set_can_be_forced() -> None:
    code = "import os; os.environ['LEWM_ISA'] = sys.argv[1]; import lewm; print(lewm.build_info()['isa'])"
    assert run(code, "scalar").strip() == "scalar"
    code = """
import os
os.environ["LEWM_ISA"] = "sse"
import lewm
try:
    lewm.build_info()
except ValueError as error:
    print(error)
"""
    assert "sse" in run(code) and "scalar" in run(code)


def test_a_type_checker_sees_every_public_name() -> None:
    """And no others: `__getattr__`, which would give any name the type Any, is hidden from it."""
    tree = ast.parse(Path(lewm.__file__).read_text(encoding="utf-8"))
    shown = {
        (alias.asname, node.module)
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {name for name, _ in shown} == set(lewm.__all__) - {"__version__"}
    assert "__getattr__" not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    pytest.importorskip("torch")
    for name, module in shown:
        assert getattr(importlib.import_module(module), name) is getattr(lewm, name)
