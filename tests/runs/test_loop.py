"""The four pieces of the training loop, by themselves."""

import pytest

import rlgrad
from rlgrad.runs import loop
from rlgrad.runs.loop import Clock, Keeper, Pace


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
