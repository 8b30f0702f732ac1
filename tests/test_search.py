"""Search spaces: what agents declare, and how dotted names reach into a config."""

import pytest

import rlgrad
from rlgrad.agents import A2C, NPG, PPO, TRPO, Reinforce
from rlgrad.config import Config, agent_class
from rlgrad.core import registry
from rlgrad.search import Range, parse_search, value_at, with_values
from rlgrad.tuning.trials import declared
from rlgrad.updates import Ascent, NaturalGradient, PerHead

CONFIG = Config(agent=PPO(update=PerHead(policy=Ascent(num_epochs=2))), env="CartPole-v1", total_timesteps=100)


class Mine(rlgrad.Agent):
    temperature: float = 1.0

    def search_space(self):
        return {**super().search_space(), "temperature": Range(0.1, 10.0, log=True)}


@pytest.mark.parametrize("name", sorted(name for name, at in registry.agents().items() if "rlgrad.agents" in at.value))
def test_every_shipped_agent_declares_fields_of_its_own_and_takes_each_extreme(name):
    agent = agent_class(name)()
    space = agent.search_space()
    assert "gamma" in space
    assert len(space) >= 3
    for field, what in space.items():
        value_at(agent, field)
        for value in (what.low, what.high) if isinstance(what, Range) else what:
            assert value_at(with_values(agent, {field: value}), field) == value


COMMON = {"gamma": [0.9, 0.95, 0.98, 0.99, 0.995, 0.999], "gae_lambda": Range(0.8, 1.0)}
RATE, ENTROPY = Range(1e-5, 1e-1, log=True), Range(1e-5, 1e-1, log=True)


def test_what_tune_searches_by_default():
    policy = Ascent(learning_rate=0.1)
    assert A2C(update=policy).search_space() == COMMON | {
        "update.learning_rate": RATE,
        "num_steps": [5, 8, 16, 32, 64],
        "entropy_coefficient": ENTROPY,
    }
    assert PPO(update=policy).search_space() == COMMON | {
        "update.learning_rate": RATE,
        "num_steps": [64, 128, 256, 512, 1024],
        "update.num_epochs": [2, 5, 10, 20],
        "clip_range": [0.1, 0.2, 0.3],
        "entropy_coefficient": ENTROPY,
    }
    assert Reinforce(update=policy).search_space() == {
        "gamma": COMMON["gamma"],
        "update.learning_rate": RATE,
        "standardize_advantages": [False, True],
        "entropy_coefficient": ENTROPY,
    }
    for agent in (NPG(), TRPO()):
        assert agent.search_space()["num_steps"] == [64, 128, 256, 512]


def test_an_agent_of_ones_own_inherits_a_space_and_may_add_to_it():
    assert set(Mine().search_space()) == {"gamma", "gae_lambda", "update.learning_rate", "temperature"}
    assert "agent.temperature" in declared(Config(agent=Mine(), env="CartPole-v1", total_timesteps=1))


def test_the_space_follows_the_update():
    assert "update.policy.num_epochs" in CONFIG.agent.search_space()
    assert {"update.policy.learning_rate", "update.value.learning_rate"} <= set(CONFIG.agent.search_space())
    assert "update.policy.target_kl" in TRPO().search_space()
    fixed = NPG(update=PerHead(policy=NaturalGradient(target_kl=None, learning_rate=0.1)))
    assert "update.policy.learning_rate" in fixed.search_space()
    assert Ascent(optimizer={"class_name": "Adam", "config": {}}).search_space() == {}


def test_whole_episodes_have_no_number_of_steps():
    for agent in (A2C, PPO, NPG, TRPO):
        assert "num_steps" not in agent(num_steps=None).search_space()
    assert "gae_lambda" not in Reinforce().search_space()


def test_dotted_names_reach_into_records():
    values = {"agent.update.policy.learning_rate": 0.5, "agent.gamma": 0.9, "hidden_sizes": [8, 8], "seed": 3}
    changed = with_values(CONFIG, values)
    assert {name: value_at(changed, name) for name in values} == {**values, "hidden_sizes": (8, 8)}
    assert changed.agent.update.policy.num_epochs == 2
    assert CONFIG.agent.gamma == 0.99


def test_values_of_one_record_are_set_together():
    """Each alone would contradict what is there."""
    agent = Reinforce(num_steps=None, episodes_per_env=1, baseline="none")
    changed = with_values(agent, {"num_steps": 16, "baseline": "value"})
    assert (changed.num_steps, changed.baseline) == (16, "value")


@pytest.mark.parametrize(
    ("name", "meant"), [("agent.gama", "gamma"), ("agent.update.learning_rate", "policy"), ("agent.gamma.x", "none")]
)
def test_a_name_that_does_not_exist_raises_with_what_was_meant(name, meant):
    with pytest.raises(ValueError, match=meant):
        value_at(CONFIG, name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("agent.gamma=0.9:0.999", ("agent.gamma", Range(0.9, 0.999))),
        ("--agent.update.learning-rate=1e-5:1e-1:log", ("agent.update.learning_rate", Range(1e-5, 1e-1, log=True))),
        ("agent.num_steps=5:20", ("agent.num_steps", Range(5, 20))),
        ("agent.num-steps=5,16,none", ("agent.num_steps", [5, 16, "none"])),
        ("agent.gamma=1e-1,.5", ("agent.gamma", [0.1, 0.5])),
        ("shared_trunk=true,false", ("shared_trunk", [True, False])),
        ("hidden_sizes=[64,64],[256,256]", ("hidden_sizes", [[64, 64], [256, 256]])),
        ("agent.gamma", ("agent.gamma", None)),
    ],
)
def test_a_search_is_written_in_one_word(text, expected):
    assert parse_search(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agent.gamma=0.9", "nothing to choose"),
        ("agent.gamma=", "nothing to choose"),
        ("agent.gamma=0.9:b", "is no range"),
        ("agent.gamma=0.9:1:2:3", "is no range"),
        ("agent.gamma=0.9:1:lin", "is no range"),
        ("agent.gamma=0.9:0.8", "goes up"),
        ("agent.gamma=0:1:log", "from above 0"),
        ("agent.gamma=[1,2", "is no list of choices"),
    ],
)
def test_a_search_that_cannot_be_read_raises(text, message):
    with pytest.raises(ValueError, match=message):
        parse_search(text)
