"""Reacher: dm_control's arm, states in and out, pictures of the right state, and policies that reach goals."""

import importlib.util
import math
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("mujoco")
pytest.importorskip("dm_control")

from gymnasium.utils.env_checker import check_env

from drawing import needs_opengl
from lewm.envs import mujoco_rendering
from lewm.envs.reacher import ReacherEnv
from lewm.envs.reacher_policies import fingertip, joint_angles
from lewm.errors import Error
from processes import environment


@pytest.fixture
def env() -> ReacherEnv:
    made = ReacherEnv(image_size=64)
    made.reset(seed=0)
    return made


@needs_opengl
def test_passes_gymnasiums_checker() -> None:
    check_env(ReacherEnv(image_size=64), skip_render_check=False)


def test_state_continues_exactly(env: ReacherEnv) -> None:
    rng = np.random.default_rng(0)
    env.set_state(np.array([0.3, 2.7, 1.0, 4.0]))  # runs into the wrist's limit
    for _ in range(3):
        env.step(env.sample_action(rng))
    other = ReacherEnv(image_size=64)
    other.reset(seed=1)
    other.set_state(env.get_state())
    np.testing.assert_array_equal(other.get_state(), env.get_state())
    for _ in range(30):
        action = env.sample_action(rng)
        np.testing.assert_array_equal(env.step(action)[0], other.step(action)[0])


def test_torque_turns_the_joints(env: ReacherEnv) -> None:
    env.set_state(np.zeros(4))
    for _ in range(5):
        state = env.step(np.array([1.0, 0.0]))[0]
    assert state[0] > 0.1 and state[2] > 0


def test_wrist_is_limited_and_shoulder_is_not(env: ReacherEnv) -> None:
    env.set_state(np.zeros(4))
    for _ in range(100):
        state = env.step(np.array([1.0, 1.0]))[0]
    assert abs(state[1]) < math.radians(165)
    assert state[0] > 2 * math.pi


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        ((0.0, 0.0), True),
        ((0.049, -0.049), True),
        ((0.051, 0.0), False),
        ((0.0, -0.051), False),
        ((2 * math.pi, 0.0), True),
    ],
)
def test_success_rule(env: ReacherEnv, difference: tuple[float, float], expected: bool) -> None:
    goal = np.array([1.0, -2.0, 0.0, 0.0])
    state = goal + np.array([*difference, 5.0, -5.0])
    assert bool(env.success(state, goal)) is expected
    assert env.success(np.tile(state, (4, 1)), goal).shape == (4,)


def test_kinematics_agree_with_the_simulator(env: ReacherEnv) -> None:
    mujoco = pytest.importorskip("mujoco")
    for angles in ([0.0, 0.0], [1.0, -2.0], [-2.5, 2.0]):
        env.set_state(np.array([*angles, 0.0, 0.0]))
        mujoco.mj_forward(env._model, env._data)
        np.testing.assert_allclose(env._data.geom("finger").xpos[:2], fingertip(np.array(angles)), atol=1e-9)


@pytest.mark.parametrize("elbow", [1, -1])
def test_inverse_kinematics_inverts(elbow: int) -> None:
    for position in ([0.1, 0.05], [-0.2, 0.02], [0.0, -0.15]):
        angles = joint_angles(np.array(position), elbow)
        np.testing.assert_allclose(fingertip(angles), position, atol=1e-9)
        assert angles[1] * elbow > 0
    far = fingertip(joint_angles(np.array([3.0, 4.0]), elbow))
    np.testing.assert_allclose(far, [0.144, 0.192], atol=1e-9)


@pytest.mark.parametrize("name", ["reach", "waypoints"])
def test_scripted_policies_reach_the_goal(env: ReacherEnv, name: str) -> None:
    policy = ReacherEnv.policies[name]()
    for seed in range(10):
        env.reset(seed=seed)
        policy.reset(env, np.random.default_rng(seed))
        assert any(env.step(policy.act(env))[2] for _ in range(env.max_episode_steps)), f"seed {seed}"


def test_published_columns_restore_states(env: ReacherEnv) -> None:
    columns = {"qpos": np.ones((3, 2)), "qvel": np.zeros((3, 2))}
    np.testing.assert_array_equal(env.states_from_columns(columns), [[1, 1, 0, 0]] * 3)
    with pytest.raises(KeyError, match="state"):
        env.states_from_columns({"qpos": np.ones((3, 2))})


def test_columns_match_the_schema(env: ReacherEnv) -> None:
    assert {name: value.shape for name, value in env.columns().items()} == {
        name: (width,) for name, width in ReacherEnv.state_columns.items()
    }


def test_unknown_quality_is_refused() -> None:
    with pytest.raises(ValueError, match="quality: expected 'auto', 'published' or 'fast', got 'best'"):
        ReacherEnv(64, quality="best")


def _arm_pixels(frame: np.ndarray) -> np.ndarray:
    """Where the frame shows the arm: more red than blue, as the table never is."""
    return frame[..., 0].astype(int) > frame[..., 2].astype(int) + 20


