"""An update rule of a user's own, in a package outside of the tree: it lacks nothing that a shipped one has."""

import dataclasses
import importlib
import os
import shutil
import signal
import sys
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf
import yaml
from helpers.slow import mostly_slow

import rlgrad
from rlgrad import updates
from rlgrad.agents import A2C, PPO
from rlgrad.callbacks import Callback
from rlgrad.cli.commands.train import parse_command
from rlgrad.config import Config, from_mapping, update_class
from rlgrad.core import registry
from rlgrad.core.settings import read
from rlgrad.learning.learner import Learner
from rlgrad.tuning.studies import Measure
from rlgrad.tuning.trials import tune
from rlgrad.updates import Ascent, NaturalGradient, PerHead, Update

MODULE = '''
"""Heavy-ball momentum: m ← β m + g, θ ← θ + η m."""

from dataclasses import dataclass

import keras
import tensorflow as tf

from rlgrad.search import Range
from rlgrad.updates import NoSlots, Update, all_finite, assign_if, values_after


class HeavyBall(Update):
    """Gradient ascent with momentum."""

    step: float = 0.01
    """η."""
    momentum: float = 0.9
    """β."""

    @property
    def metrics(self):
        return ("speed",)

    def search_space(self):
        return {"step": Range(1e-3, 1e-1, log=True)}

    def build(self, variables, num_envs, by_output):
        slots = [keras.Variable(tf.zeros(v.shape), name="momentum") for v in variables]
        return HeavyBallState(list(variables), slots)

    def apply(self, objective, state, seed):
        gradient, metrics = objective.gradient()
        momenta = [self.momentum * m.value + g for m, g in zip(state.slots, gradient.values(), strict=True)]
        values = values_after(state.variables, momenta, self.step)
        finite = all_finite([*momenta, *values])
        assign_if(finite, [*state.slots, *state.variables], [*momenta, *values])
        speed = tf.sqrt(tf.add_n([tf.reduce_sum(m * m) for m in momenta]))
        return metrics | {"speed": speed, "nonfinite_step": tf.where(finite, -1, 0)}


@dataclass(frozen=True)
class HeavyBallState:
    variables: list
    slots: list


class Signs(Update):
    """Nothing but `apply`."""

    step: float = 1e-3

    def apply(self, objective, state, seed):
        gradient, metrics = objective.gradient()
        values = values_after(state.variables, map(tf.sign, gradient.values()), self.step)
        assign_if(all_finite(values), state.variables, values)
        return metrics | {"nonfinite_step": tf.where(all_finite(values), -1, 0)}
'''
QUICK = {"hidden_sizes": (4,), "evaluation_episodes": 0, "verbose": False, "logs": ("csv",), "env": "CartPole-v1"}
TOTAL = 240


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed distribution that registers `heavy_ball`."""
    site = tmp_path / "site"
    (site / "heavy-1.0.dist-info").mkdir(parents=True)
    (site / "heavy_ball_rule.py").write_text(MODULE)
    (site / "heavy-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: heavy\nVersion: 1.0\n")
    (site / "heavy-1.0.dist-info" / "entry_points.txt").write_text(
        "[rlgrad.updates]\nheavy_ball = heavy_ball_rule:HeavyBall\n"
    )
    monkeypatch.syspath_prepend(str(site))
    yield importlib.import_module("heavy_ball_rule")
    del sys.modules["heavy_ball_rule"]


@pytest.fixture
def file(tmp_path):
    """A file of one's own, not installed."""
    path = tmp_path / "rules" / "my_rules.py"
    path.parent.mkdir()
    path.write_text(MODULE)
    yield path
    sys.modules.pop("my_rules", None)


class Interrupt(Callback):
    """Presses Ctrl-C after half of the steps."""

    def on_update(self, run, metrics):
        if run.timesteps >= TOTAL // 2:
            os.kill(os.getpid(), signal.SIGINT)


def agent(update):
    return A2C(num_envs=2, num_steps=5, update=update)


def train(update, folder, callbacks=()):
    return rlgrad.train(agent(update), total_timesteps=TOTAL, run_dir=folder, callbacks=callbacks, **QUICK)


def state(run):
    return [v.numpy() for v in (*run.policy.variables, *run.learner.state.slots)]


def kinds(package, file):
    """Updates, and what config.yaml calls their classes."""
    own = update_class(f"{file}:HeavyBall")
    return {
        "by its file": (own(step=0.02), {"type": f"{file}:HeavyBall", "step": 0.02}),
        "for both heads": (
            PerHead(policy=package.HeavyBall(), value=own(step=0.1)),
            {"type": "per_head", "policy": {"type": "heavy_ball"}, "value": {"type": f"{file}:HeavyBall", "step": 0.1}},
        ),
    }


