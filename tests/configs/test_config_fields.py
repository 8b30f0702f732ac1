"""One record of settings: the signature and docstring of `rlgrad.train`, the options and YAML are all made from its fields."""

import dataclasses
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from typing import get_args, get_origin, get_type_hints

import pytest
import yaml

import rlgrad
import rlgrad.agents
from rlgrad.agents import NPG, PPO
from rlgrad.cli import options
from rlgrad.cli.commands import train
from rlgrad.config import Config, from_mapping, to_yaml
from rlgrad.core.settings import descriptions, hints
from rlgrad.updates import Ascent, NaturalGradient, PerHead

FIELDS = {field.name: field for field in dataclasses.fields(Config)}
SIGNATURE = inspect.signature(rlgrad.train).parameters
ONLY_IN_PYTHON = {"model", "value_model", "critic_model", "optimizer", "callbacks", "verbose"}
BESIDE = {field.name for field in dataclasses.fields(options.Beside)}
BASE = {"env": "CartPole-v1", "total_timesteps": 100}


def test_train_takes_every_field_of_the_config_and_what_no_file_can_hold():
    assert SIGNATURE.keys() == FIELDS.keys() | ONLY_IN_PYTHON | BESIDE


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - {"agent", "env"}))
def test_an_argument_of_train_has_the_default_the_type_and_the_text_of_its_field(name):
    field, argument = FIELDS[name], SIGNATURE[name]
    made = field.default_factory is not dataclasses.MISSING  # anew for each config, so the signature says None
    needed = (
        field.default is dataclasses.MISSING and not made
    )  # the signature says None: a config that ships may have it
    assert argument.default == (None if made or needed else field.default)

    kind, taken = hints(Config)[name], get_type_hints(rlgrad.train)[name]
    kind = kind | None if needed else kind
    if get_origin(kind) is tuple:
        assert taken == Sequence[get_args(kind)[0]]
    elif get_origin(kind) is Mapping:
        assert taken == kind | None
    else:
        assert taken == kind

    (text,) = re.findall(
        rf"^    {name}: (.*?)(?=^    \w+: |^\w+:)", inspect.getdoc(rlgrad.train) + "\nEnd:", re.M | re.S
    )
    assert " ".join(text.split()) == " ".join(descriptions(Config)[name].split())


def test_every_field_is_an_option_with_its_text_and_its_default_and_is_completed(capsys):
    with pytest.raises(SystemExit):
        options.parse({"agent": {"name": "ppo"}, "patience": 7, "num_envs": 3}, ["--help"], prog="test")
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    completed = {text for action in train.parser()._actions for text in action.option_strings}
    for name in {*FIELDS, *BESIDE} - {"agent", "env", "from_logits"}:
        option = f"--{name.replace('_', '-')}"
        assert f" {option} " in shown
        assert option in completed
        texts = descriptions(Config) | descriptions(options.Beside)
        assert "".join(texts[name].split()) in "".join(shown.split()), name
    assert "--from-logits" not in shown
    for default in ("(default: 100000)", "(default: 7)", "(default: 3)", "(default: csv tensorboard)"):
        assert default in shown


def test_options_win_over_settings_and_settings_over_defaults():
    settings = BASE | {
        "agent": {"name": "ppo", "gamma": 0.5, "num_envs": 2},
        "seed": 4,
        "env_kwargs": {"a": [1], "b": 2},
    }
    words = ["--agent.gae-lambda", "0.7", "--num-steps", "16", "--seed", "5", "--env-kwargs", "b", "3", "--histograms"]
    config, run_dir = options.parse(settings, [*words, "--run-dir", "r"], prog="test")
    assert config.agent == PPO(gamma=0.5, gae_lambda=0.7, num_envs=2, num_steps=16)
    assert (config.seed, config.total_timesteps, config.histograms, str(run_dir)) == (5, 100, True, "r")
    assert config.env_kwargs == {"a": [1], "b": 3}
    others = {name: getattr(config, name) for name in ("agent", "seed", "histograms", "env_kwargs")}
    assert config == dataclasses.replace(from_mapping(settings), **others)


@pytest.mark.parametrize("flag", [name for name, hint in options.option_types().items() if hint is bool])
def test_a_flag_alone_means_true(flag):
    option, settings = f"--{flag.replace('_', '-')}", BASE | {"agent": {"name": "ppo"}, "workers": 2}
    for words, value in (([option], True), ([option, "--seed", "1"], True), ([option, "False"], False), ([], False)):
        assert getattr(options.parse(settings, words, prog="test")[0], flag) is value


