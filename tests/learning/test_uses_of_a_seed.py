"""What draws from one seed: numbers that tell the uses apart, and the actions that a stream decides ahead."""

from types import SimpleNamespace

import numpy as np
import tensorflow as tf
from helpers.values import policy_for

from rlgrad import random
from rlgrad.agents import StreamSARSA
from rlgrad.learning import asking, hindsight, objective, rollout_rows, stream_memory
from rlgrad.learning.stream_memory import StreamMemory


def test_no_two_uses_of_a_seed_have_one_number():
    """Calls of `now.noise`, epochs and steps are counted from 0 or 1 on, and never get to a million."""
    numbers = [
        objective._OF_ACTION,
        objective._OF_BESIDE,
        asking._OF_LAYERS,
        hindsight._OF_GOALS,
        rollout_rows._OF_ROWS,
        stream_memory._TO_DECIDE,
    ]
    assert len(set(numbers)) == len(numbers)
    assert [number for number in numbers if 0 < number < 10**6 or abs(number) >= 2**31] == []


def test_an_action_is_decided_ahead_where_the_episode_goes_on_and_the_step_counts():
    """Of four streams one rests and one has ended: each draws its next action when it acts."""
    agent = StreamSARSA(num_envs=4)
    policy = policy_for(agent)
    memory = StreamMemory(agent, policy, 4)
    np.testing.assert_array_equal(memory.decided, [-1] * 4)
    batch = SimpleNamespace(
        next_observations=np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32),
        seeds=random.split(tf.constant([1, 2]), 4),
        progress=tf.constant(1.0),
        weights=tf.constant([0.25, 0.0, 0.25, 0.25]),
        ends=tf.constant([0.0, 0.0, 1.0, 0.0]),
    )
    batch._replace = lambda **changes: SimpleNamespace(**{**vars(batch), **changes})
    following = memory.decide(batch).next_actions.numpy()
    assert following.dtype == np.int64
    np.testing.assert_array_equal(memory.decided, np.where([1, 0, 0, 1], following, -1))