def includes(whole, part):
    """Return True if a mapping has everything that another has, at any depth."""
    return all(includes(whole[k], v) if isinstance(v, dict) else whole[k] == v for k, v in part.items())


@mostly_slow("kind", ["by its file", "for both heads"])
def test_it_is_saved_and_a_run_that_was_stopped_resumes_to_the_same_weights_and_slots(kind, package, file, tmp_path):
    update, named = kinds(package, file)[kind]
    whole = train(update, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(update, tmp_path / "stopped", [Interrupt()])
    settings = yaml.safe_load((tmp_path / "stopped" / "config.yaml").read_text())
    assert includes(settings["agent"]["update"], named)
    resumed = rlgrad.load(tmp_path / "stopped", verbose=False)
    assert resumed.timesteps < TOTAL
    assert dataclasses.asdict(resumed.config.agent.update) == dataclasses.asdict(update)
    assert type(resumed.config.agent.update).__name__ == type(update).__name__
    resumed.train()
    for a, b in zip(state(resumed), state(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(np.any(slot.numpy()) for slot in resumed.learner.state.slots)
    assert resumed.history["train/speed"][-1] == whole.history["train/speed"][-1] > 0
    whole.close()
    resumed.close()


def test_what_it_lists_alone_is_tuned(package, tmp_path):
    assert agent(package.HeavyBall()).search_space().keys() >= {"update.step"}
    assert "update.learning_rate" not in agent(package.HeavyBall()).search_space()
    both = PerHead(policy=package.HeavyBall(), value=Ascent())
    assert both.search_space().keys() == {"policy.step", "value.learning_rate"}
    assert "update.num_epochs" not in PPO(update=package.HeavyBall()).search_space()  # it has no such field


@pytest.mark.slow
def test_a_study_of_it_ends_with_a_config_that_names_it(package, tmp_path):
    pytest.importorskip("optuna", reason="rlgrad[tune] is not installed")
    config = Config(agent=agent(package.HeavyBall()), env="CartPole-v1", total_timesteps=20, hidden_sizes=(4,))
    study = tune(config, tmp_path / "study", trials=2, measure=Measure(episodes=1))
    assert "agent.update.step" in study.best.values
    assert all(1e-3 <= trial.values["agent.update.step"] <= 1e-1 for trial in study.trials)
    best = from_mapping(read(study.config))
    assert best.agent.update == package.HeavyBall(step=study.best.values["agent.update.step"])


def test_the_command_line_takes_it_by_name_and_by_place(package, file):
    by_name, _ = parse_command(
        ["a2c", "CartPole-v1", "--agent.update.type", "heavy_ball", "--agent.update.momentum", "0.5"]
    )
    assert by_name.agent.update == package.HeavyBall(momentum=0.5)
    by_place, _ = parse_command(
        ["a2c", "CartPole-v1", "--agent.update.type", f"{file}:Signs", "--agent.update.step", "0.5"]
    )
    assert (type(by_place.agent.update).__name__, by_place.agent.update.step) == ("Signs", 0.5)
    inside, _ = parse_command(
        ["npg", "CartPole-v1", "--agent.update.policy.type", "heavy_ball", "--agent.update.policy.step", "2"]
    )
    assert inside.agent.update.policy == package.HeavyBall(step=2.0)
    assert isinstance(inside.agent.update.value, Ascent)


def test_a_file_that_came_with_a_run_is_not_executed(file, tmp_path):
    run = train(PerHead(policy=update_class(f"{file}:HeavyBall")()), tmp_path / "run")
    run.close()
    shutil.move(file, tmp_path / "run" / "my_rules.py")
    settings = tmp_path / "run" / "config.yaml"
    settings.write_text(settings.read_text().replace(str(file), str(tmp_path / "run" / "my_rules.py")))
    with pytest.raises(ValueError, match=r"would execute the file .*my_rules.py, which came with it"):
        rlgrad.load(tmp_path / "run", verbose=False)


def test_the_script_that_is_running_is_not_executed_once_more(tmp_path, monkeypatch):
    """Else a script that trains with an update of its own, and loads the run, would train again with each load."""
    script = tmp_path / "script.py"
    script.write_text("raise RuntimeError('executed')")
    main = ModuleType("__main__")
    main.__file__ = str(script)
    main.Mine = type("Mine", (Ascent,), {"__module__": "__main__"})
    monkeypatch.setitem(sys.modules, "__main__", main)
    name = registry.name_of("rlgrad.updates", main.Mine)
    assert name == f"{script}:Mine"
    assert update_class(name) is main.Mine
    with pytest.raises(ValueError, match=r"script.py is running, and has not defined 'Main' yet. Did you mean"):
        update_class(f"{script}:Main")


def test_what_is_no_update_is_refused():
    with pytest.raises(ValueError, match=r"is no subclass of rlgrad.updates.Update"):
        update_class("rlgrad.agents:A2C")
    with pytest.raises(ValueError, match=r"There is no update 'ascnt'. Did you mean 'ascent'"):
        update_class("ascnt")
    with pytest.raises(ValueError, match=r"type of an update is one of ascent, .*got 3"):
        update_class(3)
    with pytest.raises(TypeError, match="choose another name"):

        class Typed(Update):
            type: str = "fast"


def test_every_shipped_update_is_an_entry_point_of_its_own_name():
    shipped = {name: point.load() for name, point in registry.installed("rlgrad.updates").items()}
    assert shipped == {
        "ascent": Ascent,
        "natural_gradient": NaturalGradient,
        "per_head": PerHead,
        "traces": updates.Traces,
        "trust_region": updates.TrustRegion,
    }
    for name, cls in shipped.items():
        assert registry.name_of("rlgrad.updates", cls) == name


def small_learner(agent):
    from gymnasium import spaces

    policy = rlgrad.make_policy(spaces.Box(-1, 1, (3,)), spaces.Discrete(2), hidden_sizes=(4,))
    return Learner(agent, policy, num_envs=2, xla=False)


def rollout():
    rng, shape = np.random.default_rng(0), (5, 2)
    seen, ends = rng.normal(size=(*shape, 3)).astype(np.float32), np.zeros(shape, bool)
    ones = np.ones(shape, np.float32)
    return rlgrad.Rollout(seen, np.zeros(shape, int), ones, ends, ends, seen, -ones, ones)


def test_what_apply_returns_is_what_the_update_promises():
    class Silent(Update):
        def apply(self, objective, state, seed):
            return objective.gradient()[1]

    class Talkative(Silent):
        def apply(self, objective, state, seed):
            return super().apply(objective, state, seed) | {"nonfinite_step": -1, "length": 1.0}

    class Clashing(Talkative):
        @property
        def metrics(self):
            return ("entropy",)

    for update, message in [
        (
            Silent(),
            r"Silent.apply returns a dict with the keys entropy, approx_kl, nonfinite_step.*got entropy, approx_kl",
        ),
        (Talkative(), r"Talkative.apply returns a dict .*got .*length"),
    ]:
        with pytest.raises(ValueError, match=message):
            small_learner(agent(update)).learn(rollout(), 0.0, [0, 0])
    with pytest.raises(ValueError, match=r"Clashing.metrics names 'entropy', which is logged already"):
        small_learner(agent(Clashing()))
    with pytest.raises(NotImplementedError, match="needs a method `apply"):
        small_learner(agent(Update())).learn(rollout(), 0.0, [0, 0])


def test_an_ascent_that_steps_twice_sees_the_moved_weights_the_second_time():
    """The learner shares a forward pass with a step, and must not with a subclass that takes another one after it."""

    class Twice(Ascent):
        def apply(self, objective, state, seed):
            super().apply(objective, state, seed)
            return super().apply(objective, state, seed)

    class OneByOne(Ascent):
        def apply(self, objective, state, seed):
            super().apply(objective, state, seed)
            return super().apply(objective.moved(), state, seed)

    assert Ascent().is_one_step
    assert not Twice().is_one_step
    moved = []
    for cls in (Twice, OneByOne):
        learner = small_learner(agent(cls(optimizer="sgd", learning_rate=1.0)))
        learner.learn(rollout(), 0.0, [0, 0])
        moved.append([tf.convert_to_tensor(v.value).numpy() for v in learner.variables])
    for a, b in zip(*moved, strict=True):
        np.testing.assert_array_equal(a, b)


def test_agents_ask_an_update_and_not_its_class():
    class Bounded(Update):
        @property
        def moves_only_the_policy(self):
            return True

    class Many(Update):
        @property
        def steps_per_rollout(self):
            return 3

    with pytest.raises(ValueError, match="clipping and Bounded both limit"):
        PPO(update=Bounded())
    with pytest.raises(ValueError, match="an update that can move a value"):
        PerHead(value=Bounded())
    with pytest.raises(ValueError, match="so the policy takes one step"):
        A2C(update=PerHead(policy=Many()))
    with pytest.raises(ValueError, match="policy is an update such as"):
        PerHead(policy=PerHead())
    with pytest.raises(ValueError, match=r"optimizer= is for an agent .* update is Many"):
        rlgrad.train(PPO(update=Many()), total_timesteps=1, optimizer="sgd", **QUICK)
