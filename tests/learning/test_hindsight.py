"""Hindsight: relabelled steps against a computation in NumPy, in rings that wrap around, and in runs."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from helpers.goal_environments import BitFlip, Doubled, Reach
from helpers.killing import left
from helpers.photographs import Photograph

import rlgrad
from rlgrad.agents import DQN, SAC
from rlgrad.data import Rollout
from rlgrad.environments.goals import GoalRewards, at_once, goals_of
from rlgrad.learning.rehearsal import Rehearsal
from rlgrad.replay import Replay, Ring, Segments
from rlgrad.rollouts import GymCollector

QUICK = {"hidden_sizes": (8,), "evaluation_episodes": 0, "verbose": False, "vectorization_mode": "sync"}


def settings(**options):
    return Replay(**{"capacity": 2_000, "batch_size": 512, "warmup": 0, "hindsight": 1.0} | options)


@pytest.fixture(scope="module", params=[Reach, functools.partial(BitFlip, 5)], ids=["reach", "flip"])
def remembered(request):
    """A rehearsal that has remembered rollouts of an environment, and its episodes: lists of (step, successor)."""
    env = request.param()
    space = env.action_space
    discrete = hasattr(space, "n")
    agent = (DQN if discrete else SAC)(replay=settings(), num_envs=3, num_steps=7, gamma=0.9)
    own = {"action_values": agent.action_values} if discrete else {"squash_actions": True}
    policy = rlgrad.make_policy(env.observation_space, space, hidden_sizes=(2,), value=False, **own)
    rehearsal = Rehearsal(agent, policy, 3, GoalRewards(env, env.observation_space))
    collector = GymCollector(request.param, num_envs=3, num_steps=7, seed=1, vectorization_mode="sync")
    if discrete:  # random flips, not the greedy ones of a policy that never learns
        from rlgrad.rollouts.explorer import Explorer

        policy = Explorer(policy, 1.0)
    episodes, running = [], [[] for _ in range(3)]
    for _ in range(12):
        rollout = collector.collect(policy)
        rehearsal.remember(tf.nest.map_structure(tf.convert_to_tensor, rollout._replace(values=(), next_values=())))
        for n in range(3):
            for t in range(7):
                if not rollout.mask[t, n]:
                    continue
                row = {name: x[t, n] for name, x in rollout.observations.items()}
                after = {name: x[t, n] for name, x in rollout.final_observations.items()}
                running[n].append((row, after, rollout.rewards[t, n], bool(rollout.terminations[t, n])))
                if rollout.terminations[t, n] or rollout.truncations[t, n]:
                    episodes.append(running[n])
                    running[n] = []
    return env, rehearsal, [*episodes, *filter(None, running)]


def key(*parts):
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


def by_transition(episodes):
    """For each (s, s′), the goals that were achieved in or after its step, in every episode that has it."""
    known = {}
    for episode in episodes:
        for t, (row, after, reward, over) in enumerate(episode):
            goals = [key(later["achieved_goal"]) for _, later, _, _ in episode[t:]]
            entry = (goals, key(row["desired_goal"]), reward, over)
            known.setdefault(key(row["observation"], after["observation"]), []).append(entry)
    return known


def test_each_relabelled_step_has_a_goal_that_its_episode_reached_later_with_its_reward_and_end(remembered):
    env, rehearsal, episodes = remembered
    batch, _ = rehearsal.draw(tf.constant([3, 4]), 0.0)
    known = by_transition(episodes)
    for i in range(512):
        row, after = ({n: x[i].numpy() for n, x in o.items()} for o in (batch.observations, batch.next_observations))
        assert key(row["desired_goal"]) == key(after["desired_goal"])
        possible = known[key(row["observation"], after["observation"])]
        assert any(key(row["desired_goal"]) in goals for goals, *_ in possible)
        reward = env.compute_reward(after["achieved_goal"], row["desired_goal"], {})
        assert float(batch.rewards[i]) == float(reward)
        ends = hasattr(env, "compute_terminated") and reward == 0.0
        assert float(batch.discounts[i]) == (0.0 if ends else np.float32(0.9))
    assert 0.1 < float(np.mean(batch.rewards == 0.0)) < 0.95


def test_later_observations_are_drawn_uniformly_from_the_step_to_the_end_of_its_episode(remembered):
    _, rehearsal, _ = remembered
    ring = rehearsal.ring
    drawn = ring.draw(tf.constant([0, 1]), 1)
    rows = tf.repeat(drawn.rows, 4_000)
    later = ring.later(rows, tf.constant([5, 6])).numpy()
    offsets, counts = np.unique((later - int(drawn.rows[0])) % ring.rows, return_counts=True)
    assert offsets.tolist() == list(range(1, len(offsets) + 1))
    expected = 4_000 / len(counts)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_a_share_is_relabelled_and_the_rest_is_as_it_was(remembered):
    _, rehearsal, episodes = remembered
    kept = Rehearsal.__new__(Rehearsal)
    kept.__dict__ = {**rehearsal.__dict__, "_settings": settings(hindsight=0.25)}
    batch, _ = kept.draw(tf.constant([3, 4]), 0.0)
    known, as_played = by_transition(episodes), 0
    for i in range(512):
        row, after = (batch.observations["observation"][i], batch.next_observations["observation"][i])
        possible = known[key(row.numpy(), after.numpy())]
        goal, reward = key(batch.observations["desired_goal"][i].numpy()), float(batch.rewards[i])
        as_played += any(goal == own and reward == paid for _, own, paid, _ in possible)
    assert 0.6 < as_played / 512 < 0.95


def numbered(steps, slots, rng, clock):
    """A rollout whose observations are numbers that never come twice; goals are the number of the episode."""
    observations, after = np.zeros((steps, slots, 1), np.float32), np.zeros((steps, slots, 1), np.float32)
    ends = np.zeros((2, steps, slots), bool)
    mask = (rng.random((steps, slots)) > 0.1).astype(np.float32)
    for t in range(steps):
        for n in range(slots):
            if not mask[t, n]:
                clock["open"][n] = False
                continue
            if not clock["open"][n]:
                clock["now"] += 1
                clock["episode"] += 1
                clock["at"][n], clock["id"][n] = clock["now"], clock["episode"]
            observations[t, n] = clock["at"][n]
            clock["now"] += 1
            after[t, n] = clock["at"][n] = clock["now"]
            clock["of"][float(observations[t, n, 0])] = clock["of"][float(after[t, n, 0])] = clock["id"][n]
            ends[int(rng.random() < 0.5), t, n] = rng.random() < 0.15
            clock["open"][n] = not ends[:, t, n].any()
    zeros = np.zeros((steps, slots), np.float32)
    return Rollout(observations, zeros.astype(np.int64), zeros, *ends, after, zeros, mask)


@pytest.mark.parametrize("capacity", [48, *(pytest.param(n, marks=pytest.mark.slow) for n in (70, 400))])
def test_later_observations_are_of_the_same_episode_in_a_ring_that_wraps_around(capacity):
    ring = Ring(
        settings(capacity=capacity), tf.TensorSpec((None, 1), tf.float32), tf.TensorSpec((None,), tf.int64), 2,
        steps=6, gamma=0.9,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    clock = {"now": 0, "episode": 0, "of": {}, "open": [False] * 2, "at": [0, 0], "id": [0, 0]}
    for i in range(30):
        ring.write(numbered(6, 2, rng, clock))
        drawn = ring.draw(tf.constant([i, 1]), 60)
        later = ring.observed(ring.later(drawn.rows, tf.constant([i, 2])))
        first = [clock["of"][float(x[0])] for x in drawn.observations]
        assert first == [clock["of"][float(x[0])] for x in later]
        assert (later >= drawn.next_observations).numpy().all()
        assert (later > drawn.next_observations).numpy().any()


def test_a_ring_with_hindsight_is_restored_from_its_files(remembered, tmp_path):
    _, rehearsal, _ = remembered
    again = Rehearsal.__new__(Rehearsal)
    again.__dict__ = {name: value for name, value in rehearsal.__dict__.items() if name != "ring"}
    Segments(tmp_path).restore(again.ring, Segments(tmp_path).save(rehearsal.ring))
    for mine, theirs in zip(again.draw([7, 8], 0.0), rehearsal.draw([7, 8], 0.0), strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, mine, theirs)


def test_functions_of_many_goals_are_asked_at_once_and_others_row_by_row():
    calls = []

    def counted(function):
        return lambda *arguments: calls.append(1) or function(*arguments)

    some = np.random.default_rng(0).normal(size=(6, 2))
    for function, expected in (
        (Reach().compute_reward, 1),
        (lambda a, d, info: -float(np.linalg.norm(a - d)), 6),  # one number for all of them
        (lambda a, d, info: 1.0 if a[0] > d[0] else 0.0, 6),  # raises for many
    ):
        ask = at_once(counted(function), some[:4], some[2:])
        calls.clear()
        found = ask(some, some[::-1])
        assert len(calls) == expected
        np.testing.assert_allclose(found, [function(a, d, {}) for a, d in zip(some, some[::-1], strict=True)])


def test_a_run_with_hindsight_that_is_resumed_ends_as_if_it_had_gone_on(tmp_path):
    agent = DQN(replay=settings(capacity=400, batch_size=8, hindsight=0.8), num_envs=2, num_steps=4)
    photograph = Photograph(tmp_path / "middle", 12)
    whole = rlgrad.train(agent, BitFlip, total_timesteps=200, run_dir=tmp_path / "whole", callbacks=photograph, **QUICK)
    assert not whole.resolved["xla"]
    rlgrad.load(tmp_path / "middle", verbose=False, trust=True).train()
    for mine, theirs in zip(left(tmp_path / "middle"), left(whole.path), strict=True):
        assert mine == theirs


@pytest.mark.slow
def test_bits_that_chance_does_not_find_are_flipped_with_hindsight(tmp_path):
    """Of 2¹⁰ goals chance finds none: without hindsight every reward is −1."""
    success = []
    for hindsight in (0.0, 0.8):
        replay = Replay(capacity=50_000, batch_size=64, warmup=500, hindsight=hindsight)
        agent = DQN(replay=replay, num_envs=4, num_steps=5)
        run = rlgrad.train(
            agent, functools.partial(BitFlip, 10), total_timesteps=12_000, run_dir=tmp_path / str(hindsight),
            **QUICK | {"hidden_sizes": (128,)},
        )  # fmt: skip
        success.append(float(np.mean(run.evaluate(50).returns > -20)))
    assert success[0] < 0.2
    assert success[1] > 0.8


@pytest.mark.parametrize(
    ("agent", "env", "said"),
    [
        (DQN(replay=settings()), "CartPole-v1", "a Dict with achieved_goal and desired_goal"),
        (DQN(replay=settings(), num_envs=1, num_steps=8), lambda: Doubled(BitFlip()), "paid other rewards"),
        (DQN(replay=settings()), lambda: WithoutReward(), "and it has none"),
    ],
)
def test_what_cannot_be_relabelled_is_refused(agent, env, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        rlgrad.train(agent, env, total_timesteps=160, run_dir=tmp_path / "run", **QUICK)


class WithoutReward(BitFlip):
    compute_reward = property()  # which is none


@pytest.mark.parametrize("other", [{"n_steps": 2}, {"prioritized": True}, {"frames": 2}, {"hindsight": 1.5}])
def test_options_that_contradict_hindsight_are_refused(other):
    with pytest.raises(ValueError, match="hindsight"):
        settings(**other)


def test_environments_are_made_for_their_rewards_with_their_arguments_and_wrappers():
    space = BitFlip(3).observation_space
    goals = goals_of(BitFlip, space, {"bits": 3}, ("TimeLimit(max_episode_steps=5)",))
    assert goals.rewards(np.eye(3), np.eye(3)[::-1]).tolist() == [-1.0, 0.0, -1.0]
    assert goals.terminated(np.eye(3), np.eye(3)[::-1]).tolist() == [False, True, False]
    assert goals_of(BitFlip(3), space, {}, ()).knows_ends
