"""When the callbacks that ship look, and when they stop a run: rows written out, without training."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from rlgrad.callbacks import EarlyStop, Evaluate, make_callbacks

RETURN, EVALUATED = "train/return", "eval/return_greedy"


class Rows:
    """A run of which only its rows are seen."""

    def __init__(self, *metrics, episodes=1000):
        self.metrics, self.episodes, self.timesteps, self.stop, self.played = metrics, episodes, 0, False, []

    def evaluate(self, episodes, greedy):
        self.played.append((self.timesteps, episodes, greedy))
        return SimpleNamespace(mean_return=10.0 + greedy, lengths=np.array([3, 6]))


def stopped_at(callback, values, metric=RETURN, start=True, run=None):
    """The number of the row that stops the run, from 1; None where none does."""
    run = run or Rows(metric)
    if start:
        callback.on_start(run)
    for number, value in enumerate(values, start=1):
        callback.on_update(run, {metric: value})
        if run.stop:
            return number
    return None


@pytest.mark.parametrize(
    ("values", "row"),
    [
        ([1.0, 1.0, 1.0, 1.0], 4),  # the first look is the best so far, and three more brought nothing better
        ([3.0, 2.0, 1.0, 3.0], 4),  # as good as the best is not better
        ([1.0, 2.0, 1.0, 1.0, 3.0, 0.0, 0.0, 0.0], 8),
        ([-5.0, -5.0, -4.0, -3.0, -2.0, -1.0], None),
        ([1.0, math.nan, 1.0, math.nan, 1.0, 1.0], 6),  # rows without the metric are no looks
    ],
)
def test_patience_ends_after_so_many_looks_in_a_row_without_a_better_return(values, row):
    assert stopped_at(EarlyStop(patience=3), values) == row


def test_a_threshold_stops_from_that_return_on_by_default_the_return_of_training():
    assert stopped_at(EarlyStop(threshold=5.0), [4.0, 4.9, 5.0, 6.0]) == 3
    assert stopped_at(EarlyStop(threshold=5.0), [4.0, 4.9]) is None


def test_the_return_of_training_is_looked_at_from_the_hundredth_episode_on():
    """It is a mean of 100 episodes, and of fewer before."""
    for episodes, row in ((99, None), (100, 1)):
        run = Rows(RETURN, episodes=episodes)
        assert stopped_at(EarlyStop(threshold=5.0), [9.0], run=run) == row, f"after {episodes} episodes"
    run = Rows(EVALUATED, episodes=0)
    assert stopped_at(EarlyStop(threshold=5.0), [9.0], EVALUATED, run=run) == 1, (
        "evaluations need no episodes of training"
    )


def test_evaluations_are_looked_at_where_there_are_any():
    run, callback = Rows(RETURN, EVALUATED), EarlyStop(threshold=5.0)
    callback.on_start(run)
    callback.on_update(run, {RETURN: 9.0, EVALUATED: 1.0})
    assert not run.stop
    callback.on_update(run, {RETURN: 1.0, EVALUATED: 5.0})
    assert run.stop


def test_a_resumed_run_waits_no_longer_than_one_that_was_not_interrupted():
    before, after = EarlyStop(patience=3), EarlyStop(patience=3)
    assert stopped_at(before, [7.0, 1.0, 1.0]) is None  # two looks of three have passed
    after.restore(json.loads(json.dumps(before.state())))  # as a checkpoint keeps it
    assert stopped_at(after, [6.0, 6.0, 6.0]) == 1, "the best return, 7, and both looks are remembered"


def test_an_evaluation_comes_with_the_first_row_at_or_after_each_multiple_of_its_interval():
    """Rows are 30 steps apart, evaluations 100: at 120, 210, 300, 420, … and not at 120, 240, …"""
    run, callback = Rows(), Evaluate(100, episodes=3)
    for run.timesteps in range(30, 500, 30):
        metrics = {}
        callback.on_update(run, metrics)
        looked = run.timesteps in (120, 210, 300, 420)
        expected = {EVALUATED: 11.0, "eval/return_sampled": 10.0, "eval/length_greedy": 4.5, "eval/length_sampled": 4.5}
        assert metrics == (expected if looked else {}), f"at {run.timesteps} steps"
    assert run.played == [(at, 3, greedy) for at in (120, 210, 300, 420) for greedy in (True, False)]


def test_a_row_that_leaps_over_several_intervals_is_evaluated_once():
    run, callback = Rows(), Evaluate(10)
    for run.timesteps in (35, 39, 40):
        callback.on_update(run, {})
    assert [at for at, _, greedy in run.played if greedy] == [35, 40]
    again = Evaluate(10)
    again.restore(callback.state())
    for run.timesteps in (49, 50):
        again.on_update(run, {})
    assert [at for at, _, greedy in run.played if greedy] == [35, 40, 50]


def test_an_evaluation_that_is_not_possible_is_said_once_and_tried_again_after_twice_as_many_intervals(caplog):
    class Endless(Rows):
        def evaluate(self, episodes, greedy):
            self.played.append((self.timesteps, greedy))
            if self.timesteps < 150:
                raise ValueError("no episode ends")
            return super().evaluate(episodes, greedy)

    run, callback = Endless(), Evaluate(10)
    for run.timesteps in range(10, 190, 10):
        metrics = {}
        callback.on_update(run, metrics)
        assert bool(metrics) == (run.timesteps >= 150), f"at {run.timesteps} steps"
        again = Evaluate(10)
        again.restore(json.loads(json.dumps(callback.state())))
        callback = again  # resumed after each row
    tried = [at for at, *kind in run.played if kind == [True]]
    assert tried == [10, 30, 70, 150, 160, 170, 180]
    assert [record.getMessage() for record in caplog.records] == [
        "Training continues without an evaluation at step 10: no episode ends"
    ]


def test_callbacks_are_made_of_the_settings_that_are_given():
    kinds = lambda **given: [
        type(each).__name__
        for each in make_callbacks(**{"evaluation_interval": None, "stop_at_return": None, "patience": None} | given)
    ]
    assert kinds() == []
    assert kinds(evaluation_interval=5) == ["Evaluate"]
    assert kinds(stop_at_return=1.0) == kinds(patience=2) == ["EarlyStop"]
    assert kinds(evaluation_interval=5, stop_at_return=0.0, patience=1) == ["Evaluate", "EarlyStop"]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda n: EarlyStop(patience=n), "patience"),
        (Evaluate, "interval"),
        (lambda n: Evaluate(5, n), "episodes"),
    ],
)
def test_counts_begin_at_1(make, field):
    make(1)
    with pytest.raises(ValueError, match=f"{field} is at least 1, got 0"):
        make(0)
    with pytest.raises(ValueError, match="a threshold, or a patience"):
        EarlyStop()


def test_what_only_looks_on_says_so():
    """A run reuses its copy of the weights after them."""
    assert Evaluate(1).only_looks
    assert EarlyStop(1.0).only_looks
