"""Search spaces: what agents declare, and how dotted names reach into a config."""

import pytest

import rlgrad
from rlgrad.agents import A2C, NPG, PPO, TRPO, Reinforce
from rlgrad.config import Config, agent_class
from rlgrad.core import registry
from rlgrad.search import Range, parse_search, value_at, with_values
from rlgrad.tuning.trials import declared
from rlgrad.updates import Ascent, NaturalGradient, PerHead, Traces

CONFIG = Config(agent=PPO(update=PerHead(policy=Ascent(num_epochs=2))), env="CartPole-v1", total_timesteps=100)


class Mine(rlgrad.Agent):
    temperature: float = 1.0

    def search_space(self):
        return {**super().search_space(), "temperature": Range(0.1, 10.0, log=True)}


SHIPPED = sorted(name for name, at in registry.agents().items() if "rlgrad.agents" in at.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_agent_declares_fields_of_its_own_and_takes_each_extreme(name):
    agent = agent_class(name)()
    space = agent.search_space()
    assert "gamma" in space
    assert len(space) >= 3
    for field, what in space.items():
        value_at(agent, field)
        for value in (what.low, what.high) if isinstance(what, Range) else what:
            assert value_at(with_values(agent, {field: value}), field) == value


GAMMA = {"gamma": [0.9, 0.95, 0.98, 0.99, 0.995, 0.999]}
RATE, ENTROPY, DIVERGENCE = Range(1e-5, 1e-1, log=True), Range(1e-5, 1e-1, log=True), Range(1e-3, 1e-1, log=True)
ROLLOUTS = GAMMA | {"gae_lambda": Range(0.8, 1.0)}
BATCHES = GAMMA | {"replay.batch_size": [32, 64, 128, 256]}
PLAYED = BATCHES | {"replay.updates_per_step": [0.125, 0.25, 0.5, 1.0]}
ONE_RATE, TWO_RATES = (
    {"update.learning_rate": RATE},
    {"update.policy.learning_rate": RATE, "update.value.learning_rate": RATE},
)
VALUES = {"target.every": [10, 50, 100, 250, 1000], "replay.n_steps": [1, 3, 5]}
NATURAL = {"update.policy.target_kl": DIVERGENCE, "update.value.learning_rate": RATE, "num_steps": [64, 128, 256, 512]}
TRACE, BOUND = [0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99], Range(1.0, 10.0, log=True)
STREAM = GAMMA | {"scale_rewards": [True, False]}
WEIGHT = {"beta": Range(0.1, 10.0, log=True)}
SEARCHED = {
    "a2c": ROLLOUTS | ONE_RATE | {"num_steps": [5, 8, 16, 32, 64], "entropy_coefficient": ENTROPY},
    "awac": PLAYED | ONE_RATE | WEIGHT,
    "bc": BATCHES | ONE_RATE,
    "c51": PLAYED | ONE_RATE | VALUES,
    "crossq": PLAYED | TWO_RATES,
    "ddpg": PLAYED | TWO_RATES,
    "discrete-sac": PLAYED | ONE_RATE,
    "dqn": PLAYED | ONE_RATE | VALUES,
    "droq": PLAYED | TWO_RATES,
    "impala": ROLLOUTS | ONE_RATE | {"num_steps": [10, 20, 40], "entropy_coefficient": ENTROPY},
    "iql": PLAYED | ONE_RATE | WEIGHT | {"expectile": Range(0.5, 0.95)},
    "npg": ROLLOUTS | NATURAL,
    "ppo": ROLLOUTS
    | ONE_RATE
    | {
        "num_steps": [64, 128, 256, 512, 1024],
        "update.num_epochs": [2, 5, 10, 20],
        "clip_range": [0.1, 0.2, 0.3],
        "entropy_coefficient": ENTROPY,
    },
    "pqn": ROLLOUTS
    | ONE_RATE
    | {"num_steps": [16, 32, 64, 128], "update.num_epochs": [1, 2, 4], "update.num_minibatches": [4, 8, 16]},
    "qr-dqn": PLAYED | ONE_RATE | VALUES,
    "redq": PLAYED | TWO_RATES,
    "reinforce": GAMMA | ONE_RATE | {"standardize_advantages": [False, True], "entropy_coefficient": ENTROPY},
    "sac": PLAYED | ONE_RATE,
    "stream-ac": STREAM
    | {"update.policy.trace_decay": TRACE, "update.policy.kappa": BOUND}
    | {"update.value.trace_decay": TRACE, "update.value.kappa": BOUND}
    | {"entropy_coefficient": Range(1e-4, 1e-1, log=True)},
    "stream-q": STREAM | {"update.trace_decay": TRACE, "update.kappa": BOUND},
    "stream-sarsa": STREAM | {"update.trace_decay": TRACE, "update.kappa": BOUND},
    "td3": PLAYED | TWO_RATES,
    "tqc": PLAYED | ONE_RATE,
    "trpo": ROLLOUTS | NATURAL,
}


@pytest.mark.parametrize("name", SHIPPED)
def test_what_tune_searches_by_default(name):
    assert agent_class(name)().search_space() == SEARCHED[name]


def test_the_ranges_of_an_update_are_those_of_the_rule_that_it_follows():
    assert NaturalGradient(target_kl=None, learning_rate=0.1).search_space() == {"learning_rate": RATE}
    assert Traces(step="adam", learning_rate=1e-3).search_space() == {"trace_decay": TRACE, "learning_rate": RATE}


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
