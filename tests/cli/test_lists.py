"""`rlgrad agents` and `envs`."""

import json

from rlgrad.cli import main
from rlgrad.cli.commands.envs import ids
from rlgrad.core import registry


def test_environments_in_tensorflow_say_from_what_return_they_count_as_solved(capsys):
    assert main(["envs", "--json"]) == 0
    thresholds = {env["id"]: env["reward_threshold"] for env in json.loads(capsys.readouterr().out)}
    assert thresholds["rlgrad/CartPole-v1"] == thresholds["CartPole-v1"] == 475.0
    assert thresholds["rlgrad/Breakout-v1"] is None
    for name, point in registry.envs().items():
        assert thresholds[name] == getattr(point.load(), "reward_threshold", None)


def test_of_several_versions_the_newest_is_listed():
    names = ids()
    assert names == sorted(set(names))
    assert {"CartPole-v1", "Hopper-v5", "rlgrad/Pendulum-v1"} <= set(names)
    assert not {"CartPole-v0", "Hopper-v4"} & set(names)


def test_agents_come_with_a_sentence_each(capsys):
    assert main(["agents", "--json"]) == 0
    said = {agent["name"]: agent["says"] for agent in json.loads(capsys.readouterr().out)}
    assert said.keys() == registry.agents().keys()
    assert all(said.values())
