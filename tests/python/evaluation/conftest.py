"""Recorded Two-Room episodes, and a small model of them."""

from __future__ import annotations

import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("h5py")

from evaluation_support import SIZE

import lewm
from lewm.data import EpisodeFile
from lewm.data.collection import collect
from lewm.envs.two_room import TwoRoomEnv
from synthetic import TINY


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> EpisodeFile:
    path = tmp_path_factory.mktemp("data") / "episodes.h5"
    collect("two_room", path, episodes=40, image_size=SIZE, seed=2)
    return EpisodeFile(path)


@pytest.fixture
def env() -> TwoRoomEnv:
    return TwoRoomEnv(SIZE)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    pytest.importorskip("lewm._core")
    torch = pytest.importorskip("torch")
    from lewm.nn import LeWM

    torch.manual_seed(0)
    network = LeWM(TINY, action_scaling={"mean": [0.1, -0.2], "std": [0.5, 0.8]}).eval()
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    lewm.save(network, path)
    return lewm.load(path, "fp32", 1)
