"""The options of an agent with a replay: schedules by hand, and values that mean nothing refused."""

import numpy as np
import pytest
import tensorflow as tf

from rlgrad.replay import Exploration, Linear, Replay, Target


def test_a_linear_number_reaches_its_end_and_stays_there_for_floats_and_tensors():
    line = Linear(start=1.0, end=0.2, over=0.5)
    by_hand = {0.0: 1.0, 0.125: 0.8, 0.25: 0.6, 0.5: 0.2, 0.75: 0.2, 1.0: 0.2}
    for progress, value in by_hand.items():
        assert line.at(progress) == pytest.approx(value)
        assert line.at(np.float32(progress)) == pytest.approx(value)
    np.testing.assert_allclose(line.at(tf.constant(list(by_hand))), list(by_hand.values()), rtol=1e-6)


def test_exploration_is_a_number_or_follows_a_schedule():
    exploration = Exploration(random=Linear(start=1.0, end=0.0, over=0.1), noise=0.3)
    assert exploration.share(0.05) == pytest.approx(0.5)
    assert exploration.deviation(tf.constant(0.05)) == 0.3
    assert (Exploration().share(0.5), Exploration().deviation(0.5)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (Replay, {"capacity": 0}, "capacity is at least 1, got 0"),
        (Replay, {"capacity": 2**31}, "capacity is at most 1,073,741,824"),
        (Replay, {"batch_size": 0}, "batch_size is at least 1"),
        (Replay, {"warmup": -1}, "warmup is at least 0"),
        (Replay, {"warmup": 20, "capacity": 10}, "warmup is at most capacity, 10"),
        (Replay, {"updates_per_step": 0.0}, "updates_per_step is above 0"),
        (Replay, {"updates_per_step": float("nan")}, "updates_per_step is above 0"),
        (Replay, {"n_steps": 0}, "n_steps is at least 1"),
        (Replay, {"priority_exponent": 1.5}, "priority_exponent is between 0 and 1"),
        (Replay, {"importance_exponent": -0.1}, "importance_exponent is between 0 and 1"),
        (Target, {"rate": 0.0}, "rate is above 0, at most 1"),
        (Target, {"every": 0}, "every is at least 1"),
        (Linear, {"over": 0.0}, "over is above 0, at most 1"),
        (Linear, {"end": float("inf")}, "end is a finite number"),
        (Exploration, {"random": 1.5}, "random is between 0 and 1"),
        (Exploration, {"random": Linear(start=2.0)}, "random is between 0 and 1, got 2.0"),
        (Exploration, {"noise": Linear(end=-1.0)}, "noise is a number ≥ 0, got -1.0"),
    ],
)
def test_values_that_mean_nothing_are_refused(cls, values, message):
    with pytest.raises(ValueError, match=message):
        cls(**values)