@needs_opengl
@pytest.mark.parametrize(("size", "quality"), [(64, "fast"), (96, "fast"), (128, "published"), (224, "auto")])
def test_picture_shows_the_arm_where_it_is(size: int, quality: str) -> None:
    env = ReacherEnv(size, quality=quality)
    for angles in ([0.0, 0.0], [2.0, 1.0], [-1.0, -2.0]):
        frame = env.render_state(np.array([*angles, 0.0, 0.0]))
        assert frame.shape == (size, size, 3) and frame.dtype == np.uint8
        # The camera hangs 0.75 m over the table and sees 45 degrees.
        scale = size / (2 * 0.74 * math.tan(math.radians(22.5)))
        for share in (0.3, 0.7):  # on the upper arm
            x, y = share * 0.12 * np.array([math.cos(angles[0]), math.sin(angles[0])]) * scale
            row, column = round(size / 2 - y - 0.5), round(size / 2 + x - 0.5)
            assert _arm_pixels(frame)[row - 1 : row + 2, column - 1 : column + 2].any()
        assert 0.002 < _arm_pixels(frame).mean() < 0.05


def _picture(size: int, angles: tuple[float, float]) -> np.ndarray:
    return ReacherEnv(size).render_state(np.array([*angles, 0.0, 0.0]))


@needs_opengl
def test_the_context_of_another_package_stays_current(env: ReacherEnv) -> None:
    if mujoco_rendering.gl_backend() != "egl":
        pytest.skip("drawn without EGL")
    from mujoco.egl import GLContext, egl_ext

    other = GLContext(64, 64)
    other.make_current()
    try:
        picture = env.render()
        assert egl_ext.eglGetCurrentContext().address == other._context.address
    finally:
        other.free()
    np.testing.assert_array_equal(env.render(), picture)  # with no context current


@needs_opengl
def test_renderers_of_one_process_do_not_mix_up_their_pictures() -> None:
    """Each draws what a process draws that has no other."""
    requests = [(64, (0.0, 0.0)), (224, (2.0, 1.0))]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        expected = pool.starmap(_picture, requests, chunksize=1)
    for request, picture in 3 * list(zip(requests, expected, strict=True)):
        np.testing.assert_array_equal(_picture(*request), picture)


@needs_opengl
def test_rendering_goals_leaves_the_state_alone(env: ReacherEnv) -> None:
    env.step(np.array([1.0, -1.0]))
    state, frame = env.get_state(), env.render()
    goal_frame = env.render_goal()
    np.testing.assert_array_equal(env.get_state(), state)
    np.testing.assert_array_equal(env.render(), frame)
    np.testing.assert_array_equal(env.render_state(env.goal), goal_frame)
    assert not np.array_equal(goal_frame, frame)


def _frame_sum(seed: int) -> int:
    env = ReacherEnv(64)
    env.reset(seed=seed)
    return int(env.render().sum())


@needs_opengl
def test_worker_processes_draw_the_same_pictures() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_frame_sum, [3, 4]) == [_frame_sum(3), _frame_sum(4)]


def _error_of_frame(answers) -> None:
    try:
        _frame_sum(0)
    except Error as error:
        answers.put(str(error))


@needs_opengl
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_worker_is_told_to_spawn() -> None:
    _frame_sum(0)
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    worker = fork.Process(target=_error_of_frame, args=(answers,))
    worker.start()
    assert "spawn" in answers.get(timeout=60)
    worker.join()


def test_a_backend_that_cannot_draw_is_an_error_with_a_way_out() -> None:
    code = (
        "import numpy as np; from lewm.envs.reacher import ReacherEnv\n"
        "try: ReacherEnv(64).render_state(np.zeros(4))\n"
        "except RuntimeError as error: print(error)"
    )
    nowhere = {"DISPLAY": ":no-such-display", "PYOPENGL_PLATFORM": "glx"}  # mujoco.egl refuses this platform
    for value in ("off", "glfw", "egl"):
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(MUJOCO_GL=value, **nowhere),
            capture_output=True,
            text=True,
            check=True,
        )
        assert "MUJOCO_GL" in result.stdout, result.stderr


def test_a_backend_that_mujoco_does_not_know_is_named(tmp_path: Path) -> None:
    words = ["-m", "lewm", "collect", "reacher", str(tmp_path / "a.h5"), "--episodes", "1", "--quiet"]
    result = subprocess.run(
        [sys.executable, *words], env=environment(MUJOCO_GL="foo"), capture_output=True, text=True
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert (
        "lewm collect: lewm/Reacher-v0: invalid value for environment variable MUJOCO_GL: foo"
        in result.stderr
    )


def test_nothing_to_draw_with_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mujoco_rendering, "_egl_has_device", lambda: False)
    monkeypatch.setattr(mujoco_rendering.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(mujoco_rendering.sys, "platform", "linux")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(Error, match="libegl1"):
        mujoco_rendering.gl_backend.__wrapped__()


@needs_opengl
@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton comes with CUDA builds of torch"
)
def test_triton_can_be_used_after_drawing() -> None:
    code = (
        "import numpy, lewm.envs.reacher as r\n"
        "r.ReacherEnv(image_size=64).render_state(numpy.zeros(4))\n"
        "import triton, triton.language\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, f"exit status {result.returncode}: {result.stderr}"


@needs_opengl
def test_perturbations_show(env: ReacherEnv) -> None:
    rng = np.random.default_rng(3)
    env.reset(seed=3)
    env.step(np.array([1.0, -1.0]))
    before, state = env.render(), env.get_state()
    env.perturb("colour", rng)
    changed = np.abs(env.render().astype(int) - before).max(axis=-1) > 30
    assert 0.002 < changed.mean() < 0.2, "the arm's pixels and no others"
    np.testing.assert_array_equal(env.get_state(), state)
    env.reset(seed=3)
    np.testing.assert_array_equal(env.render_state(state), before)
    env.set_state(state)
    env.perturb("teleport", rng)
    moved = env.get_state()
    assert (moved[:2] != state[:2]).all() and (moved[2:] == state[2:]).all()
    assert (env.render() != before).any()
