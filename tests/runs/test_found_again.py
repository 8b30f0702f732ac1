"""Environments that were passed as classes and functions: recorded where another process finds them, or given anew."""

import sys

import pytest
from gymnasium.envs.classic_control import CartPoleEnv

import rlgrad
import rlgrad.agents
from rlgrad.cli import main
from rlgrad.config import Config, to_yaml
from rlgrad.core import registry, yaml_documents
from rlgrad.environments.ids import load_class
from rlgrad.playback.viewer import drawn, play

OWN = """
import gymnasium, numpy as np
from gymnasium import spaces

class Count(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"]}
    observation_space = spaces.Dict(b=spaces.Box(0.0, 9.0, (2,)), a=spaces.Box(0.0, 9.0, (1,)))
    action_space = spaces.Discrete(2)
    def __init__(self, pay=1.0, render_mode=None):
        self.pay, self.render_mode = pay, render_mode
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.seen(), {}
    def step(self, action):
        self.steps += 1
        return self.seen(), self.pay, self.steps == 4, False, {}
    def seen(self):
        return {"b": np.zeros(2, np.float32), "a": np.ones(1, np.float32)}  # not in the order of the names
    def render(self):
        return np.full((8, 8, 3), 20 * self.steps, np.uint8)
    class Inner(gymnasium.Env):
        pass

def make(pay=2.0):
    return Count(pay)

def hidden():
    class Local(Count):
        pass
    return Local

short = lambda: Count()
renamed, Count.Other = Count, Count
"""
SCRIPT = "import gymnasium\nclass Own(gymnasium.Env):\n    pass\n"
QUICK = {
    "total_timesteps": 64,
    "num_envs": 2,
    "num_steps": 16,
    "hidden_sizes": (4,),
    "verbose": False,
    "logs": ("csv",),
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "walking.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    import walking

    yield walking
    del sys.modules["walking"]


def written(env):
    config = Config(agent=rlgrad.agents.A2C(), env=env, total_timesteps=9)
    return yaml_documents.load(to_yaml(config, {}))["env"]


def test_a_class_or_function_is_written_as_the_place_of_its_file(own, tmp_path):
    assert written(own.Count) == f"{tmp_path}/walking.py:Count"
    assert written(own.make) == f"{tmp_path}/walking.py:make"
    assert load_class(written(own.Count)).__name__ == "Count"


def test_what_no_place_leads_to_is_given_as_an_object(own):
    for env in (own.short, own.hidden(), own.Count.Inner, own.Count(), lambda: own.Count()):
        assert registry.place_of(env) is None
        assert written(env).startswith("(")


def test_a_class_of_an_installed_package_is_written_by_its_module():
    place = registry.place_of(CartPoleEnv)
    assert place == "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
    assert load_class(place) is CartPoleEnv


@pytest.mark.parametrize("place", ["gymnasium:make", "rlgrad:train", "gymnasium.wrappers:RecordVideo", "os:system"])
def test_a_module_gives_nothing_but_classes_of_environments(place):
    assert load_class(place) == place


@pytest.mark.parametrize(("guard", "found"), [("if __name__ == '__main__':\n    pass\n", True), ("print()\n", False)])
def test_a_script_is_a_place_if_importing_it_does_not_do_its_work(guard, found, tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + guard)
    cls = registry.from_file(script, "Own")
    monkeypatch.setattr(cls, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "Own", cls, raising=False)
    assert registry.place_of(cls) == (f"{script}:Own" if found else None)


class Stop(rlgrad.Callback):
    def on_start(self, run):
        run.stop = True  # before the first update, so that nothing is compiled


def test_a_run_on_a_class_is_loaded_by_itself_and_one_on_a_lambda_with_env(own, tmp_path, capsys, monkeypatch):
    for name, env in (("named", own.Count), ("unnamed", lambda: own.Count())):
        rlgrad.train("a2c", env, callbacks=Stop(), run_dir=name, **QUICK).close()
    run = rlgrad.load("named", verbose=False)
    assert run.config.env == f"{tmp_path}/walking.py:Count"
    run.close()

    with pytest.raises(ValueError, match="pass it as env="):
        rlgrad.load("unnamed", verbose=False)
    given = []
    monkeypatch.setattr("rlgrad.runs.training.load", lambda path, **options: given.append(options) or 1 / 0)
    for command in ("evaluate", "record", "resume", "inspect", "export"):
        more = ["--format", "keras"] if command == "export" else []
        more += ["--output", "film.gif"] if command == "record" else []
        with pytest.raises(ZeroDivisionError):
            main([command, "unnamed", "--env", "walking.py:Count", *more])
    assert [options["env"] for options in given] == ["walking.py:Count"] * 5


def test_observations_are_seen_in_the_order_of_the_policy_whatever_that_of_their_keys(own, tmp_path):
    policy = rlgrad.make_policy(own.Count.observation_space, own.Count.action_space, hidden_sizes=(4,))
    config = Config(agent=rlgrad.agents.A2C(), env=own.Count, total_timesteps=9, env_kwargs={"pay": 3.0})
    env, pictures = drawn(config, "rgb_array"), []
    try:
        (episode,) = play(policy, env, on_picture=pictures.append)
    finally:
        env.close()
    assert (episode.steps, episode.total) == (4, 12.0)
    assert [int(picture[0, 0, 0]) for picture in pictures] == [0, 20, 40, 60, 80]
