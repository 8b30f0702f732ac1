"""Fields of an agent that are a record or something plainer are read and written in YAML and on the command line."""

import dataclasses

import pytest
import yaml

import rlgrad
from rlgrad.cli import options
from rlgrad.config import from_mapping, to_yaml
from rlgrad.hyperparameters import fields
from rlgrad.replay import Exploration, Linear, Replay, Target

AGENT = '''
import rlgrad
from rlgrad.hyperparameters import fields
from rlgrad.replay import Exploration, Linear, Replay, Target

class Remembers(rlgrad.Agent):
    """An agent with a replay."""

    replay: Replay | None = Replay(capacity=1000, warmup=10)
    """Where batches come from."""
    target: Target | None = None
    """Slow copies."""
    exploration: Exploration = Exploration(random=Linear(start=1.0, end=0.05, over=0.1), noise=0.1)
    """How acting differs."""

    def credit(self, batch, now):
        return {"log_prob": 1.0}
'''


@pytest.fixture
def place(tmp_path):
    (tmp_path / "remembers.py").write_text(AGENT)
    return f"{tmp_path / 'remembers.py'}:Remembers"


@pytest.fixture
def read(place):
    return lambda **agent: from_mapping(settings(place, agent)).agent


@pytest.fixture
def typed(place):
    """The agent that settings and words make."""
    return lambda *words, **agent: options.parse(settings(place, agent), list(words), prog="test")[0].agent


def settings(place, agent):
    return {"env": "CartPole-v1", "total_timesteps": 10, "agent": {"name": place, **agent}}


def test_settings_of_a_record_keep_its_other_values_and_make_one_where_there_was_none(read):
    agent = read(replay={"capacity": "1e4"}, target={"every": 3}, exploration={"random": {"end": 0.2}})
    assert agent.replay == Replay(capacity=10_000, warmup=10)
    assert agent.target == Target(every=3)
    assert agent.exploration == Exploration(random=Linear(start=1.0, end=0.2, over=0.1), noise=0.1)
    agent = read(exploration={"noise": {"start": 0.5, "end": 0.1}})
    assert agent.exploration.noise == Linear(start=0.5, end=0.1)


def test_a_record_may_be_left_out_or_be_a_number_where_its_field_says_so(read):
    agent = read(replay=None, exploration={"random": "1e-1"})
    assert agent.replay is None
    assert agent.exploration.random == 0.1


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        ({"target": 3}, r"agent.target is a Target or null, got 3"),
        ({"exploration": None}, r"agent.exploration is a mapping of names to values, got None"),
        ({"exploration": {"noise": "much"}}, r"agent.exploration.noise is a number or a Linear, got 'much'"),
        ({"target": {"evry": 3}}, r"Unknown option of agent.target \(Target\) 'evry'. Did you mean 'every'\?"),
        ({"replay": {"batch_size": 0.5}}, r"agent.replay.batch_size is an integer, got 0.5"),
        ({"exploration": {"random": {"over": 0}}}, r"over is above 0, at most 1, got 0.0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(read, agent, message):
    with pytest.raises(ValueError, match=message):
        read(**agent)


def test_values_of_another_type_are_refused_in_python_too():
    with pytest.raises(ValueError, match=r"update is an Update, got 3"):
        rlgrad.agents.PPO(update=3)
    with pytest.raises(ValueError, match=r"random is a number or a Linear, got Target"):
        Exploration(random=Target())


@pytest.mark.parametrize("change", [{}, {"replay": None, "target": {"rate": 1.0}, "exploration": {"random": 0.2}}])
def test_config_yaml_gives_the_same_agent_again(place, change):
    config = from_mapping(settings(place, change))
    content = yaml.safe_load(to_yaml(config, {}))
    assert fields(from_mapping(content).agent) == fields(config.agent)  # their classes are loaded twice
    assert content["agent"]["replay"] == (None if change else dataclasses.asdict(config.agent.replay))


def test_words_reach_into_records(typed):
    agent = typed(
        "--agent.replay.batch-size", "64", "--agent.exploration.random.end", "0.2", "--agent.exploration.noise=0"
    )
    assert agent.replay == Replay(capacity=1000, warmup=10, batch_size=64)
    assert agent.exploration == Exploration(random=Linear(start=1.0, end=0.2, over=0.1), noise=0.0)


def test_words_change_what_kind_a_field_is_of(typed):
    agent = typed("--agent.replay", "None", "--agent.target.rate", "0.5", "--agent.exploration.random=0.25")
    assert (agent.replay, agent.target, agent.exploration.random) == (None, Target(rate=0.5), 0.25)
    agent = typed("--agent.exploration.noise.end", "0.2", "--agent.exploration.noise.start=0.4", "--agent.gamma", "0.5")
    assert agent.exploration.noise == Linear(start=0.4, end=0.2)
    assert agent.gamma == 0.5
    agent = typed("--agent.replay.prioritized", "True", replay=None)
    assert agent.replay == Replay(capacity=1000, warmup=10, prioritized=True)  # else as by default
    agent = typed("--agent.exploration.random.end", "0.2", exploration={"random": {"over": 0.5}})
    assert agent.exploration.random == Linear(start=1.0, end=0.2, over=0.5)


def test_words_that_fit_nothing_are_refused(typed, capsys):
    with pytest.raises(ValueError, match="Did you mean 'rate'"):
        typed("--agent.target.rat", "0.5")
    with pytest.raises(ValueError, match="needs a value"):
        typed("--agent.replay")
    with pytest.raises(SystemExit):
        typed("--agent.exploration.random.ende", "0.5")
    assert "--agent.exploration.random.end" in capsys.readouterr().err


def test_help_shows_the_options_that_a_field_has_as_it_is(typed, capsys):
    with pytest.raises(SystemExit):
        typed("--help")
    text = " ".join(capsys.readouterr().out.split())
    for option in ("--agent.exploration.noise FLOAT", "--agent.exploration.random.over FLOAT", "--agent.target {None}"):
        assert option in text
    assert "Standard deviation of Gaussian noise" in text
    assert "Slow copies." in text
