"""Recorded episodes: their files, what is refused in them, and what a replay that is filled with them draws."""

import io
import os
import zipfile

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

import rlgrad
from rlgrad.agents import DQN
from rlgrad.learning.recorded_rollouts import rollouts, rows_for
from rlgrad.learning.rehearsal import Rehearsal
from rlgrad.policies.actions import action_model, actor_model
from rlgrad.policies.recorded_actions import as_stored_actions
from rlgrad.replay import Replay, minari_data, recorded
from rlgrad.replay.recorded import Episodes

BOX, TWO = spaces.Box(-5.0, 5.0, (2,)), spaces.Discrete(2, start=3)
LENGTHS = [3, 1, 4]


def episodes(lengths=LENGTHS, terminated=(True, False, False)):
    steps, rows = sum(lengths), sum(lengths) + len(lengths)
    return Episodes(
        observations=np.arange(2 * rows).reshape(rows, 2) / 16,
        actions=3 + np.arange(steps) % 2,
        rewards=np.arange(steps) + 1.0,
        terminated=np.array(terminated),
        lengths=np.array(lengths),
    )


def test_what_is_written_is_read_again_in_the_order_of_the_files(tmp_path):
    first, second = episodes(), episodes([2], [True])
    assert [recorded.write(tmp_path / "data", part).name for part in (first, second)] == [
        "episodes-000000.npz", "episodes-000001.npz",
    ]  # fmt: skip
    read = recorded.read(tmp_path / "data", BOX, TWO)
    assert read.observations.dtype == np.float32
    assert read.lengths.tolist() == [3, 1, 4, 2]
    for mine, theirs in zip(read, recorded.joined([first, second]), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(read.returns, [6.0, 4.0, 26.0, 3.0])
    assert recorded.digest(read) == recorded.digest(recorded.joined([read, episodes()])._replace(**read._asdict()))
    assert recorded.digest(read) != recorded.digest(read._replace(rewards=read.rewards[::-1]))


def test_trees_of_observations_have_an_array_for_each_part(tmp_path):
    space = spaces.Dict({"a": BOX, "b": spaces.Tuple([spaces.Discrete(100), BOX])})
    plain = episodes()
    tree = {"a": plain.observations, "b": (np.arange(11), -plain.observations)}
    file = recorded.write(tmp_path, plain._replace(observations=tree))
    with np.load(file, allow_pickle=False) as content:
        assert {"observations/a", "observations/b/0", "observations/b/1"} < set(content.files)
    read = recorded.read(tmp_path, space, TWO).observations
    tf.nest.map_structure(np.testing.assert_array_equal, read, tree)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"observations": np.zeros((11, 3))}, r"expected of the shape \(11, 2\)"),
        ({"observations": np.zeros((8, 2))}, r"expected of the shape \(11, 2\)"),
        ({"observations": np.full((11, 2), np.nan)}, "not finite"),
        ({"actions": np.full(8, 2)}, "outside of the environment's Discrete"),
        ({"actions": np.full(8, 3.5)}, "whole numbers"),
        ({"rewards": np.full(8, np.inf)}, "rewards are not finite"),
        ({"rewards": np.full(8, -1e39)}, "rewards are too large for float32, up to 1e.39: scale"),
        ({"lengths": np.array([3, 0, 5])}, "a whole number ≥ 1"),
        ({"lengths": np.array([3, 1, 5])}, "rewards are expected"),
        ({"terminated": np.array([1, 0, 0])}, "a bool for each of 3"),
        ({"rewards": np.array(["a"] * 8)}, "no recorded episodes"),
        ({"rewards": np.array([object()] * 8)}, "no recorded episodes"),
    ],
)
def test_episodes_of_another_kind_are_refused_in_a_sentence(change, said, tmp_path):
    recorded.write(tmp_path, episodes()._replace(**change))
    with pytest.raises(ValueError, match=said):
        recorded.read(tmp_path, BOX, TWO)


def test_files_that_are_none_are_refused(tmp_path, monkeypatch):
    file = recorded.write(tmp_path / "data", episodes())
    content = file.read_bytes()
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    np.savez(lacking / "a.npz", rewards=np.zeros(3))
    with pytest.raises(ValueError, match=r"a\.npz has no actions, lengths, observations, terminated"):
        recorded.read(lacking, BOX, TWO)
    with pytest.raises(ValueError, match="has none: record some"):
        recorded.read(tmp_path, BOX, TWO)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="holds no recorded episodes"):
        recorded.read(tmp_path / "data", BOX, TWO)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rewards.npy", b"\x93NUMPY\x01\x00" + header.getvalue()[8:])
    with pytest.raises(ValueError, match="is no plain array"):
        recorded.read(tmp_path / "data", BOX, TWO)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rewards.npy", bytes(10**7))  # which packs into ten kilobytes
    monkeypatch.setattr("rlgrad.replay.recorded._UNPACKED", 10**6)
    with pytest.raises(ValueError, match="are too large"):
        recorded.read(tmp_path / "data", BOX, TWO)
    file.unlink()
    (tmp_path / "elsewhere").write_bytes(content)
    os.symlink(tmp_path / "elsewhere", file)
    with pytest.raises(ValueError, match="is a link"):
        recorded.read(tmp_path / "data", BOX, TWO)
    os.symlink(tmp_path / "data", tmp_path / "link")
    with pytest.raises(ValueError, match="is a link"):
        recorded.write(tmp_path / "link", episodes())


