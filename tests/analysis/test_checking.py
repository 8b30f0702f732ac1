"""What `rlgrad check` finds in an environment, each by one that has just that."""

import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import TimeLimit

from rlgrad.analysis.checking import check
from rlgrad.analysis.random_play import play_randomly
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


class Huge(Plain):
    """Numbers that float64 holds and float32 does not."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def __init__(self, where):
        self.where = where

    def pay(self, action):
        return 1e40 if self.where == "pay" else super().pay(action)

    def observe(self):
        return np.full(2, 1e40) if self.where == "observe" else super().observe().astype(np.float64)


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


class Blind(Plain):
    observation_space = spaces.Dict({"none": spaces.Box(-1.0, 1.0, (0,), np.float32)})


class Forced(Plain):
    action_space = spaces.Discrete(1)


class Masked(Plain):
    """Forbids one action at each step, in `info` or among what it shows, and fails where that one is taken."""

    def __init__(self, action_space, shown):
        self.action_space, self.shown = action_space, shown
        self.width = int(np.sum(getattr(action_space, "nvec", getattr(action_space, "n", None))))
        if shown:
            inner = {"position": Plain.observation_space, "action_mask": spaces.MultiBinary(self.width)}
            self.observation_space = spaces.Dict(inner)

    def masked(self, observation):
        self.mask = np.ones(self.width, np.int8)
        self.mask[-1 - self.left % 2] = 0
        shown = {"position": observation, "action_mask": self.mask} if self.shown else observation
        return shown, {} if self.shown else {"action_mask": self.mask}

    def reset(self, *, seed=None, options=None):
        return self.masked(super().reset(seed=seed)[0])

    def step(self, action):
        taken = np.cumsum([0, *np.ravel(getattr(self.action_space, "nvec", [self.width]))])[:-1] + np.ravel(action)
        assert self.mask[taken].all()
        self.left -= 1
        shown, info = self.masked(self.observe())
        return shown, float(self.np_random.normal()), self.over(), False, info


class Stuck(Masked):
    """At the third last step it forbids the last three numbers of its mask."""

    def masked(self, observation):
        shown, info = super().masked(observation)
        if self.left == 2:
            self.mask[-3:] = 0
        return shown, info


def texts(make, level):
    return [finding.text for finding in check(make, steps=400) if finding.level == level]


def test_nothing_is_found_where_nothing_is_wrong():
    assert texts(Plain, "error") == texts(Plain, "advice") == []
    assert "steps/s in one process" in texts(Plain, "fine")[-1]


@pytest.mark.parametrize(
    ("make", "level", "what"),
    [
        (HugeRewards, "advice", "Discounted returns vary by"),
        (HugeObservations, "advice", "Numbers in observation reach 9"),
        (WideActions, "advice", "Actions lie in -50 … 50"),
        (UnboundedActions, "advice", "Actions are unbounded"),
        (Forgetful, "advice", "same seed and the same actions gave another episode"),
        (NotANumber, "error", "a reward that is not finite"),
        (lambda: Huge("pay"), "error", "Step 0 gave the reward 1e+40. That is too large for float32"),
        (lambda: Huge("observe"), "error", "Numbers in observation reach 1e+40. That is too large for float32"),
        (Endless, "error", "No episode ended in 400 random steps, and there is no time limit"),
        (CountsFrames, "advice", "No episode ended in 400 random steps; its limit is 27000"),
        (lambda: TimeLimit(Endless(), 20), "advice", "A limit of 20 steps cut 20 of 20 episodes"),
        (Texts, "error", "encode the text"),
        (Blind, "error", "shows nothing"),
        (Forced, "error", "a single action"),
        (lambda: Stuck(spaces.Discrete(3), True), "error", "forbids every action"),
        (lambda: Stuck(spaces.MultiDiscrete([2, 3]), False), "error", "forbids every action"),
    ],
)
def test_one_fault_is_found_in_words(make, level, what):
    assert any(what in text for text in texts(make, level)), check(make, steps=400)


@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize(
    "space", [spaces.Discrete(4), spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([[2, 2], [2, 3]])]
)
def test_random_actions_are_those_that_the_mask_allows(space, shown):
    assert play_randomly(Masked(space, shown), 200).rewards.shape == (200,)


def test_a_class_in_a_file_is_checked_by_its_place(tmp_path, capsys):
    file = tmp_path / "own.py"
    file.write_text("from gymnasium.envs.classic_control import PendulumEnv\nclass Own(PendulumEnv):\n    pass\n")
    assert main(["check", f"{file}:Own", "--steps", "300", "--wrappers", "TimeLimit(max_episode_steps=100)"]) == 0
    assert f"{file}:Own can be trained on" in capsys.readouterr().out
    assert main(["check", f"{file}:Owm"]) == 2
    assert "Did you mean 'Own'" in capsys.readouterr().err


def test_the_command_says_it_and_its_status_tells_whether_something_is_wrong(capsys):
    assert main(["check", "CartPole-v1", "--steps", "200"]) == 0
    assert "CartPole-v1 can be trained on" in capsys.readouterr().out
    assert main(["check", "CartPole-v9"]) == 2
    assert main(["check", "Pendulum-v1", "--steps", "400", "--json"]) == 0


class Slow(Plain):
    def step(self, action):
        time.sleep(0.004)
        return super().step(action)


OPTIONS = [
    (HugeRewards, ("--agent.scale-rewards", "True")),
    (HugeObservations, ("--agent.normalize-observations", "True")),
    (WideActions, ("--wrappers", "RescaleAction(min_action=-1.0, max_action=1.0)")),
    (Endless, ("--max-episode-steps", "1000")),
    (Slow, ("--vectorization-mode", "async")),
]


@pytest.mark.parametrize(("make", "options"), OPTIONS)
def test_advice_is_an_option_that_train_takes(make, options):
    from rlgrad.cli.commands.train import parse_command

    found = [finding for finding in check(make, steps=100) if finding.options]
    assert [finding.options for finding in found] == [options]
    assert options[0] in found[0].text
    config, _ = parse_command(["ppo", "Pendulum-v1", *options])
    name = options[0].removeprefix("--").replace("-", "_")
    value = getattr(config.agent if name.startswith("agent.") else config, name.removeprefix("agent."))
    assert str(value[0] if isinstance(value, tuple) else value) == options[1]


def test_the_command_repeats_the_options_and_adds_the_advised_ones(tmp_path, capsys):
    file = tmp_path / "wide.py"
    file.write_text(
        "from gymnasium import spaces\nfrom gymnasium.envs.classic_control import PendulumEnv\n"
        "class Wide(PendulumEnv):\n"
        "    def __init__(self, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
        "        self.action_space = spaces.Box(-50.0, 50.0, (1,))\n"
    )
    given = [
        f"{file}:Wide",
        "--wrappers",
        "TimeAwareObservation",
        "--max-episode-steps",
        "1e2",
        "--env-kwargs",
        "g=9.8",
    ]
    assert main(["check", *given, "--steps", "300"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("with this advice: rlgrad train ppo ")
    assert "--max-episode-steps 100" in last
    assert (
        " --agent.normalize-observations True --env-kwargs g=9.8 --wrappers TimeAwareObservation 'RescaleAction("
        in last
    )
    assert main(["check", f"{file}:Wide", "--steps", "300"]) == 1
    assert "needs fixing first, for example: rlgrad train ppo" in capsys.readouterr().out.splitlines()[-1]


def test_configs_that_ship_for_an_environment_are_named_with_what_they_reach(capsys):
    assert main(["check", "CartPole-v1", "--steps", "200"]) == 0
    assert "a config that ships, return 500.0 after 100,000 steps: rlgrad train cartpole" in capsys.readouterr().out
    assert main(["check", "CartPole-v1", "--steps", "200", "--max-episode-steps", "50"]) == 0
    assert "a config that ships" not in capsys.readouterr().out


def test_a_mask_and_a_missing_time_limit_are_said():
    said = texts(lambda: Masked(spaces.Discrete(4), True), "fine")
    assert any("(action_mask): on average 75 % of the choices were" in text for text in said)
    assert any("There is no time limit. " in text for text in said)
    assert not any("time limit" in text for text in texts(lambda: TimeLimit(Plain(), 100), "fine"))


def test_an_environment_that_cuts_its_episodes_itself_has_a_limit():
    class CutsItself(Plain):
        def step(self, action):
            observation, reward, _, _, info = super().step(action)
            return observation, reward, False, self.over(), info

    assert any(text.startswith("A limit of 15 steps cut") for text in texts(CutsItself, "advice"))
    assert not any("no time limit" in text for text in texts(CutsItself, "fine"))
