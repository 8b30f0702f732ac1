"""Training by an agent's name tells of the config that ships for the environment."""

import dataclasses

import pytest
import yaml

import rlgrad
from rlgrad.agents import A2C, PPO
from rlgrad.config import Config, from_mapping
from rlgrad.core import registry
from rlgrad.runs.advice import advice, shipped_configs

RESULTS = registry.config_results()


def config(agent, env="CartPole-v1"):
    return Config(agent=agent, env=env, total_timesteps=1000)


def test_the_config_of_the_same_agent_and_environment_is_named():
    assert shipped_configs(config(A2C())) == ["cartpole-a2c"]
    assert shipped_configs(config(PPO(num_envs=2, num_steps=7), "Acrobot-v1")) == ["acrobot-ppo"]
    reached = f"reaches {RESULTS['cartpole-a2c']['greedy']['mean']:.1f} after 100,000 steps"
    assert advice(config(A2C()), from_python=False).endswith(f"{reached}: rlgrad train cartpole-a2c")
    assert advice(config(A2C()), from_python=True).endswith(f"{reached}: rlgrad.train('cartpole-a2c')")


def test_without_one_of_the_same_agent_the_best_of_others_is_named():
    others = shipped_configs(config(A2C(), "Pendulum-v1"))
    assert others == sorted(others, key=lambda name: -RESULTS[name]["greedy"]["mean"])
    assert (
        set(others) == {name for name, result in RESULTS.items() if result["env"] == "Pendulum-v1"} >= {"pendulum-ppo"}
    )


@pytest.mark.parametrize("env", ["NoSuchEnv-v3", "my_env.py:CartPole-v1", lambda: None])
def test_nothing_is_said_of_other_environments(env):
    assert advice(config(A2C(), env), from_python=True) is None


def test_nothing_is_said_to_whoever_chose_the_numbers():
    assert advice(config(A2C(gamma=0.5)), from_python=True) is None
    assert advice(config(dataclasses.replace(A2C(), update=rlgrad.Ascent())), from_python=True) is None


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_a_config_that_ships_gets_no_advice(name):
    shipped = from_mapping(yaml.safe_load(registry.configs()[name].read_text()))
    assert advice(shipped, from_python=False) is None


def test_it_is_said_before_training_if_anything_is(tmp_path, capsys):
    settings = {"total_timesteps": 40, "num_envs": 2, "hidden_sizes": (4,), "evaluation_episodes": 0, "logs": ("csv",)}
    rlgrad.train("a2c", "CartPole-v1", run_dir=tmp_path / "a", verbose=False, **settings)
    assert capsys.readouterr().out == ""
    rlgrad.train("a2c", "CartPole-v1", run_dir=tmp_path / "b", **settings)
    assert capsys.readouterr().out.startswith(
        "These are the agent's defaults. A config for CartPole-v1 ships, and reaches"
    )