def test_compressed_files_are_read_too(tmp_path):
    data = recorded.fitting(episodes(), BOX, TWO, "here")
    np.savez_compressed(tmp_path / "mine.npz", **data._asdict())
    np.testing.assert_array_equal(recorded.read(tmp_path, BOX, TWO).observations, data.observations)


def test_a_filled_replay_draws_each_step_with_what_came_of_it(monkeypatch):
    """Truncated episodes bootstrap, terminated ones do not, and n-step returns stop at both, by a computation in lists."""
    monkeypatch.setattr("rlgrad.learning.recorded_rollouts.CHUNK", 3)  # episodes go on from one rollout to the next
    monkeypatch.setattr("rlgrad.learning.rehearsal.CHUNK", 3)
    agent = DQN(replay=Replay(data="there", n_steps=2, batch_size=400), gamma=0.5)
    policy = rlgrad.make_policy(BOX, TWO, action_values=agent.action_values, hidden_sizes=(2,))
    rehearsal, data = Rehearsal(agent, policy, 1), recorded.fitting(episodes(), BOX, TWO, "here")
    with pytest.raises(ValueError, match="filled with them first"):
        rehearsal.prepare()
    rehearsal.fill(data, policy)
    assert int(rehearsal.ring.held) == data.steps
    batch, _ = rehearsal.draw(tf.constant([1, 2]), 0.0)
    expected, at, row = {}, 0, 0
    for length, terminated in zip(LENGTHS, (True, False, False), strict=True):
        for t in range(length):
            m = min(2, length - t)
            total = sum(0.5**k * data.rewards[at + t + k] for k in range(m))
            discount = 0.0 if terminated and t + m == length else 0.5**m
            after = data.observations[row + t + m]
            expected[tuple(data.observations[row + t])] = (data.actions[at + t] - 3, total, discount, *after)
        at, row = at + length, row + length + 1
    drawn = {
        tuple(seen.numpy()): (int(action), float(reward), float(discount), *after.numpy())
        for seen, action, reward, discount, after in zip(
            batch.observations, batch.actions, batch.rewards, batch.discounts, batch.next_observations, strict=True
        )
    }
    assert drawn == expected
    assert np.isnan(batch.log_probs).all()


def test_rows_suffice_for_any_episodes():
    for lengths in ([1] * 50, [50], [7, 1, 42]):
        data = episodes(lengths, [False] * len(lengths))
        assert rows_for(data, None) >= data.steps + len(lengths)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=-1),
        spaces.MultiDiscrete([2, 3], start=[1, 5]),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiBinary(3),
        spaces.Box(np.float32([-2, 0]), np.float32([2, 1])),
    ],
    ids=str,
)
def test_recorded_actions_are_stored_as_they_would_have_been_played(space):
    space.seed(0)
    actions = np.stack([space.sample() for _ in range(5)])
    models = [action_model(space)]
    if isinstance(space, spaces.Box):
        from rlgrad.policies.actions import ActorCritic

        actions[0] = space.high
        models += [actor_model(space, ActorCritic(1, actor)) for actor in ("reparameterized", "deterministic")]
        models.append(action_model(space, squash=True))
    for model in models:
        stored = as_stored_actions(model.distribution, actions)
        assert stored.dtype == model.spec.dtype.as_numpy_dtype
        assert np.isfinite(stored).all()
        np.testing.assert_allclose(model.distribution.to_environment(stored), actions, atol=1e-5)


def test_actions_of_several_parts_are_refused(tmp_path):
    space = spaces.Tuple([TWO, BOX])
    with pytest.raises(ValueError, match="not of Tuple"):
        recorded.fitting(episodes(), BOX, space, tmp_path)


def test_without_minari_a_sentence_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    with pytest.raises(ValueError, match=r"no folder 'D4RL/x'.*pip install 'rlgrad\[minari\]'"):
        minari_data.read("D4RL/x", BOX, TWO)


def test_a_dataset_of_minari_is_read(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env, buffers = gymnasium.make("CartPole-v1", max_episode_steps=12), []
    for number in range(6):
        seen, steps = [env.reset(seed=number)[0]], []
        while not steps or not (steps[-1][2] or steps[-1][3]):
            action = (len(steps) // 2) % 2 if number else 1
            after, *rest, _ = env.step(action)
            seen, steps = [*seen, after], [*steps, (action, *rest)]
        columns = map(list, zip(*steps, strict=True))
        columns = dict(zip(("actions", "rewards", "terminations", "truncations"), columns, strict=True))
        buffers.append(EpisodeBuffer(id=number, observations=seen, **columns))
    minari.create_dataset_from_buffers("cartpole/test-v0", buffers, env=env)
    played = [(len(each.rewards), each.terminations[-1]) for each in buffers]
    assert {terminated for _, terminated in played} == {True, False}
    read = minari_data.read("cartpole/test-v0", env.observation_space, env.action_space)
    assert list(zip(read.lengths.tolist(), read.terminated.tolist(), strict=True)) == played
    np.testing.assert_array_equal(read.returns, [steps for steps, _ in played])
    with pytest.raises(ValueError, match="minari download cartpole/other-v0"):
        minari_data.read("cartpole/other-v0", env.observation_space, env.action_space)


def test_episodes_become_rollouts_of_one_slot():
    policy = rlgrad.make_policy(BOX, TWO, value=False, hidden_sizes=(2,))
    (rollout,) = rollouts(recorded.fitting(episodes(), BOX, TWO, "here"), policy)
    assert rollout.mask.shape == (8, 1)
    assert np.flatnonzero(rollout.terminations).tolist() == [2]
    assert np.flatnonzero(rollout.truncations).tolist() == [3, 7]