def test_an_update_of_another_type_begins_with_its_own_defaults_and_one_of_the_same_keeps_its_fields():
    kept = {"name": "npg", "update": {"type": "per_head", "policy": {"damping": 0.2}}}
    same, _ = options.parse(BASE | {"agent": kept}, ["--agent.update.type", "per_head"], prog="test")
    assert same.agent == NPG(update=PerHead(policy=NaturalGradient(damping=0.2), value=NPG().update.value))
    other, _ = options.parse(BASE | {"agent": kept}, ["--agent.update.type=ascent"], prog="test")
    assert other.agent == NPG(update=Ascent())
    assert kept["update"] == {"type": "per_head", "policy": {"damping": 0.2}}


def test_what_a_file_leaves_out_is_the_agents_own():
    agent = {"name": "npg", "update": {"value": {"num_epochs": 3}}}
    assert from_mapping(BASE | {"agent": agent}).agent.update == PerHead(
        policy=NPG().update.policy, value=dataclasses.replace(NPG().update.value, num_epochs=3)
    )
    own = {"class_name": "SGD", "config": {"learning_rate": 0.25}}
    update = from_mapping(BASE | {"agent": {"name": "ppo", "update": {"optimizer": own}}}).agent.update
    assert update.learning_rate is None
    assert float(update.optimizer.learning_rate) == 0.25


def test_numbers_as_text_and_lists_become_what_the_fields_declare():
    settings = BASE | {"agent": {"name": "ppo", "gamma": "9e-1"}, "hidden_sizes": [8, "4"], "time_budget": "1e2"}
    config = from_mapping(settings)
    assert (config.agent.gamma, config.hidden_sizes, config.time_budget) == (0.9, (8, 4), 100.0)
    assert from_mapping(yaml.safe_load(to_yaml(config, {}))) == config


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"seed": "x"}, "seed is an integer, got 'x'"),
        ({"memory": 3}, "memory is one of gru, lstm or null, got 3"),
        ({"env_kwargs": "much"}, "env_kwargs is a mapping of names to values, got 'much'"),
        ({"agent": {"name": "ppo", "update": 3}}, "agent.update is a mapping of names to values, got 3"),
        ({"agent": {"name": "ppo", "update": {"num_epochs": 0.5}}}, "agent.update.num_epochs is an integer, got 0.5"),
        ({"env": 3}, "env is a string, got 3"),
        ({"wrapers": []}, "Unknown setting 'wrapers'. Did you mean 'wrappers' or 'workers' or 'learners'?"),
        ({"agent": {"gamma": 1.0}}, "agent has a name"),
    ],
)
def test_a_wrong_setting_is_named(changed, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        from_mapping(BASE | {"agent": {"name": "ppo"}} | changed)


@pytest.mark.parametrize("missing", ["agent", "env", "total_timesteps"])
def test_a_missing_setting_is_named(missing):
    settings = BASE | {"agent": {"name": "ppo"}}
    del settings[missing]
    with pytest.raises(ValueError, match=f"The setting '{missing}' is missing"):
        from_mapping(settings)


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if isinstance(field.default, tuple)])
def test_a_text_is_not_taken_for_a_list_of_its_letters(name):
    with pytest.raises(ValueError, match=f"{name} is a sequence, got 'csv'"):
        Config(agent=PPO(), **BASE, **{name: "csv"})


@pytest.fixture
def no_agents(monkeypatch):
    """No agent is imported; afterwards those are that were, and those that were not are not."""
    monkeypatch.setattr(rlgrad, "agents", rlgrad.agents)
    for name in [name for name in sys.modules if name.startswith("rlgrad.agents")]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.startswith("rlgrad.agents")]:
        del sys.modules[name]


@pytest.mark.usefixtures("no_agents")
def test_an_agent_that_is_not_asked_for_is_not_imported():
    from_mapping(BASE | {"agent": {"name": "ppo"}})
    assert {name for name in sys.modules if name.startswith("rlgrad.agents.")} == {"rlgrad.agents.ppo"}
    learned = {"A2C", "IMPALA", "NPG", "PPO", "TRPO", "Reinforce"}
    valued = {"C51", "DDPG", "DQN", "PQN", "QRDQN", "REDQ", "SAC", "TD3", "TQC", "CrossQ", "DiscreteSAC", "DroQ"}
    streams, data = {"StreamAC", "StreamQ", "StreamSARSA"}, {"AWAC", "BC", "IQL"}
    assert learned | valued | streams | data == {*rlgrad.agents.__all__}
    assert {getattr(rlgrad.agents, name).__name__ for name in rlgrad.agents.__all__} <= {*dir(rlgrad.agents)}
    with pytest.raises(AttributeError, match="no attribute 'Rainbow'"):
        _ = rlgrad.agents.Rainbow


def test_from_logits_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="from_logits=False declares that a model ends"):
        rlgrad.train("ppo", "CartPole-v1", total_timesteps=100, from_logits=False, run_dir=tmp_path / "r")
    assert not (tmp_path / "r").exists()
