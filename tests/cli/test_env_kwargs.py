"""Keyword arguments of an environment on the command line, in both ways to write them, for every command that takes them."""

import gymnasium
import pytest

from rlgrad.cli import main
from rlgrad.cli.commands.train import parse_command
from rlgrad.cli.keyword_arguments import apart, keyword_arguments

SIZED = """
import gymnasium, numpy as np
from gymnasium import spaces

class Sized(gymnasium.Env):
    action_space = spaces.Discrete(2)

    def __init__(self, size, far=False):
        self.size, self.far = size, far
        self.observation_space = spaces.Box(-1, 1, (size,), np.float32)

    def observe(self):
        return self.np_random.uniform(-1, 1, self.size).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        return self.observe(), float(action) * (1e4 if self.far else 1.0), self.t > 5, False, {}
"""


@pytest.fixture
def sized(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sized.py").write_text(SIZED)
    return "sized.py:Sized"


@pytest.mark.parametrize(
    "words",
    [
        ["size", "3", "far", "true", "to", "a=b"],
        ["size=3", "far=true", "to=a=b"],
        ["size=3", "far", "true", "to", "a=b"],
    ],
)
def test_name_value_and_name_equals_value_are_the_same(words):
    assert keyword_arguments(words) == {"size": 3, "far": True, "to": "a=b"}
    assert apart(["--seed", "3", "--env-kwargs", *words, "--run-dir", "x=y"]) == (
        ["--seed", "3", "--env-kwargs", "size", "3", "far", "true", "to", "a=b", "--run-dir", "x=y"]
    )


def test_a_value_may_be_a_list_or_look_like_broken_yaml():
    assert keyword_arguments(["sizes=[1, 2]", "text", "[1", "x=-1e-3"]) == {"sizes": [1, 2], "text": "[1", "x": -1e-3}


@pytest.mark.parametrize(
    ("words", "said"), [(["size"], "'size' alone"), (["3", "size"], "got '3'"), (["=3", "4"], "got '=3'")]
)
def test_what_is_no_name_and_a_name_without_a_value_are_refused(words, said):
    with pytest.raises(ValueError, match=f"name value, or name=value: {'' if 'got' in said else 'got '}{said}"):
        keyword_arguments(words)


def test_train_takes_both(sized):
    for words in (["g", "9", "name", "x"], ["g=9", "name=x"]):
        config, _ = parse_command(["a2c", "Pendulum-v1", "--env-kwargs", *words, "--seed", "4"])
        assert (config.env_kwargs, config.seed) == ({"g": 9, "name": "x"}, 4)


def test_check_makes_the_environment_with_them_and_repeats_them(sized, capsys):
    main(["check", sized, "--steps", "60", "--env-kwargs", "size", "3"])
    said = capsys.readouterr().out
    assert "Discounted returns" not in said
    assert f"can be trained on: rlgrad train ppo {sized} --env-kwargs size 3\n" in said
    main(["check", sized, "--steps", "60", "--max-episode-steps", "4", "--env-kwargs", "size=3", "far=true"])
    said = capsys.readouterr().out
    assert "Discounted returns vary" in said
    assert f"rlgrad train ppo {sized} --max-episode-steps 4 --env-kwargs size=3 far=true\n" in said


@pytest.mark.parametrize("env", ["sized.py:Sized", "Pendulum-v1", "rlgrad/CartPole-v1"])
def test_check_says_what_an_environment_does_not_take(sized, env, capsys):
    assert main(["check", env, "--env-kwargs", "siez", "3"]) == 2
    said = capsys.readouterr().err
    assert "env_kwargs={'siez': 3} are not what" in said
    assert "unexpected keyword argument 'siez'" in said


@pytest.mark.parametrize("command", [["check"], ["train", "a2c"]])
def test_what_a_constructor_needs_is_told(sized, command, capsys):
    assert main([*command, sized]) == 2
    said = capsys.readouterr().err
    assert "missing 1 required positional argument: 'size'. Give it in env_kwargs (command line: --env-kwargs" in said


def test_check_of_an_id_makes_it_with_them(capsys):
    seen = []

    class Told(gymnasium.Env):
        def __init__(self, **kwargs):
            seen.append(kwargs)
            raise ValueError("told enough")

    gymnasium.register("Told-v0", Told)
    try:
        with pytest.raises(ValueError, match="told enough"):
            main(["check", "Told-v0", "--env-kwargs", "a=1"])
    finally:
        del gymnasium.registry["Told-v0"]
    assert seen == [{"a": 1}]
