"""Classes in a file of the user's own, `file.py:Name`, and errors that such code raises."""

import dataclasses
import pickle
import queue
import sys
import types
from pathlib import Path

import cloudpickle
import gymnasium
import pytest

import rlgrad
from rlgrad import cli, config
from rlgrad.core import registry

AGENT = """
import rlgrad

class Mine(rlgrad.Agent):
    slope: float = 0.5
    def credit(self, batch, now):
        return {"log_prob": self.slope * batch.advantages}
"""
ENV = """
import gymnasium, numpy as np
PRIZE = 2.5

class Env(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}
    def step(self, action):
        return np.zeros(2, np.float32), PRIZE, False, False, {}
"""


def written(path, source):
    path.write_text(source)
    return path


@pytest.mark.parametrize("name", ["queue.py", "random.py", "tensorflow.py", "rlgrad.py"])
def test_a_file_takes_no_other_modules_place(tmp_path, name):
    before = dict(sys.modules)
    registry.from_file(written(tmp_path / name, "class Env: pass"), "Env")
    changed = [module for module, thing in before.items() if sys.modules.get(module) is not thing]
    assert changed == [], f"modules that are others after {name} was executed"
    assert queue.Queue is sys.modules["queue"].Queue


def test_two_files_of_one_name_are_two_modules(tmp_path):
    first, second = (tmp_path / folder for folder in "ab")
    for number, folder in enumerate((first, second)):
        folder.mkdir()
        written(folder / "mine.py", f"class Mine:\n    number = {number}")
    found = [registry.from_file(folder / "mine.py", "Mine") for folder in (first, second)]
    assert [cls.number for cls in found] == [0, 1]
    assert [sys.modules[cls.__module__].Mine for cls in found] == found, "each class is found in its own module"


def test_an_agent_of_a_file_is_a_dataclass_with_a_name_and_can_be_pickled(tmp_path):
    file = written(tmp_path / "my.agent.py", AGENT)
    agent = config.agent_class(f"{file}:Mine")(slope=0.25)
    assert config.agent_name(agent) == f"{file}:Mine"
    assert dataclasses.replace(agent, slope=1.0).slope == 1.0
    assert pickle.loads(pickle.dumps(agent)) == agent


def test_an_environment_of_a_file_goes_to_a_process_that_has_not_executed_it(tmp_path, monkeypatch):
    """As `spawn` sends it: the name of its module means nothing there."""
    cls = registry.from_file(written(tmp_path / "world.py", ENV), "Env")
    sent = cloudpickle.dumps(cls)
    monkeypatch.delitem(sys.modules, cls.__module__)
    received = cloudpickle.loads(sent)()
    assert isinstance(received, gymnasium.Env)
    assert received.step(0)[1] == 2.5, "the reward, which stands outside of the class"


def test_a_file_that_fails_leaves_no_module(tmp_path):
    file = written(tmp_path / "broken.py", "class Env: pass\nraise RuntimeError('half way')")
    before = set(sys.modules)
    with pytest.raises(RuntimeError, match="half way"):
        registry.from_file(file, "Env")
    assert set(sys.modules) == before
    whole = registry.from_file(written(file, "class Env: pass"), "Env")
    written(file, "1 / 0")
    with pytest.raises(ZeroDivisionError):
        registry.from_file(file, "Env")
    assert sys.modules[whole.__module__].Env is whole, "the class that was read before the file was broken"


@pytest.mark.parametrize("name", ["rlgrad_better_only", "rlgradient", "agents"])
def test_an_error_of_a_users_package_keeps_its_traceback_whatever_the_package_is_called(monkeypatch, name):
    """Installed beside rlgrad, its path begins as rlgrad's own does."""
    module = types.ModuleType(name)
    file = Path(rlgrad.__file__).parents[1] / f"{name}.py"
    exec(compile("def run(arguments):\n    raise ValueError('a mistake of my own')", file, "exec"), vars(module))
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(cli.COMMANDS, "mine", name)
    with pytest.raises(ValueError, match="a mistake of my own"):
        cli.main(["mine"])


def test_an_error_that_rlgrad_raises_for_a_users_package_is_a_sentence(monkeypatch, capsys):
    module = types.ModuleType("rlgrad_better_only")
    module.run = lambda arguments: config.agent_class("reinforc")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.COMMANDS, "mine", module.__name__)
    assert cli.main(["mine"]) == 2
    assert capsys.readouterr().err.startswith("rlgrad: There is no agent 'reinforc'. Did you mean 'reinforce'?")
