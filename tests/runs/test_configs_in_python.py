"""A config that ships, or one given as an object, trained from Python: what is written replaces its settings, nothing else."""

import dataclasses

import pytest

import rlgrad
from rlgrad.agents import A2C
from rlgrad.runs import train_arguments as arguments

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")
SHORT = {"total_timesteps": 256, "evaluation_episodes": 0, "verbose": False}


def asked(agent, env=None, **written):
    """Return the config that such a call of `rlgrad.train` would train."""
    defaults = {field.name: field.default for field in dataclasses.fields(rlgrad.config.Config)}
    given = defaults | {"env": env, "total_timesteps": None, "env_kwargs": {}} | written
    return arguments.config_of(agent, env, given, frozenset(written))


def test_a_shipped_config_is_an_object_that_trains_as_its_name_does():
    config = rlgrad.config.shipped("cartpole", seed=100)
    assert (config.env, config.seed, config.agent.gamma) == ("CartPole-v1", 100, 0.98)
    by_object, by_name = rlgrad.train(config, **SHORT), rlgrad.train("cartpole", seed=100, **SHORT)
    assert by_object.config == by_name.config
    assert by_object.history["train/entropy"] == by_name.history["train/entropy"]


def test_an_object_that_was_changed_trains_as_it_is():
    config = rlgrad.config.shipped("cartpole", total_timesteps=256, evaluation_episodes=0)
    changed = dataclasses.replace(config, agent=dataclasses.replace(config.agent, gamma=0.9))
    assert rlgrad.train(changed, verbose=False).config == changed


def test_every_written_argument_replaces_a_setting_also_one_that_equals_the_default():
    config = rlgrad.config.shipped("cartpole", hidden_sizes=(8,), evaluation_episodes=3, max_episode_steps=20, seed=101)
    changes = {"hidden_sizes": (64, 64), "evaluation_episodes": 100, "max_episode_steps": None, "seed": 0}
    assert asked(config) == config
    assert {name: getattr(asked(config, **changes), name) for name in changes} == changes
    run = rlgrad.train(config, hidden_sizes=(64, 64), num_steps=8, **SHORT)
    assert (run.config.hidden_sizes, run.config.seed, run.config.agent.num_steps) == ((64, 64), 101, 8)


def test_another_environment_and_the_agent_s_own_options_may_be_given():
    run = rlgrad.train("cartpole", env="Acrobot-v1", num_envs=2, optimizer=None, **SHORT)
    assert (run.config.env, run.config.agent.num_envs) == ("Acrobot-v1", 2)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("cartpol", r"There is no config or agent 'cartpol'. Did you mean 'cartpole'"),
        ("reinforc", r"There is no config or agent 'reinforc'. Did you mean 'reinforce'"),
        ("reinforce", r"needs an environment.*such as 'cartpole'"),
        ("mine.yaml", r"rlgrad train mine.yaml"),
    ],
)
def test_a_word_that_trains_nothing_says_what_was_meant(wrong, says):
    with pytest.raises(ValueError, match=says):
        rlgrad.train(wrong)


def test_an_unknown_config_names_those_that_are_near():
    with pytest.raises(ValueError, match=r"no config 'cartpole_ppo'. Did you mean 'cartpole-ppo'"):
        rlgrad.config.shipped("cartpole_ppo")
    with pytest.raises(ValueError, match="Unknown setting 'sead'"):
        rlgrad.config.shipped("cartpole", sead=3)


def test_an_agent_without_steps_says_so():
    with pytest.raises(ValueError, match="total_timesteps is missing"):
        rlgrad.train(A2C(), "CartPole-v1")
    with pytest.raises(ValueError, match="env is missing"):
        rlgrad.train(A2C(), total_timesteps=100)


def test_a_call_inside_of_a_call_knows_its_own_arguments_alone():
    @arguments.naming_arguments
    def outer(**given):
        return arguments.named(), inner(a=1), arguments.named()

    @arguments.naming_arguments
    def inner(**given):
        return arguments.named()

    assert outer(b=2) == ({"b"}, {"a"}, {"b"})
    assert arguments.named() == frozenset()
