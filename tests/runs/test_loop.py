"""The four pieces of the training loop, by themselves."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

import rlgrad
from rlgrad.runs import loop
from rlgrad.runs.loop import Clock, Keeper, Pace, Updater
from rlgrad.runs.standing import Standing


def test_a_run_by_steps_logs_about_250_rows_and_a_fused_one_about_50():
    # 100,000 steps in rollouts of 40: 2,500 updates, so 10 to a row, or 50 where one call makes them all.
    assert Pace.of(100_000, 40, by_steps=True, fused=False).updates_per_row == 10
    assert Pace.of(100_000, 40, by_steps=True, fused=True).updates_per_row == 50
    assert Pace.of(1_000, 40, by_steps=True, fused=False).updates_per_row == 1  # never less than one


def test_with_whole_episodes_a_row_is_complete_when_another_250th_of_the_run_has_passed():
    pace = Pace.of(10_000, 1, by_steps=False, fused=False)
    assert [pace.completes_row(9, *steps) for steps in ((0, 39), (39, 40), (40, 79), (79, 200))] == [
        False,
        True,
        False,
        True,
    ]
    assert pace.completes_row(1, 9_990, 10_005)  # the last of the run
    assert Pace.of(100, 1, by_steps=False, fused=False).completes_row(1, 3, 4)  # a short run has a row for each update
    fused = Pace.of(10_000, 1, by_steps=False, fused=True)
    assert [fused.completes_row(1, *steps) for steps in ((0, 199), (199, 200))] == [False, True]


def test_a_rollout_begins_only_if_all_its_steps_fit():
    pace = Pace.of(100, 40, by_steps=True, fused=False)
    assert pace.has_room(60)
    assert not pace.has_room(61)


def test_a_row_is_complete_with_its_last_update_or_with_the_last_of_the_run():
    pace = Pace(total=1000, needed=100, updates_per_row=3)
    assert [pace.completes_row(n, 200, 300) for n in (1, 2, 3)] == [False, False, True]
    assert pace.completes_row(1, 900, 1000)
    assert not pace.completes_row(1, 800, 900)  # one more rollout fits


@pytest.mark.parametrize(
    ("before", "after", "passes"),
    [(0, 99, False), (99, 100, True), (100, 199, False), (199, 401, True), (900, 1000, True)],
)
def test_a_checkpoint_belongs_to_each_tenth_of_the_run(before, after, passes):
    assert Pace.of(1000, 1, by_steps=True, fused=False).passes_checkpoint(before, after) is passes


@pytest.fixture
def seconds(monkeypatch):
    """A clock to set by hand."""
    now = [100.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    return now


def test_seconds_before_a_resume_count_for_the_budget(seconds):
    clock = Clock(7.0, budget=10.0)
    seconds[0] += 2.5
    assert (clock.read(), clock.since_begin, clock.is_over) == (9.5, 2.5, False)
    seconds[0] += 0.5
    assert (clock.read(), clock.is_over) == (10.0, True)


def test_without_a_budget_time_is_never_over(seconds):
    clock = Clock(0.0, budget=None)
    seconds[0] += 1e9
    clock.read()
    assert not clock.is_over


def test_between_tenths_a_checkpoint_is_written_after_a_minute_without_one(seconds):
    written = []
    keeper = Keeper(
        Pace.of(1000, 1, by_steps=True, fused=False), lambda: written.append("minute"), lambda: written.append("tenth")
    )
    keeper.keep(0, 10)
    seconds[0] += 60.5
    keeper.keep(10, 20)
    keeper.keep(20, 30)  # written just now
    keeper.keep(95, 105)
    seconds[0] += 59.0
    keeper.keep(105, 110)
    assert written == ["minute", "tenth"]


class Played:
    """A collector, a learner and a watch in one: each says what it was asked for. Rollouts have 4 rows, of which 3 count."""

    rehearsal, stream, max_rollout_steps = None, None, 4

    def __init__(self):
        self.asked = []

    def acting(self, progress, timesteps):
        return "policy", progress, timesteps

    def collect(self, policy, actor):
        self.asked.append(("collect", *policy[1:], actor))
        return SimpleNamespace(mask=np.array([1.0, 1.0, 0.0, 1.0]))

    def look(self, rollout, progress, timesteps):
        self.asked.append(("look", progress, timesteps))

    def learn(self, rollout, progress, shuffle, following=None):
        self.asked.append(("learn", progress))
        return {"loss": 1.0}

    def actor(self):
        return f"actor {len(self.asked)}"


def test_an_update_has_the_progress_made_before_it_and_the_last_of_a_row_is_looked_at():
    """Rows of two updates, in a run of 15 steps."""
    played, pace = Played(), Pace(total=15, needed=3, updates_per_row=2)
    updater, timesteps = Updater(played, "policy", played, played, seed=0), 0
    updater.begin(2, None)
    for update in range(5):
        made = updater.advance(pace, update, update % 2, timesteps)
        assert (made.metrics, made.timesteps) == ([{"loss": 1.0}], 3)
        timesteps += made.timesteps
    progress = [0.0, 0.2, 0.4, 0.6, 0.8]
    assert [each[1:3] for each in played.asked if each[0] == "collect"] == list(
        zip(progress, range(0, 15, 3), strict=True)
    )
    assert [each[1] for each in played.asked if each[0] == "learn"] == progress
    assert [each[1:] for each in played.asked if each[0] == "look"] == [(0.2, 3), (0.6, 9), (0.8, 12)]
    actors = [each[3] for each in played.asked if each[0] == "collect"]
    assert actors[0] is None
    assert len(set(actors[1:])) == 4, "the weights of after each update"
    updater.forget_weights()
    updater.advance(pace, 5, 1, 60)
    assert played.asked[-3:] == [("collect", 1.0, 60, None), ("look", 1.0, 60), ("learn", 1.0)], (
        "never more than all of it"
    )


def test_the_best_return_is_kept_over_a_resume_and_an_equal_one_is_not_better():
    metrics, run = ["train/return", "eval/return_greedy"], Standing()
    better = []
    for value in (1.0, 9.0, math.nan, 9.0, 5.0, 10.0, -1.0):
        run.note({"eval/return_greedy": value, "train/return": 100.0})
        better.append(run.improves(metrics))
        again = Standing()
        again.restore(json.loads(json.dumps(run.state())))
        assert again == run
        run = again
    assert better == [True, True, False, False, False, True, False]
    assert run.improves(["train/return"]), "where nothing is evaluated, the return of training decides"
    for count in (-1, 2.0):
        with pytest.raises(TypeError, match="its counts are"):
            Standing().restore(run.state() | {"updates": count})


class Count(rlgrad.Callback):
    """Counts rows from a number on."""

    only_looks = True

    def __init__(self, start):
        self.n = start

    def on_update(self, run, metrics):
        self.n += 1

    def state(self):
        return {"n": self.n}

    def restore(self, state):
        self.n = state["n"]


class Other(Count):
    """Another class between the two."""


def test_each_callback_resumes_with_its_own_state_also_beside_others_of_its_class(tmp_path):
    made = [Count(0), Other(100), Count(1000)]
    options = {"evaluation_episodes": 0, "verbose": False, "logs": ("csv",), "hidden_sizes": (4,), "num_envs": 2}
    run = rlgrad.train("a2c", "CartPole-v1", total_timesteps=256, run_dir=tmp_path / "run", callbacks=made, **options)
    run.close()
    rows = len(run.history["time/timesteps"])
    assert [callback.n for callback in made] == [rows, 100 + rows, 1000 + rows]
    again = [Count(0), Other(0), Count(0)]
    rlgrad.load(tmp_path / "run", callbacks=again, verbose=False).close()
    assert [callback.n for callback in again] == [rows, 100 + rows, 1000 + rows]
