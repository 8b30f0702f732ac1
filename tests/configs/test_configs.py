"""The configs that ship, and what they reached."""

import copy
import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from rlgrad.cli import main
from rlgrad.config import from_mapping, to_yaml
from rlgrad.core import registry
from rlgrad.updates import PerHead


@pytest.mark.parametrize("name", registry.configs())
def test_a_config_says_what_it_is_and_its_settings_exist_and_fit_each_other(name):
    text = registry.configs()[name].read_text()
    assert text.startswith("# ")
    settings = yaml.safe_load(text)
    assert name.replace("-", "").startswith(settings["env"].rpartition("/")[2].rpartition("-v")[0].lower())
    assert name.endswith("-compiled") == settings["env"].startswith("rlgrad/")
    agent = from_mapping(settings).agent
    heads = [agent.update.policy, agent.update.value] if isinstance(agent.update, PerHead) else [agent.update]
    for head in heads:
        assert agent.num_envs * agent.num_steps % getattr(head, "num_minibatches", 1) == 0


@pytest.mark.parametrize("name", registry.configs())
@pytest.mark.parametrize("place", [(), ("agent",), ("agent", "update")])
def test_a_key_that_no_field_has_fails_by_its_name(name, place):
    settings = copy.deepcopy(yaml.safe_load(registry.configs()[name].read_text()))
    inner = settings
    for key in place:
        inner = inner.setdefault(key, {})
    inner["gamme"] = 1.0
    with pytest.raises(ValueError, match="gamme"):
        from_mapping(settings)


@pytest.mark.parametrize("name", registry.configs())
def test_what_a_run_of_a_config_writes_down_is_read_back_the_same(name):
    config = from_mapping(yaml.safe_load(registry.configs()[name].read_text()))
    written = to_yaml(config, {"resolved": {"xla": True}})
    again = from_mapping(yaml.safe_load(written))
    assert to_yaml(again, {"resolved": {"xla": True}}) == written


@pytest.fixture(scope="module")
def learning():
    file = Path(__file__).parents[2] / "benchmarks" / "learning.py"
    spec = importlib.util.spec_from_file_location("learning", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_results_that_ship_are_those_of_the_learning_tables(learning):
    assert registry.config_results() == learning.reached(learning.read(learning.OURS))


def test_every_row_of_the_learning_tables_has_its_config_with_its_settings(learning):
    rows = learning.read(learning.OURS)
    assert {row["config"] for row in rows} <= registry.configs().keys()
    settings = {name: yaml.safe_load(file.read_text()) for name, file in registry.configs().items()}
    for row in rows:
        config = settings[row["config"]]
        expected = (config["agent"]["name"], config["env"], config["total_timesteps"])
        assert (row["agent"], row["env"], row["budget"]) == expected


def test_configs_lists_what_each_reached_and_on_how_many_seeds(capsys):
    assert main(["configs"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    results = registry.config_results()
    for name in registry.configs():
        if name in results:
            mean, seeds = results[name]["greedy"]["mean"], results[name]["seeds"]
            assert f" {mean:.1f} [" in lines[name]
            assert f"]  {len(seeds):>5}  " in lines[name]
        else:
            assert "no results yet" in lines[name]
    assert main(["configs", "--json"]) == 0
    assert {c["name"]: c["results"] for c in json.loads(capsys.readouterr().out) if c["results"]} == results


def test_agents_that_learn_action_values_are_held_against_the_peer_of_the_same_name(learning):
    peers = {
        ("sb3", "ppo", "zoo"): ["ppo"],
        ("sb3", "qr-dqn", "zoo"): ["qr-dqn"],
        ("cleanrl", "pqn", "script"): ["pqn"],
    }
    held = {agent: learning.rivals(agent, "CartPole-v1", peers) for agent in ("a2c", "ppo", "dqn", "qr-dqn", "pqn")}
    assert held == {"a2c": [["ppo"]], "ppo": [["ppo"]], "dqn": [], "qr-dqn": [["qr-dqn"]], "pqn": [["pqn"]]}


def test_every_config_with_results_has_them_on_the_page_of_configs():
    page = (Path(__file__).parents[2] / "docs" / "shipped-configs.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for name, results in registry.config_results().items():
        assert f"| {results['greedy']['mean']:.1f} (" in rows[name]
