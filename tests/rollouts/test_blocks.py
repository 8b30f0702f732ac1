"""What a slot plays does not depend on the slots that are played beside it, to the last bit."""

import numpy as np
import pytest
from helpers.scripted import RandomPolicy
from numpy.testing import assert_array_equal

import rlgrad
from rlgrad.random import stream
from rlgrad.rollouts import GymCollector
from rlgrad.rollouts.blocks import Block, blocks, in_groups
from rlgrad.rollouts.draws import SlotDraws

NAMES = ("observations", "actions", "rewards", "terminations", "truncations", "final_observations", "log_probs", "mask")
BY_STEPS, BY_EPISODES = {"num_steps": 24, "max_episode_steps": 20}, {"episodes_per_env": 2, "max_episode_steps": 30}


@pytest.fixture(scope="module")
def policies():
    envs = ("CartPole-v1", "Pendulum-v1")
    made = {}
    for env in envs:
        probe = GymCollector(env, num_envs=1, num_steps=1)
        made[env] = rlgrad.make_policy(probe.observation_space, probe.action_space, hidden_sizes=(64, 64))
    return made


def played(env, policy, parts, rollouts=3, **options):
    """Rollouts of eight slots that so many collectors play, side by side."""
    split = []
    for block in blocks(8, parts):
        with GymCollector(env, num_envs=block.count, block=block, vectorization_mode="sync", seed=5, **options) as c:
            split.append([c.collect(policy) for _ in range(rollouts)] + [c.drain_episodes()])
    *by_rollout, episodes = zip(*split, strict=True)
    merged = [
        {name: np.concatenate([getattr(part, name)[:rows] for part in parts], axis=1) for name in NAMES}
        for parts in by_rollout
        for rows in [min(len(part.mask) for part in parts)]
    ]
    return merged, sorted(each for part in episodes for each in part)


@pytest.mark.parametrize("options", [BY_STEPS, BY_EPISODES])
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("parts", [2, 3, 8])
def test_eight_slots_play_the_same_in_one_collector_as_in_several(env, parts, options, policies):
    whole, episodes = played(env, policies[env], 1, **options)
    split, again = played(env, policies[env], parts, **options)
    for one, two in zip(whole, split, strict=True):
        for name in NAMES:
            assert_array_equal(one[name], two[name], err_msg=name)
    assert episodes == again
    assert len(episodes) > 3


def test_rows_are_computed_in_the_same_groups_whichever_of_them_a_block_has():
    kernel = np.random.default_rng(0).normal(size=(37, 50)).astype(np.float32)
    x = np.random.default_rng(1).normal(size=(600, 37)).astype(np.float32)
    heights = []

    def act(rows):
        heights.append(len(rows))
        return {"mean": rows.dot(kernel), "log_std": np.zeros((1, 50), np.float32)}

    whole = in_groups(act, Block(0, 600, 600), in_numpy=True)(x)
    assert heights == [200, 200, 200]
    assert whole["log_std"].shape == (1, 50)
    for block in (Block(0, 3, 600), Block(150, 120, 600), Block(199, 202, 600), Block(599, 1, 600)):
        own = slice(block.first, block.first + block.count)
        part = in_groups(act, block, in_numpy=True)(x[own])
        assert_array_equal(part["mean"], whole["mean"][own])
        assert part["log_std"].shape == (1, 50)
    assert set(heights) == {200}


def test_a_program_computes_the_rows_of_all_slots_and_one_group_needs_no_detour():
    def act(x, state):
        assert len(x) == len(state["h"]) == 300
        return x + 1.0, {"h": state["h"] + 2.0}

    assert in_groups(act, Block(0, 300, 300), in_numpy=False) is act
    parameters, state = in_groups(act, Block(10, 2, 300), in_numpy=False)(np.ones((2, 3)), {"h": np.zeros((2, 4))})
    assert_array_equal(parameters, np.full((2, 3), 2.0))
    assert_array_equal(state["h"], np.full((2, 4), 2.0))


@pytest.mark.parametrize(("total", "parts"), [(8, 3), (5, 5), (1000, 7), (1, 1)])
def test_blocks_hold_every_slot_once(total, parts):
    made = blocks(total, parts)
    assert [slot for block in made for slot in block.slots] == list(range(total))
    assert max(block.count for block in made) - min(block.count for block in made) <= 1


def test_each_slot_draws_from_a_stream_of_its_own_wherever_it_stands():
    together, alone = SlotDraws(stream(3, "action"), range(4)), SlotDraws(stream(3, "action"), [2])
    for kind in ("random", "standard_normal", "standard_exponential"):
        for dtype in (np.float32, np.float64):
            of_all = getattr(together, kind)((6, 4, 3), dtype=dtype)
            assert of_all.shape == (6, 4, 3)
            assert of_all.dtype == dtype
            assert_array_equal(of_all[:, 2], getattr(alone, kind)((6, 1, 3), dtype=dtype)[:, 0])
            assert len(np.unique(of_all)) == of_all.size


def test_a_distribution_may_draw_any_numbers_that_a_generator_has():
    together, alone = SlotDraws(stream(3, "action"), range(4)), SlotDraws(stream(3, "action"), [2])
    ask = (("normal", (0.0, 9.0)), ("integers", (10,)), ("gumbel", ()))
    for kind, arguments in ask:
        of_all = getattr(together, kind)(*arguments, size=(6, 4, 3))
        assert_array_equal(of_all[:, 2:3], getattr(alone, kind)(*arguments, (6, 1, 3)))
    with pytest.raises(AttributeError):
        together.no_such_numbers((6, 4, 3))


def test_numbers_of_whole_episodes_do_not_depend_on_how_long_other_slots_played():
    draws, others = (SlotDraws(stream(3, "action"), range(2)) for _ in range(2))
    for each, blocks_drawn in ((draws, 1), (others, 4)):
        each.begin(True)
        for _ in range(blocks_drawn):
            each.random((5, 2))
        each.begin(True)
    assert_array_equal(draws.random((5, 2)), others.random((5, 2)))
    again = SlotDraws(stream(3, "action"), range(2))
    again.restore(draws.state())
    for each in (draws, again):
        each.begin(True)
    assert_array_equal(draws.random((5, 2)), again.random((5, 2)))


def test_draws_continue_from_their_state():
    draws, again = (SlotDraws(stream(0, "action"), range(3)) for _ in range(2))
    draws.random((7, 3), dtype=np.float32)  # an odd number of 32-bit words
    again.restore(draws.state())
    assert_array_equal(draws.standard_normal((4, 3)), again.standard_normal((4, 3)))


def test_a_state_of_before_goes_on_with_one_generator_for_all_slots():
    before = np.random.Generator(np.random.PCG64(9))
    before.random(5)
    collector = GymCollector("CartPole-v1", num_envs=3, num_steps=8, vectorization_mode="sync")
    state = {**collector.state(), "actions": before.bit_generator.state}
    collector.restore(state)
    collector.collect(RandomPolicy())
    after = collector.state()["actions"]
    assert after["bit_generator"] == "PCG64"
    assert after["state"]["inc"] == state["actions"]["state"]["inc"]
    assert after["state"]["state"] != state["actions"]["state"]["state"]
