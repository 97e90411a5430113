"""Plans that begin with what was recorded: which sequences, which of them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium")
h5py = pytest.importorskip("h5py")

import lewm
from lewm.data import EpisodeFile, EpisodeWriter
from lewm.evaluation import PlanningAgent, evaluate
from synthetic import uniform

HORIZON = 3
OPTIONS = {"samples": 16, "elites": 4, "iterations": 1, "horizon": HORIZON}


@pytest.fixture(scope="module")
def recorded(model, episodes: EpisodeFile) -> lewm.RecordedActions:
    return lewm.RecordedActions.from_episodes(model, episodes.path, HORIZON)


def test_what_followed_a_recorded_frame_is_found_by_it(
    model, episodes: EpisodeFile, recorded: lewm.RecordedActions
) -> None:
    for episode, step in ((0, 0), (3, 10), (7, 5)):
        row = int(episodes.offsets[episode]) + step
        (found,) = recorded.near(model.encode(episodes.read("pixels", row, row + 1)), 1)
        steps = 5 * HORIZON
        taken = episodes.read("action", row, row + steps).reshape(HORIZON, 5, 2)
        np.testing.assert_allclose(found[0], model.standardise(taken), rtol=1e-6)


def test_sequences_end_before_the_unknown_last_action(
    model, episodes: EpisodeFile, recorded: lewm.RecordedActions
) -> None:
    """The last action of an episode is NaN: of n rows, n - 15 begin a sequence, and each fifth of them is taken."""
    expected = sum(-(-max(0, int(length) - 15) // 5) for length in episodes.lengths)
    assert len(recorded) == expected
    every = lewm.RecordedActions.from_episodes(model, episodes.path, HORIZON, every=1)
    assert len(every) == sum(max(0, int(length) - 15) for length in episodes.lengths)


def test_the_nearest_come_first_and_alone_as_in_a_batch() -> None:
    latents = uniform(1, "latents", (50, 8))
    actions = np.arange(50, dtype=np.float32)[:, None, None] * np.ones((1, HORIZON, 4), np.float32)
    recorded = lewm.RecordedActions(latents, actions)
    sought = uniform(2, "sought", (5, 8))
    found = recorded.near(sought, 7)[:, :, 0, 0].astype(int)
    for one, indices in zip(sought, found, strict=True):
        distances = np.linalg.norm(latents - one, axis=1)
        np.testing.assert_array_equal(indices, np.argsort(distances)[:7])
        np.testing.assert_array_equal(recorded.near(one[None], 7)[0, :, 0, 0], indices)
    assert recorded.near(sought, 1000).shape == (5, 50, HORIZON, 4)


@pytest.mark.parametrize("context", [1, 3])
def test_a_plan_begins_with_the_cheapest(model, recorded: lewm.RecordedActions, context: int) -> None:
    planner = lewm.Planner(model, cost="sum", **OPTIONS)
    latents, goals = uniform(3, "latents", (4, context, 16)), uniform(4, "goals", (4, 16))
    past = uniform(5, "past", (4, context - 1, 10)) if context > 1 else None
    start = recorded.warm_start(planner, latents, goals, past_actions=past, count=20)
    candidates = recorded.near(latents[:, -1], 20)
    cost = planner.evaluate(latents, goals, candidates, past)
    np.testing.assert_array_equal(start, candidates[np.arange(4), cost.argmin(1)])
    np.testing.assert_array_equal(planner.evaluate(latents, goals, start[:, None], past)[:, 0], cost.min(1))


def test_the_rest_of_the_last_plan_takes_part(model, recorded: lewm.RecordedActions) -> None:
    """Goals that lie where the rest leads: no recorded sequence is nearer."""
    planner = lewm.Planner(model, **OPTIONS)
    latents, rest = uniform(3, "latents", (2, 1, 16)), uniform(6, "rest", (2, 2, 10), std=3.0)
    padded = np.concatenate([rest, np.zeros((2, 1, 10), np.float32)], axis=1)
    goals = model.rollout(latents, padded[:, None])[:, 0, -1]
    np.testing.assert_array_equal(recorded.warm_start(planner, latents, goals, rest=rest, count=5), padded)


def test_an_agent_plans_from_what_was_recorded(
    model, episodes: EpisodeFile, recorded: lewm.RecordedActions
) -> None:
    """Without noise the plan is the start itself: on recorded frames with the goal 15 steps on, the recorded one."""
    planner = lewm.Planner(model, std=0.0, **OPTIONS)
    agent = PlanningAgent(model, planner, recorded=recorded, proposals=1)
    row = int(episodes.offsets[2])
    frames = episodes.read("pixels", row, row + 16)
    agent.reset(frames[15:], seed=0)
    actions = agent.act(np.array([0]), frames[None, :1], np.zeros((1, 0, 5, 2), np.float32))
    np.testing.assert_allclose(actions[0], episodes.read("action", row, row + 15), rtol=1e-5, atol=1e-6)


def test_an_evaluation_names_what_its_plans_began_with(model, episodes: EpisodeFile, tmp_path: Path) -> None:
    options = {"episodes": 3, "budget": 15, "replan_every": 1, **OPTIONS}
    results = [
        evaluate(model, episodes.path, recorded=recorded, proposals=recorded and 8, **options)
        for recorded in (episodes.path, episodes.path, None)
    ]
    assert results[0].settings["recorded"] == str(episodes.path) and results[0].settings["proposals"] == 8
    assert results[2].settings["proposals"] == 0
    states = [result.seeds[0].outcomes["model"].final_states for result in results]
    np.testing.assert_array_equal(states[0], states[1])
    assert not np.array_equal(states[0], states[2])


def test_a_finished_evaluation_does_not_encode_again(
    model, episodes: EpisodeFile, tmp_path: Path, monkeypatch
) -> None:
    options = {"episodes": 3, "budget": 5, "seeds": (0, 1), "recorded": episodes.path, **OPTIONS}
    options |= {"parts": tmp_path / "parts"}
    encoded = []

    def counted(*arguments):
        encoded.append(arguments)
        return from_episodes(*arguments)

    from_episodes = lewm.RecordedActions.from_episodes
    monkeypatch.setattr(lewm.RecordedActions, "from_episodes", counted)
    first = evaluate(model, episodes.path, **options)
    assert len(encoded) == 1
    again = evaluate(model, episodes.path, **options)
    assert len(encoded) == 1
    for one, two in zip(first.seeds, again.seeds, strict=True):
        np.testing.assert_array_equal(one.outcomes["model"].steps, two.outcomes["model"].steps)
    (tmp_path / "parts" / "1_model_0000.npz").unlink()
    evaluate(model, episodes.path, **options)
    assert len(encoded) == 2


def test_a_recording_that_is_refused_leaves_what_is_finished(
    model, episodes: EpisodeFile, tmp_path: Path
) -> None:
    options = {"episodes": 3, "budget": 5, "parts": tmp_path / "parts", **OPTIONS}
    evaluate(model, episodes.path, **options)
    finished = sorted(path.name for path in (tmp_path / "parts").iterdir())
    other = tmp_path / "other.h5"
    with EpisodeWriter(other) as writer:
        writer.write_episode({"pixels": np.zeros((4, 32, 32, 3), np.uint8), "action": np.zeros((4, 2))})
    with pytest.raises(lewm.Error, match="no episode has 15 known actions"):
        evaluate(model, episodes.path, recorded=other, **options)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == finished


def test_it_keeps_copies() -> None:
    latents, actions = uniform(3, "latents", (5, 16)), uniform(4, "actions", (5, HORIZON, 10))
    kept = lewm.RecordedActions(latents, actions)
    expected = kept.near(latents[:1], 1)
    latents[:], actions[:] = 0, 0
    np.testing.assert_array_equal(kept.near(uniform(3, "latents", (5, 16))[:1], 1), expected)


def test_what_does_not_fit_is_refused(
    model, episodes: EpisodeFile, recorded: lewm.RecordedActions, tmp_path: Path
) -> None:
    latents, goals = uniform(3, "latents", (2, 1, 16)), uniform(4, "goals", (2, 16))
    longer = lewm.Planner(model, **{**OPTIONS, "horizon": 4})
    with pytest.raises(
        ValueError, match="planner: expected horizon 3 and blocks of 10 as recorded, got 4 and"
    ):
        recorded.warm_start(longer, latents, goals)
    planner = lewm.Planner(model, **OPTIONS)
    with pytest.raises(ValueError, match=r"latents: expected \(B, 16\), got \(2, 8\)"):
        recorded.near(latents[:, 0, :8], 4)
    with pytest.raises(ValueError, match="count: expected an int of at least 1, got 0"):
        recorded.near(latents[:, 0], 0)
    with pytest.raises(ValueError, match="rest: expected at most 3 blocks, got 4"):
        recorded.warm_start(planner, latents, goals, rest=np.zeros((2, 4, 10), np.float32))
    with pytest.raises(ValueError, match="rest: expected finite numbers, got nan"):
        recorded.warm_start(planner, latents, goals, rest=np.full((2, 1, 10), np.nan, np.float32))
    nothing = recorded.warm_start(planner, latents, goals, rest=np.zeros((2, 0, 10), np.float32))
    np.testing.assert_array_equal(nothing, recorded.warm_start(planner, latents, goals))
    with pytest.raises(ValueError, match="actions: expected finite numbers, got nan"):
        lewm.RecordedActions(latents[:, 0], np.full((2, HORIZON, 10), np.nan, np.float32))
    with pytest.raises(ValueError, match="horizon: expected an int of at least 1, got 0"):
        lewm.RecordedActions.from_episodes(model, episodes.path, 0)
    with pytest.raises(lewm.Error, match="no episode has 500 known actions, as 100 blocks need"):
        lewm.RecordedActions.from_episodes(model, episodes.path, 100)
    other = tmp_path / "other.h5"
    with EpisodeWriter(other) as writer:
        writer.write_episode(
            {"pixels": np.zeros((40, 16, 16, 3), np.uint8), "action": np.zeros((40, 2), np.float32)}
        )
    with pytest.raises(lewm.Error, match=r"pixels: expected \(N, 32, 32, 3\) uint8 as the model"):
        lewm.RecordedActions.from_episodes(model, other, HORIZON)
    empty = tmp_path / "empty.h5"
    with h5py.File(empty, "w") as file:
        file["pixels"], file["action"] = np.zeros((0, 32, 32, 3), np.uint8), np.zeros((0, 2), np.float32)
        file["ep_len"] = file["ep_offset"] = np.zeros(0, np.int64)
    with pytest.raises(lewm.Error, match=r"empty\.h5: no episode has 15 known actions"):
        lewm.RecordedActions.from_episodes(model, empty, HORIZON)
