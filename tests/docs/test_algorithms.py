"""The table of all algorithms: it is what the code says, line by line, and no agent or output is missing."""

import re
from pathlib import Path

import algorithms
import pytest
from gymnasium import spaces

from rlgrad.agents import A2C, PPO, Reinforce
from rlgrad.config import agent_class
from rlgrad.learning.contract import batch_signature, dry_run
from rlgrad.policies.build import specs_for

ROOT = Path(__file__).resolve().parents[2]
LINKS = re.findall(r"\]\(\.\./([^)]+)#L(\d+)\)", algorithms.PAGE.read_text())


def test_the_table_is_what_the_code_says():
    page = algorithms.PAGE.read_text()
    assert algorithms.written(page) == page, "python docs/site/algorithms.py writes it anew"


def test_every_agent_that_ships_has_a_row():
    assert sorted(algorithms.CREDITS) == algorithms.shipped()
    assert all((ROOT / "docs" / "agents" / f"{name}.md").exists() for name in algorithms.CREDITS)


@pytest.mark.parametrize("name", algorithms.CREDITS)
def test_the_outputs_of_a_row_are_those_that_its_agent_credits(name):
    """With every part that can be left out."""
    cls = agent_class(name)
    entropy = {"entropy_coefficient": 0.1}
    changes = {Reinforce: {"baseline": "value", **entropy}, A2C: entropy, PPO: entropy}
    agent = cls(**changes.get(cls, {}))
    outputs = algorithms.outputs_of(name)
    of_box = outputs is algorithms.OF_CRITICS or outputs is algorithms.OF_DATA
    specs = specs_for(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)) if of_box else spaces.Discrete(4))
    kind = {"event": (2,)} if of_box else {"num_actions": 4}
    traced = dry_run(agent, batch_signature(*specs, replay=agent.replay is not None), **kind)
    shown = {out for out in outputs if said(cls, out)}
    assert {*traced.credited} == shown


def said(cls, output):
    """The table has a cell for this output of an agent: its own, or that of the agent that it is a kind of."""
    return algorithms._credit(cls, output) != "–"


def test_links_lead_to_lines_that_are_there():
    assert len(LINKS) > 4 * len(algorithms.CREDITS)
    for file, line in LINKS:
        text = (ROOT / file).read_text().splitlines()[int(line) - 1]
        assert text.strip(), (file, line)
        assert text.startswith("    "), (file, line, text)


def test_a_line_that_is_gone_is_an_error():
    file = ROOT / "agents" / "dqn.py"
    for pattern in ("no such line", "import"):
        with pytest.raises(ValueError, match=r"say in .* what stands there now"):
            algorithms._line(file, pattern)
