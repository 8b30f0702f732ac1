"""The corridor goes as the book draws it, eager, batched and as a Gymnasium environment."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.utils.env_checker import check_env

import rlgrad
import rlgrad.agents
import rlgrad.envs
from rlgrad.envs import ShortCorridor

LEFT, RIGHT = 0, 1


def test_transitions_are_those_of_the_book():
    state = tf.constant([0, 0, 1, 1, 2, 2])
    following = ShortCorridor().transition(state, tf.constant([LEFT, RIGHT] * 3), None)
    np.testing.assert_array_equal(following, [0, 1, 2, 0, 1, 3])
    np.testing.assert_array_equal(ShortCorridor().terminal(following, None), [False] * 5 + [True])
    np.testing.assert_array_equal(ShortCorridor().reward(state, None, following, None), [-1.0] * 6)


def test_all_states_look_alike():
    assert len(np.unique(ShortCorridor().observation(tf.constant([0, 1, 2, 3]), None))) == 1


def test_it_is_an_ordinary_environment_after_registration():
    gymnasium.register_envs(rlgrad.envs)
    env = gymnasium.make("rlgrad/ShortCorridor-v0")
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=0)
    rewards = [env.step(action)[1:3] for action in (RIGHT, LEFT, RIGHT)]
    assert rewards == [(-1.0, False), (-1.0, False), (-1.0, True)]


@pytest.mark.slow
def test_rlgrad_finds_it_without_registration_and_learns_to_be_undecided(tmp_path):
    update = rlgrad.Ascent(learning_rate=0.05, learning_rate_schedule="linear")
    agent = rlgrad.agents.Reinforce(baseline="leave_one_out", num_envs=16, gamma=1.0, update=update)
    run = rlgrad.train(
        agent,
        "rlgrad/ShortCorridor-v0",
        total_timesteps=12_000,
        hidden_sizes=(),
        run_dir=tmp_path / "a",
        evaluation_episodes=0,
        vectorization_mode="vector_entry_point",
        verbose=False,
    )
    logits = run.policy(np.ones((1, 1), np.float32))["policy"]
    # The value is flat around its maximum, −11.66 at p = 0.586: it is above −12.3 from 0.48 to 0.69.
    assert tf.nn.softmax(logits).numpy()[0, RIGHT] == pytest.approx(0.586, abs=0.1)
