"""What `rlgrad check` finds in an environment, each by one that has just that."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import TimeLimit

from rlgrad.checking import check
from rlgrad.cli import main


class Plain(gymnasium.Env):
    """Nothing is wrong with it: observations and rewards near 1, episodes of 5 to 15 steps."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(5, 16))
        return self.observe(), {}

    def observe(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def pay(self, action):
        return float(np.clip(action, -1, 1)[0])

    def over(self):
        return self.left <= 0

    def step(self, action):
        self.left -= 1
        return self.observe(), self.pay(action), self.over(), False, {}


class HugeRewards(Plain):
    def pay(self, action):
        return 1e4 * super().pay(action)


class HugeObservations(Plain):
    observation_space = spaces.Box(-1e3, 1e3, (2,), np.float32)

    def observe(self):
        return (900.0 * super().observe()).astype(np.float32)


class WideActions(Plain):
    action_space = spaces.Box(-50.0, 50.0, (1,), np.float32)


class UnboundedActions(Plain):
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


class Forgetful(Plain):
    def observe(self):
        return np.random.default_rng().uniform(-1, 1, 2).astype(np.float32)


class NotANumber(Plain):
    def pay(self, action):
        return float("nan") if self.left == 2 else 0.5


class Endless(Plain):
    def over(self):
        return False


class CountsFrames(Endless):
    """Like an Atari environment, which ends its episodes after so many frames."""

    def __init__(self):
        super().__init__()
        self.spec = EnvSpec("Frames-v0", kwargs={"max_num_frames_per_episode": 108_000, "frameskip": 4})


class Texts(Plain):
    observation_space = spaces.Text(5)


def texts(make, level):
    return [finding.text for finding in check(make, steps=400) if finding.level == level]


def test_nothing_is_found_where_nothing_is_wrong():
    assert texts(Plain, "error") == texts(Plain, "advice") == []
    assert "steps/s in one process" in texts(Plain, "fine")[0]


@pytest.mark.parametrize(
    ("make", "level", "what"),
    [
        (HugeRewards, "advice", "Discounted returns vary by"),
        (HugeObservations, "advice", "Numbers in observation reach 9"),
        (WideActions, "advice", "Actions lie in -50 … 50"),
        (UnboundedActions, "advice", "Actions are unbounded"),
        (Forgetful, "advice", "same seed and the same actions gave another episode"),
        (NotANumber, "error", "a reward that is not finite"),
        (Endless, "error", "No episode ended in 400 random steps, and there is no time limit"),
        (CountsFrames, "advice", "No episode ended in 400 random steps; its limit is 27000"),
        (lambda: TimeLimit(Endless(), 20), "advice", "A limit of 20 steps cut 20 of 20 episodes"),
        (Texts, "error", "encode the text"),
    ],
)
def test_one_fault_is_found_in_words(make, level, what):
    assert any(what in text for text in texts(make, level)), check(make, steps=400)


def test_the_command_says_it_and_its_status_tells_whether_something_is_wrong(capsys):
    assert main(["check", "CartPole-v1", "--steps", "200"]) == 0
    assert "CartPole-v1 can be trained on" in capsys.readouterr().out
    assert main(["check", "CartPole-v9"]) == 2
    assert main(["check", "Pendulum-v1", "--steps", "400", "--json"]) == 0
