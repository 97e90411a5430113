"""Probes find what is there and nothing else; the surprise test tells a jump from noise; geometry measures up."""

from __future__ import annotations

import numpy as np
import pytest

from lewm.analysis.geometry import effective_rank, principal_plane, straightness
from lewm.analysis.surprise import paired_test, surprise_test

pytest.importorskip("sklearn")

from lewm.analysis.probe import (
    Split,
    angles_as_waves,
    pixel_components,
    probe_features,
    split_episodes,
    standardised_targets,
    whitened,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_split_keeps_episodes_whole():
    episode = np.repeat(np.arange(10), 7)
    split = split_episodes(episode, 0.3, seed=1)
    assert not set(episode[split.train]) & set(episode[split.test])
    assert len(split.train) + len(split.test) == len(episode)
    assert len(np.unique(episode[split.test])) == 3


def test_split_needs_two_episodes():
    with pytest.raises(ValueError, match="at least 2 different episodes"):
        split_episodes(np.zeros(5, int), 0.2, seed=0)


def test_targets_are_standardised_on_training_rows_and_others_are_named(rng):
    columns = {"position": rng.normal(3.0, 5.0, (40, 2)), "fixed": np.full((40, 1), 2.0)}
    columns["reward"] = rng.normal(size=(40, 2))
    columns["reward"][35, 1] = np.nan  # of a held-out row
    train = np.arange(30)
    targets, left_out = standardised_targets(columns, train)
    assert left_out == ["fixed (nothing varies)", "reward (not finite in 1 rows)"]
    np.testing.assert_allclose(targets["position"][train].mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(targets["position"][train].std(axis=0), 1.0, atol=1e-6)


def test_turns_of_an_angle_do_not_matter_to_its_waves(rng):
    turns = rng.uniform(-9.0, 9.0, (20, 2))
    columns = {"joint": turns, "speed": turns}
    waves = angles_as_waves(columns, {"joint", "elsewhere"})
    assert list(waves) == ["joint (cos, sin)", "speed"]
    assert waves["speed"] is turns
    np.testing.assert_allclose(waves["joint (cos, sin)"], np.hstack([np.cos(turns), np.sin(turns)]))
    again = angles_as_waves({"joint": turns + 2 * np.pi}, {"joint"})
    np.testing.assert_allclose(again["joint (cos, sin)"], waves["joint (cos, sin)"], atol=1e-12)


def test_linear_probe_reads_a_linear_code_and_not_noise(rng):
    state = rng.normal(size=(600, 2))
    episode = np.repeat(np.arange(30), 20)
    features = (state @ rng.normal(size=(2, 8)) + 0.01 * rng.normal(size=(600, 8))).astype(np.float32)
    noise = rng.normal(size=(600, 8)).astype(np.float32)
    split = split_episodes(episode, 0.25, seed=0)
    targets, _ = standardised_targets({"state": state}, split.train)

    read = probe_features(features, targets, episode, split, label="code", regressors=("linear",))[0]
    unread = probe_features(noise, targets, episode, split, label="noise", regressors=("linear",))[0]
    assert read.r > 0.99 and read.mse < 0.02
    assert abs(unread.r) < 0.3 and unread.mse > 0.7


def test_mlp_probe_reads_what_a_linear_one_cannot(rng):
    hidden = rng.uniform(-1.0, 1.0, size=(2000, 2))
    target = hidden[:, :1] * hidden[:, 1:]
    episode = np.repeat(np.arange(50), 40)
    split = split_episodes(episode, 0.2, seed=0)
    targets, _ = standardised_targets({"product": target}, split.train)
    linear, mlp = probe_features(hidden.astype(np.float32), targets, episode, split, label="code")
    assert (linear.regressor, mlp.regressor) == ("linear", "mlp")
    assert linear.r < 0.3 < 0.9 < mlp.r


def test_mlp_probe_reads_directions_of_little_variance(rng):
    """r is 0.26 where features are scaled by dimension alone."""
    code = rng.normal(size=(800, 24)) * np.geomspace(1.0, 0.03, 24)
    features = (3.0 + code @ np.linalg.qr(rng.normal(size=(24, 24)))[0]).astype(np.float32)
    episode = np.repeat(np.arange(40), 20)
    split = split_episodes(episode, 0.2, seed=0)
    targets, _ = standardised_targets({"smallest": code[:, -1:]}, split.train)
    (read,) = probe_features(features, targets, episode, split, label="code", regressors=("mlp",))
    assert read.r > 0.95


def test_whitened_features_are_uncorrelated_and_of_unit_variance(rng):
    turn = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    mixed = (rng.normal(size=(500, 16)) * np.geomspace(1.0, 0.3, 16) @ turn).astype(np.float32)
    train = np.arange(400)
    covariance = np.cov(whitened(mixed, train)[train], rowvar=False)
    variance = np.diag(covariance)
    np.testing.assert_allclose(covariance - np.diag(variance), 0.0, atol=1e-5)
    assert 0.95 < variance.min() <= variance.max() < 1.0


@pytest.mark.parametrize(("regressor", "least"), [("linear", 2), ("mlp", 11)])
def test_too_few_training_rows_are_refused(rng, regressor, least):
    for rows in (least - 1, least):
        episode = np.arange(rows + 1)
        split = Split(train=episode[:rows], test=episode[rows:])
        features, targets = rng.normal(size=(2, rows + 1, 1)).astype(np.float32)
        arguments = (features, {"state": targets}, episode, split)
        if rows < least:
            with pytest.raises(
                ValueError, match=f"split: expected at least {least} training rows, got {rows}"
            ):
                probe_features(*arguments, label="code", regressors=(regressor,))
        else:
            (score,) = probe_features(*arguments, label="code", regressors=(regressor,))
            assert np.isfinite(score.mse)


def test_probes_of_the_same_latent_for_everything_read_nothing(rng):
    episode = np.repeat(np.arange(10), 10)
    split = split_episodes(episode, 0.2, seed=0)
    targets, _ = standardised_targets({"state": rng.normal(size=(100, 2))}, split.train)
    for score in probe_features(
        np.full((100, 4), 7.0, np.float32), targets, episode, split, label="constant"
    ):
        assert score.r == 0.0 and np.isfinite(score.mse)


def test_pixel_components_have_the_width_asked_for(rng):
    frames = rng.integers(0, 256, (40, 128, 128, 3), dtype=np.uint8)
    train = np.arange(30)
    components = pixel_components(frames, train, width=8, seed=0)
    assert components.shape == (40, 8) and np.isfinite(components).all()
    covariance = np.cov(components[train], rowvar=False)
    variance = np.diag(covariance)
    assert (np.diff(variance) < 0).all() and variance[-1] > 100.0, "not in the pixels' units"
    np.testing.assert_allclose(covariance - np.diag(variance), 0.0, atol=1e-3 * variance[0])


def test_pixel_components_need_no_whitening_of_their_own(rng):
    frames = rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    train = np.arange(30)
    components = pixel_components(frames, train, width=6, seed=0)
    unit = components / components[train].std(axis=0)
    once, twice = whitened(components, train), whitened(unit, train)
    np.testing.assert_allclose(once @ once.T, twice @ twice.T, atol=1e-3)  # alike but for a turn


def test_paired_test_is_the_textbook_statistic(rng):
    base = rng.normal(1.0, 0.1, 30).astype(np.float32)
    jump = base + rng.normal(0.5, 0.2, 30).astype(np.float32)
    result = paired_test("teleport", jump, base)
    difference = jump.astype(np.float64) - base
    assert result.t == pytest.approx(difference.mean() / (difference.std(ddof=1) / np.sqrt(30)), rel=1e-4)
    assert result.effect_size == pytest.approx(result.t / np.sqrt(30), rel=1e-4)
    assert result.significant
    assert not paired_test("teleport", base, jump).significant  # less surprising does not count


def test_paired_test_of_equal_series_finds_nothing():
    same = np.ones(5, np.float32)
    assert not paired_test("colour", same, same).significant
    more, less = paired_test("colour", same + 1, same), paired_test("colour", same, same + 1)
    assert more.significant and more.t == more.effect_size == np.inf
    assert not less.significant and less.t == less.effect_size == -np.inf


@pytest.mark.parametrize("options", [{"pairs": 1}, {"pairs": 2.0}, {"blocks": 1}, {"seed": -1}])
def test_surprise_names_what_is_out_of_range(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected an int of at least"):
        surprise_test(None, None, None, **{"kinds": ["teleport"], **options})


@pytest.mark.parametrize("wrong", [np.ones(1, np.float32), np.ones((2, 2), np.float32)])
def test_paired_test_refuses_other_shapes(wrong):
    with pytest.raises(ValueError, match="perturbed: expected"):
        paired_test("colour", wrong, wrong)


def test_straightness_of_a_line_a_turn_and_episodes_apart():
    line = np.outer(np.arange(6), [1.0, 2.0, 0.0]).astype(np.float32)
    assert straightness(line, np.zeros(6, int)) == pytest.approx(1.0)
    back_and_forth = np.array([[0.0], [1.0], [0.0], [1.0]], np.float32)
    assert straightness(back_and_forth, np.zeros(4, int)) == pytest.approx(-1.0)
    # A jump between two episodes is not a velocity.
    both = np.concatenate([line, line + 100.0])
    assert straightness(both, np.repeat([0, 1], 6)) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 3"):
        straightness(line[:2], np.zeros(2, int))


def test_effective_rank_counts_the_dimensions_in_use(rng):
    isotropic = rng.normal(size=(20_000, 6)).astype(np.float32)
    assert effective_rank(isotropic) == pytest.approx(6.0, abs=0.05)
    plane = isotropic[:, :2] @ rng.normal(size=(2, 6)).astype(np.float32)
    assert effective_rank(plane) <= 2.0 + 1e-6
    assert effective_rank(np.ones((10, 4), np.float32)) == 1.0


def test_latents_of_one_dimension_lie_on_a_line_of_the_plane(rng):
    latents = rng.normal(2.0, 3.0, size=(50, 1)).astype(np.float32)
    plane, share = principal_plane(latents)
    np.testing.assert_allclose(
        np.abs(plane[:, 0]), np.abs(latents[:, 0] - latents.mean()), rtol=1e-4, atol=1e-5
    )
    assert not plane[:, 1].any() and share.tolist() == [1.0, 0.0]


def test_principal_plane_finds_the_two_widest_directions(rng):
    latents = (rng.normal(size=(500, 5)) * [0.1, 5.0, 0.1, 2.0, 0.1]).astype(np.float32)
    plane, share = principal_plane(latents)
    assert abs(np.corrcoef(plane[:, 0], latents[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(plane[:, 1], latents[:, 3])[0, 1]) > 0.99
    assert share[0] > share[1] and share.sum() == pytest.approx(1.0, abs=0.01)


def test_perturbations_of_two_room_change_what_they_name(rng):
    pytest.importorskip("gymnasium")
    from lewm.envs.two_room import TwoRoomEnv

    env = TwoRoomEnv(image_size=64)
    env.reset(seed=0)
    state, frame = env.get_state(), env.render()
    env.perturb("colour", rng)
    assert (env.get_state() == state).all() and (env.render() == frame[..., ::-1]).all()
    env.reset(seed=0)
    assert (env.render() == frame).all()
    env.perturb("teleport", np.random.default_rng(1))  # another stream than the one that drew the start
    assert (env.get_state() != state).any() and (env.render() != frame).any()
    with pytest.raises(ValueError, match="kind: expected one of"):
        env.perturb("explode", rng)


def test_an_episode_is_the_same_until_the_perturbation():
    pytest.importorskip("gymnasium")
    from lewm.analysis.surprise import play
    from lewm.envs.two_room import TwoRoomEnv

    env = TwoRoomEnv(image_size=32)
    policy = env.make_policy("noisy-expert")
    plain = play(env, policy, seed=3, blocks=4, frame_skip=5)
    perturbed = play(env, policy, seed=3, blocks=4, frame_skip=5, kind="teleport", perturb_at=2)
    assert plain.frames.shape == (5, 32, 32, 3) and plain.actions.shape == (4, 5, 2)
    assert (plain.frames[:2] == perturbed.frames[:2]).all()
    assert (plain.actions[:2] == perturbed.actions[:2]).all()
    assert (plain.frames[2] != perturbed.frames[2]).any()
    with pytest.raises(ValueError, match=r"perturb_at: expected 1\.\.4, got 5"):
        play(env, policy, seed=3, blocks=4, frame_skip=5, kind="teleport", perturb_at=5)
