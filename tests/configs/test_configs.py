"""The configs that ship."""

import pytest
import yaml

from rlgrad import registry
from rlgrad.cli.train import parse
from rlgrad.updates import PerHead


@pytest.mark.parametrize("name", registry.configs())
def test_a_config_says_what_it_is_and_its_settings_exist_and_fit_each_other(name):
    text = registry.configs()[name].read_text()
    assert text.startswith("# ")
    settings = yaml.safe_load(text)
    assert name.replace("-", "").startswith(settings["env"].rpartition("/")[2].rpartition("-v")[0].lower())
    assert name.endswith("-compiled") == settings["env"].startswith("rlgrad/")
    options = parse(settings, [], prog="rlgrad train")
    agent = options.agent
    heads = [agent.update.policy, agent.update.value] if isinstance(agent.update, PerHead) else [agent.update]
    for head in heads:
        assert agent.num_envs * agent.num_steps % getattr(head, "num_minibatches", 1) == 0
