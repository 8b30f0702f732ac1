"""Numbers of one's own in every log: from the infos of environments, and from callbacks."""

import csv
import itertools
import json

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import rlgrad
from rlgrad.agents import Reinforce
from rlgrad.core.faults import OutputFault
from rlgrad.metrics import read_csv

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")
QUICK = {"num_envs": 2, "num_steps": 8, "evaluation_episodes": 0, "verbose": False, "hidden_sizes": (4,)}


class Counting(gymnasium.Env):
    """Episodes of 5 steps. The info of step t = 1 … 5 says t, and at the end whether the episode was a success."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, bad=None):
        self.bad = bad

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.number = 0, getattr(self, "number", 0) + 1
        return np.zeros(1, np.float32), {"distance": 1000.0}  # of no step

    def step(self, action):
        self.t += 1
        info = {"distance": float(self.t), "inner": {"twice": 2 * self.t}}
        if self.bad is not None:
            info["bad"] = self.bad
        if self.t == 5:
            info["is_success"] = self.number % 2 == 0
        return np.zeros(1, np.float32), 1.0, self.t == 5, False, info


def vector(mode):
    return SyncVectorEnv([Counting, Counting], autoreset_mode=mode)


NAMES = ("distance", "is_success", "inner.twice")


@pytest.mark.parametrize(
    ("env", "options"),
    [
        (Counting, {"vectorization_mode": "sync"}),
        (Counting, {"vectorization_mode": "async"}),
        (Counting, {"num_steps": None, "agent": True}),  # whole episodes
        (lambda: vector(AutoresetMode.SAME_STEP), {}),
        (lambda: vector(AutoresetMode.NEXT_STEP), {}),
        (lambda: vector(AutoresetMode.DISABLED), {}),
    ],
)
def test_values_of_infos_are_means_over_the_steps_that_have_them_however_environments_are_stepped(env, options):
    options = dict(options)
    agent = Reinforce() if options.pop("agent", False) else "a2c"
    given = env() if not isinstance(env, type) else env
    if isinstance(given, gymnasium.vector.VectorEnv):
        options["num_envs"] = None
    run = rlgrad.train(agent, given, total_timesteps=160, log_info=NAMES, **QUICK | options)
    rows = run.history
    steps = [1, 2, 3, 4, 5] * 40
    taken = np.diff([0, *rows["time/timesteps"]]) / 2  # of each of two environments, which are in step
    weights = np.cumsum([0, *taken]).astype(int)
    expected = [np.mean(steps[a:b]) for a, b in itertools.pairwise(weights)]
    np.testing.assert_allclose(rows["info/distance"], expected)
    np.testing.assert_allclose(rows["info/inner.twice"], 2 * np.array(expected))
    assert {value for value in rows["info/is_success"] if value == value} <= {0.0, 0.5, 1.0}
    assert read_csv(run.path / "metrics.csv")["info/distance"] == pytest.approx(expected)


def test_a_key_that_no_info_has_is_said_with_the_nearest_once(caplog):
    run = rlgrad.train("a2c", Counting, total_timesteps=64, log_info=("distanse",), **QUICK)
    said = [record.message for record in caplog.records if "log_info" in record.message]
    assert said == ["No info had 'distanse' so far, which log_info asks for. Did you mean 'distance'?"]
    assert np.isnan(run.history["info/distanse"]).all()


@pytest.mark.parametrize(("bad", "what"), [([1.0, 2.0], r"array of shape \(2,\)"), ("far", "far"), (None, None)])
def test_what_is_no_number_is_refused_by_name(bad, what):
    options = QUICK | {"total_timesteps": 32, "env_kwargs": {"bad": bad}, "log_info": ("bad",)}
    if what is None:
        assert np.isnan(rlgrad.train("a2c", Counting, **options).history["info/bad"]).all()
        return
    with pytest.raises(OutputFault, match=rf"log_info has 'bad', whose value in an info is .*{what}"):
        rlgrad.train("a2c", Counting, **options)


def test_environments_without_infos_are_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(ValueError, match="log_info has 'x', and an environment written in TensorFlow gives no infos"):
        rlgrad.train("a2c", "rlgrad/CartPole-v1", total_timesteps=64, log_info=("x",), run_dir=tmp_path / "r", **QUICK)
    assert not (tmp_path / "r").exists()


def test_log_info_is_an_option_and_a_setting():
    from rlgrad.cli.commands.train import parse_command
    from rlgrad.config import from_mapping, to_yaml
    from rlgrad.core import yaml_documents

    config, _ = parse_command(["a2c", "CartPole-v1", "--log-info", "distance", "inner.twice"])
    assert config.log_info == ("distance", "inner.twice")
    assert from_mapping(yaml_documents.load(to_yaml(config, {}))) == config


class Levels(rlgrad.Callback):
    """Logs a number three times a row, another one from the third row on, and what it was given of a row."""

    def __init__(self, late=2):
        self.rows, self.late = 0, late

    def on_update(self, run, metrics):
        self.rows += 1
        for value in (1.0, 2.0, self.rows * 3.0):
            self.log("mine/level", value)
        if self.rows > self.late:
            self.log("mine/late", np.float32(self.rows))

    def state(self):
        return {"rows": self.rows}

    def restore(self, state):
        self.rows = state["rows"]


def test_numbers_of_callbacks_are_in_every_log_also_names_that_come_late(tmp_path):
    logs = ("csv", "jsonl", "tensorboard")
    run = rlgrad.train("a2c", Counting, total_timesteps=80, callbacks=Levels(), logs=logs, **QUICK)
    level, late = [(3.0 + 3.0 * row) / 3 for row in (1, 2, 3, 4, 5)], [np.nan, np.nan, 3.0, 4.0, 5.0]
    np.testing.assert_allclose(run.history["mine/level"], level)
    np.testing.assert_allclose(run.history["mine/late"], late)
    columns = read_csv(run.path / "metrics.csv")
    np.testing.assert_allclose(columns["mine/level"], level)
    np.testing.assert_allclose(columns["mine/late"], late)
    assert columns.keys() == {*run.metrics} == run.history.keys()
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").open()]
    assert [line.get("mine/late") for line in lines] == [None, None, 3.0, 4.0, 5.0]

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path), size_guidance={"tensors": 0}).Reload()
    assert [event.tensor_proto.float_val[0] for event in events.Tensors("mine/late")] == [3.0, 4.0, 5.0]


def test_a_resumed_run_goes_on_with_its_columns_and_sums():
    whole = rlgrad.train(
        "a2c", Counting, total_timesteps=1600, callbacks=Levels(), log_info=NAMES, run_dir="whole", **QUICK
    )
    half = rlgrad.train(
        "a2c", Counting, total_timesteps=800, callbacks=Levels(), log_info=NAMES, run_dir="half", **QUICK
    )
    again = rlgrad.load("half", callbacks=Levels(), verbose=False)
    assert "mine/late" in again.metrics
    assert again.history["mine/late"] == pytest.approx(half.history["mine/late"], nan_ok=True)
    again.train(1600)
    with open("half/metrics.csv") as file:
        assert len({len(row) for row in csv.reader(file)}) == 1
    for name in ("info/distance", "info/is_success"):  # rows are as far apart in both
        assert read_csv(again.path / "metrics.csv")[name][-1] == pytest.approx(whole.history[name][-1])


def test_a_row_that_a_checkpoint_cuts_has_the_infos_of_both_parts():
    """A row of several updates, and a checkpoint in the middle of it."""
    from rlgrad.metrics import Journal

    journal = Journal(("train/return", "info/x"))
    journal.note([{"a": 1.0}], [], {"x": (3.0, 2)})
    other = Journal(("train/return", "info/x"))
    other.restore(json.loads(json.dumps(journal.state())), {})
    other.note([{"a": 1.0}], [], {"x": (7.0, 2), "y": (0.0, 0)})
    row = other.row()
    assert row["info/x"] == 2.5
    assert np.isnan(row["info/y"])


@pytest.mark.parametrize(
    ("name", "value", "error", "says"),
    [
        ("train/return", 1.0, ValueError, "the run logs a metric of this name itself"),
        ("mine", "far", TypeError, "takes one number, got 'far'"),
        ("mine", [1.0, 2.0], TypeError, "takes one number"),
        ("", 1.0, TypeError, "printable text"),
        ("a\nb", 1.0, TypeError, "printable text"),
        (3, 1.0, TypeError, "printable text"),
    ],
)
def test_what_cannot_be_logged_is_refused(name, value, error, says):
    class Wrong(rlgrad.Callback):
        def on_update(self, run, metrics):
            self.log(name, value)

    with pytest.raises(error, match=says):
        rlgrad.train("a2c", Counting, total_timesteps=32, callbacks=Wrong(), **QUICK)
