"""Callbacks reach the environments: those of training, of evaluations, and of a run that is resumed."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import rlgrad
from rlgrad.agents import Reinforce
from rlgrad.rollouts.factory import make_collector
from rlgrad.runs.data_recording import record
from rlgrad.runs.env_calls import EnvCall, EnvCalls

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")
QUICK = {"num_envs": 2, "num_steps": 8, "evaluation_episodes": 0, "verbose": False, "hidden_sizes": (4,)}


class Levels(gymnasium.Env):
    """Episodes of 6 steps, each paid as much as the level, which is seen, too."""

    observation_space = spaces.Box(-100.0, 100.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.level, self.calls = 1, 0

    def set_level(self, level, *, plus=0):
        if level < 0:
            raise ValueError("levels begin at 0")
        self.level = level + plus
        self.calls += 1
        return self.calls

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.array([self.level], np.float32), {}

    def step(self, action):
        self.t += 1
        return np.array([self.level], np.float32), float(self.level), self.t == 6, False, {"level": self.level}


class Climb(rlgrad.Callback):
    """Raises the level at every row, and remembers what the environments answered."""

    def __init__(self):
        self.rows, self.answers = 0, []

    def on_update(self, run, metrics):
        self.rows += 1
        self.answers.append(run.call_envs("set_level", self.rows, plus=1))

    def state(self):
        return {"rows": self.rows}

    def restore(self, state):
        self.rows = state["rows"]


@pytest.mark.parametrize(
    ("env", "options"),
    [
        (Levels, {"vectorization_mode": "sync"}),
        (Levels, {"vectorization_mode": "async"}),
        (Levels, {"num_steps": None}),
        (lambda: SyncVectorEnv([Levels] * 2, autoreset_mode=AutoresetMode.SAME_STEP), {}),
        (lambda: SyncVectorEnv([Levels] * 2, autoreset_mode=AutoresetMode.NEXT_STEP), {}),
    ],
)
def test_a_call_reaches_every_environment_of_training_and_of_evaluations(env, options):
    agent = "a2c" if options.get("num_steps", 8) else Reinforce()
    given = env if isinstance(env, type) else env()
    options = options | ({} if isinstance(env, type) else {"num_envs": None})
    climb = Climb()
    run = rlgrad.train(agent, given, total_timesteps=64, callbacks=climb, log_info=("level",), **QUICK | options)
    rows = len(run.history["time/timesteps"])
    assert climb.answers == [[row, row] for row in range(1, rows + 1)]
    assert run.history["info/level"] == [1.0, *range(2, rows + 1)]
    assert run.evaluate(3).returns.tolist() == [6.0 * (rows + 1)] * 3


def test_an_attribute_is_set_everywhere_the_last_value_counts():
    run = rlgrad.train("a2c", Levels, total_timesteps=32, **QUICK)
    for level in (5, 7):
        run.set_env_attr("level", level)
    assert run.evaluate(2).mean_return == 42.0
    assert len(run._env_calls.made) == 1


def test_environments_that_are_one_object_are_reached_too():
    run = rlgrad.train("a2c", "CartPole-v1", total_timesteps=32, **QUICK)
    assert run.collector.vectorization_mode == "vector_entry_point"
    before = run.evaluate(4).returns.tolist()
    run.set_env_attr("gravity", 30.0)
    assert run.evaluate(4).returns.tolist() != before


def test_a_resumed_run_makes_the_calls_again_and_ends_as_if_it_had_not_been_stopped():
    whole = rlgrad.train("a2c", Levels, total_timesteps=480, callbacks=Climb(), run_dir="whole", **QUICK)

    class Stop(Climb):
        def on_update(self, run, metrics):
            super().on_update(run, metrics)
            run.stop = run.timesteps >= 240

    Stop.__name__ = "Climb"
    rlgrad.train("a2c", Levels, total_timesteps=480, callbacks=Stop(), run_dir="half", **QUICK)
    again = rlgrad.load("half", callbacks=Climb(), verbose=False)
    assert again.evaluate(1).returns.tolist() == [6.0 * (again.callbacks[0].rows + 1)]
    again.train(480)
    for a, b in zip(whole.policy.get_weights(), again.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda run: run.call_envs("set_levle", 1), ValueError, "slot 0 .*no 'set_levle'. Did you mean 'set_level'"),
        (lambda run: run.set_env_attr("levle", 1), ValueError, r"Levels has no 'levle'. Did you mean 'level'"),
        (lambda run: run.call_envs("level"), ValueError, "its 'level' is no method: it is set with set_env_attr"),
        (lambda run: run.call_envs("set_level", -1), ValueError, "set_level raised ValueError: levels begin at 0"),
        (lambda run: run.call_envs("set_level", object()), TypeError, "arguments for environments are numbers"),
        (lambda run: run.call_envs("set_level", float("nan")), TypeError, "arguments for environments are numbers"),
    ],
)
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_call_that_cannot_be_made_is_refused_and_the_environments_live_on(call, error, says, mode):
    run = rlgrad.train("a2c", Levels, total_timesteps=16, vectorization_mode=mode, **QUICK)
    with pytest.raises(error, match=says):
        call(run)
    assert run.call_envs("set_level", 3) == [1, 1]
    assert run.evaluate(1).mean_return == 18.0
    run.close()


def test_environments_in_tensorflow_say_why_they_cannot_be_called():
    collector = make_collector("rlgrad/CartPole-v1", num_envs=2, num_steps=4)
    with pytest.raises(ValueError, match="written in TensorFlow is compiled with the values that it had: let"):
        EnvCalls(collector).make(EnvCall("gravity", [3.0], {}, sets=True))
    collector.close()


def test_recorded_episodes_are_of_environments_that_were_called_likewise(tmp_path):
    run = rlgrad.train("a2c", Levels, total_timesteps=16, callbacks=Climb(), vectorization_mode="sync", **QUICK)
    level = run.evaluate(1).mean_return / 6
    assert level > 1
    options = {"episodes": 2, "vectorization_mode": "sync"}
    told = record(tmp_path / "told", run.policy, Levels, calls=run.env_calls, **options)
    untold = record(tmp_path / "untold", run.policy, Levels, **options)
    assert told.returns.tolist() == [6 * level, 6 * level]
    assert untold.returns.tolist() == [6.0, 6.0]
    run.close()
