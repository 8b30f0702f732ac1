"""An environment that is a `functools.partial` has a name, and is found again where its class is."""

import functools
import json

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv

import rlgrad
from rlgrad.agents import A2C
from rlgrad.cli import main
from rlgrad.config import Config, from_mapping, to_yaml
from rlgrad.core import registry, yaml_documents
from rlgrad.envs.short_corridor import ShortCorridor
from rlgrad.runs.folders import folder_name
from rlgrad.runs.provenance import environment_of

QUICK = {
    "total_timesteps": 64,
    "num_envs": 2,
    "num_steps": 16,
    "hidden_sizes": (4,),
    "verbose": False,
    "logs": ("csv",),
}


class Corridor(ShortCorridor):
    """One that is found in this file."""


def make(size=1, name="", **more):
    return gymnasium.make("CartPole-v1")


def config(env, **settings):
    return Config(agent=A2C(), env=env, total_timesteps=100, **settings)


@pytest.mark.parametrize(
    ("env", "name", "folder"),
    [
        (functools.partial(make, 3, name="x y"), "make(3, name='x y')", "make_3_name_x_y"),
        (functools.partial(gymnasium.make, "CartPole-v1"), "make('CartPole-v1')", "make_CartPole-v1"),
        (functools.partial(functools.partial(make, 3), size=2), "make(3, size=2)", "make_3_size_2"),
        (functools.partial(make, size=object()), "make(size=<object>)", "make_size_object"),
        (functools.partial(make, name=200 * "x"), "make(name=<str>)", "make_name_str"),
        (lambda: make(), "<lambda>", "lambda"),
        ("rlgrad/CartPole-v1", "rlgrad/CartPole-v1", "rlgrad_CartPole-v1"),
    ],
)
def test_a_partial_is_called_by_its_function_and_arguments(env, name, folder):
    assert config(env).env_name == name
    assert folder_name(config(env)) == folder
    if callable(env):
        assert yaml_documents.load(to_yaml(config(env), {}))["env"] == f"({name}, given as an object)"


def test_environments_with_other_arguments_have_other_names():
    names = {config(functools.partial(make, size)).env_name for size in range(3)}
    assert len(names) == 3


def test_a_partial_of_a_class_is_the_class_and_its_arguments():
    made = config(functools.partial(PendulumEnv, g=np.float64(3.0), render_mode=None), env_kwargs={"g": 4.0})
    assert (made.env, made.env_kwargs) == (PendulumEnv, {"g": 4.0, "render_mode": None})
    again = from_mapping(yaml_documents.load(to_yaml(config(functools.partial(PendulumEnv, g=3)), {})))
    assert (again.env, again.env_kwargs) == (registry.place_of(PendulumEnv), {"g": 3})


@pytest.mark.parametrize(
    "env",
    [
        functools.partial(PendulumEnv, "human"),
        functools.partial(PendulumEnv, g=object()),
        functools.partial(make, size=2),
    ],
)
def test_a_partial_that_config_yaml_cannot_hold_stays_one(env):
    assert config(env).env is env


def test_a_run_of_a_partial_goes_on_in_the_shell(tmp_path, capsys):
    rlgrad.train(
        "a2c",
        functools.partial(CartPoleEnv, sutton_barto_reward=True),
        run_dir=tmp_path / "a",
        **QUICK,
        evaluation_episodes=0,
    ).close()
    main(["evaluate", str(tmp_path / "a"), "--episodes", "2", "--max-episode-steps", "30"])
    assert "over 2 fresh episodes" in capsys.readouterr().out
    record = json.loads((tmp_path / "a" / "run.json").read_text())["environment"]
    assert record["kwargs"] == {"sutton_barto_reward": True}


def test_a_partial_of_a_functional_environment_is_compiled(tmp_path):
    run = rlgrad.train("a2c", functools.partial(Corridor), run_dir=tmp_path / "a", **QUICK, evaluation_episodes=0)
    assert run.collector.vectorization_mode == "compiled"
    run.close()


def test_the_record_of_a_run_names_the_function_and_the_arguments():
    found = environment_of(config(functools.partial(make, size=np.float32(2)), env_kwargs={"name": "n"}), "sync")
    assert (found["entry_point"], found["kwargs"]) == (f"{__name__}:make", {"size": "np.float32(2.0)", "name": "n"})
