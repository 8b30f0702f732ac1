"""Returns and lengths of finished episodes, against a loop over steps and slots."""

import numpy as np
import pytest

from rlgrad.data import Episode
from rlgrad.rollouts.episodes import RunningEpisodes, whole_episodes


def by_loop(rollouts, slots):
    """The episodes of each rollout, step by step; and what is left of each slot's."""
    returns, lengths, found = np.zeros(slots), np.zeros(slots, int), []
    for rewards, terminations, ends, mask in rollouts:
        finished = []
        for t in range(len(rewards)):
            returns, lengths = returns + rewards[t], lengths + mask[t]
            for n in np.flatnonzero(ends[t]):
                finished.append(Episode(returns[n], lengths[n], terminations[t, n]))
                returns[n], lengths[n] = 0.0, 0
        found.append(finished)
    return found, returns, lengths


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("slots", [1, 3])
def test_episodes_that_go_on_from_rollout_to_rollout(share, slots):
    rng, rollouts = np.random.default_rng(int(10 * share) + slots), []
    for steps in (4, 1, 6, 5):
        mask = rng.random((steps, slots)) < 0.8
        rewards = np.where(mask, rng.integers(-4, 5, (steps, slots)) / 4.0, 0.0)  # whose sums are exact
        ends = mask & (rng.random((steps, slots)) < share)
        rollouts.append((rewards, ends & (rng.random((steps, slots)) < 0.5), ends, mask))
    expected, returns, lengths = by_loop(rollouts, slots)
    running = RunningEpisodes(slots)
    for number, (rollout, finished) in enumerate(zip(rollouts, expected, strict=True)):
        assert running.advance(*rollout) == finished, f"episodes of rollout {number}"
    np.testing.assert_array_equal(running.returns, returns, err_msg="returns of unfinished episodes")
    np.testing.assert_array_equal(running.lengths, lengths, err_msg="lengths of unfinished episodes")


def test_whole_episodes_are_columns():
    rewards = np.array([[1.0, -2.0], [0.5, 3.0], [0.0, 4.0]])
    terminations = np.array([[False, False], [True, False], [False, False]])
    mask = np.array([[True, True], [True, True], [False, True]])
    assert whole_episodes(rewards, terminations, mask) == [Episode(1.5, 2, True), Episode(5.0, 3, False)]
