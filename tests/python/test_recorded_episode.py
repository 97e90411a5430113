"""A recorded episode through lewm.Controller and through the C++ header: the same bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import lewm
import synthetic

CONFIG = synthetic.small(encoder_depth=2, predictor_depth=2)
STEPS = 30
REPLAY = Path(__file__).parent.parent / "consumer" / "replay.cpp"


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/consumer/replay.cpp against the installed library, or the one under $LEWM_PREFIX."""
    prefix = os.environ.get("LEWM_PREFIX")
    try:
        include = Path(prefix, "include") if prefix else Path(lewm.get_include())
    except lewm.Error as error:
        pytest.skip(f"{error}, or set LEWM_PREFIX")
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    libraries = next(path.parent for path in include.parent.glob("lib*/**/liblewm.so"))
    program = tmp_path_factory.mktemp("replay") / "replay"
    command = [compiler, "-std=c++17", str(REPLAY), f"-I{include}", f"-L{libraries}", "-llewm"]
    subprocess.run([*command, f"-Wl,-rpath,{libraries}", "-o", str(program)], check=True)
    return program


@pytest.mark.parametrize(
    ("isa", "precision"), [("", "auto"), ("", "bf16"), ("", "int8"), ("scalar", "auto"), ("scalar", "int8")]
)
def test_python_and_cpp_give_the_same_actions(replay: Path, tmp_path: Path, isa: str, precision: str) -> None:
    """Every option beside those set here has one default in both."""
    path = tmp_path / "model.safetensors"
    lewm.save(synthetic.state(CONFIG), path, config=CONFIG, action_mean=[0.1, -0.2], action_std=[0.7, 1.3])
    goal, *frames = episode = synthetic.frames(5, 1 + STEPS, CONFIG.image_size)
    episode.tofile(tmp_path / "episode")

    model = lewm.load(path, precision=precision, isa=isa)
    planner = lewm.Planner(model, method="icem", samples=24, elites=4, iterations=3, horizon=4, seed=7)
    controller = lewm.Controller(planner, replan_every=2, context=2)
    controller.set_goal(goal)
    python = np.stack([controller.act(frame) for frame in frames])

    environment = {**os.environ, "LEWM_ISA": isa} if isa else dict(os.environ)
    actions = tmp_path / "actions"
    command = [replay, path, tmp_path / "episode", actions, precision]
    subprocess.run(command, check=True, timeout=300, env=environment)
    assert python.shape == (STEPS, CONFIG.action_dim) and np.unique(python[:, 0]).size > STEPS // 2
    assert actions.read_bytes() == python.tobytes()
