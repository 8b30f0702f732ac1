"""Schedules of any form, for the learning rate, exploration and every other number that has one."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import rlgrad
from rlgrad.agents import A2C, DQN, PPO
from rlgrad.cli.commands.train import parse_command
from rlgrad.config import Config, from_mapping, to_yaml
from rlgrad.core import yaml_documents
from rlgrad.core.schedules import anneal, factor
from rlgrad.replay import Exploration, Linear
from rlgrad.runs.permissions import permissions
from rlgrad.updates import Ascent

QUICK = {"num_envs": 2, "num_steps": 8, "evaluation_episodes": 0, "verbose": False, "hidden_sizes": (4,)}

# At progress 0, 1/4, 1/2, 3/4 and 1, by hand.
FORMS = [
    ("constant", [1, 1, 1, 1, 1]),
    ("linear", [1, 0.75, 0.5, 0.25, 0]),
    ("linear(end=0.2, over=0.5)", [1, 0.6, 0.2, 0.2, 0.2]),
    ("cosine", [1, 0.8535534, 0.5, 0.1464466, 0]),
    ("cosine(end=0.5)", [1, 0.9267767, 0.75, 0.5732233, 0.5]),
    ("exponential(end=0.0625)", [1, 0.5, 0.25, 0.125, 0.0625]),
    ("piecewise(at=[0.5, 0.8], values=[1.0, 0.1, 0.01])", [1, 1, 0.1, 0.1, 0.01]),
    ("interpolated(at=[0.25, 0.75], values=[0.0, 1.0])", [0, 0, 0.5, 1, 1]),
]


@pytest.mark.parametrize(("schedule", "expected"), FORMS)
def test_a_form_is_its_factor_for_numbers_and_in_programs(schedule, expected):
    moments = [0.0, 0.25, 0.5, 0.75, 1.0]
    np.testing.assert_allclose([factor(schedule, p) for p in moments], expected, atol=1e-7)
    program = tf.function(lambda p: anneal(tf.constant(2.0), schedule, p), autograph=False)
    shown = [program(tf.constant(p)).numpy() for p in moments]
    np.testing.assert_allclose(shown, 2.0 * np.array(expected), atol=1e-6)


def square(p):
    return (1.0 - p) ** 2


@pytest.mark.parametrize(
    ("schedule", "rate"),
    [
        ("cosine", lambda p: (1 + np.cos(np.pi * p)) / 2),
        (square, square),
        (lambda p: 0.5 + 0.0 * p, lambda p: 0.5 + 0 * p),
    ],
)
def test_the_learning_rate_follows_a_schedule(schedule, rate, tmp_path):
    agent = A2C(update=Ascent(learning_rate=0.01, learning_rate_schedule=schedule))
    run = rlgrad.train(agent, "CartPole-v1", total_timesteps=160, run_dir=tmp_path / "run", **QUICK)
    progress = np.array([0, *run.history["time/timesteps"][:-1]]) / 160
    np.testing.assert_allclose(run.history["train/learning_rate"], 0.01 * rate(progress), rtol=1e-5)


def test_exploration_goes_from_its_start_to_its_end_by_a_schedule():
    share = Exploration(random=Linear(start=0.9, end=0.1, over=0.5, schedule="cosine")).share
    np.testing.assert_allclose([share(p) for p in (0.0, 0.25, 0.5, 1.0)], [0.9, 0.5, 0.1, 0.1], atol=1e-7)
    np.testing.assert_allclose(share(tf.constant(0.25)), 0.5, atol=1e-6)
    with pytest.raises(ValueError, match="random is between 0 and 1"):
        Exploration(random=Linear(start=0.9, schedule="interpolated(at=[0.0, 0.5, 1.0], values=[1.0, 1.5, 0.0])"))


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ("cosin", "learning_rate_schedule: there is no schedule 'cosin'. Did you mean 'cosine'"),
        (
            "cosine(ende=0.1)",
            "Unknown argument of the schedule cosine, in learning_rate_schedule, 'ende'. Did you mean 'end'",
        ),
        ("cosine(end=-1.0)", "learning_rate_schedule: end of cosine is at least 0, got -1.0"),
        ("linear(over=0.0)", "over of linear is above 0 and at most 1, got 0.0"),
        ("exponential(end=0.0)", "end of exponential is above 0, got 0.0"),
        ("piecewise(at=[0.5], values=[1.0])", r"piecewise takes at=\[…\], places between 0 and 1, and one value more"),
        ("piecewise", "piecewise takes at="),
        ("interpolated(at=[0.5, 0.2], values=[1.0, 0.0])", r"places of interpolated rise from 0 to at most 1"),
        ("interpolated(at=[0.0, 1.0], values=[1.0, -1.0])", r"values of interpolated are factors ≥ 0"),
        ("cosine(", "one is written as a name"),
        ("nowhere.py:warmup", "no file 'nowhere.py'"),
        (3.0, "is a schedule, such as"),
        (lambda p: p - 1.0, r"returns a finite factor ≥ 0; for progress .* it returned \[-1.0"),
        (lambda p: 1.0 / p, "raised ZeroDivisionError"),
        (
            lambda p: 1.0 if p < 0.5 else 0.1,
            r"is compiled, with a tensor as progress, and raised \w+: .*symbolic.*Use tf.where in place of `if`",
        ),
    ],
)
def test_what_is_no_schedule_is_refused_by_the_name_of_its_field(schedule, says):
    with pytest.raises(ValueError, match=says):
        Ascent(learning_rate_schedule=schedule)


@pytest.mark.parametrize(
    "schedule",
    [
        "linear(end=0.0, over=1.0)",
        "cosine(end=1e9, over=1e-9)",
        "exponential(end=1e-9)",
        "piecewise(at=[0.0, 1.0], values=[0.0, 1.0, 0.0])",
        "interpolated(at=[1.0], values=[0.0])",
        lambda p: 0.0 * p,
    ],
)
def test_the_outermost_arguments_are_taken(schedule):
    assert Ascent(learning_rate_schedule=schedule).learning_rate_schedule == schedule


def kept(agent):
    config = Config(agent=agent, env="CartPole-v1", total_timesteps=100)
    return yaml_documents.load(to_yaml(config, {})), config


def test_a_text_is_kept_in_the_config_and_a_function_by_its_place(tmp_path):
    content, config = kept(PPO(clip_schedule="cosine(end=0.1)", entropy_schedule="linear"))
    assert content["agent"]["clip_schedule"] == "cosine(end=0.1)"
    assert from_mapping(content) == config
    content, config = kept(A2C(update=Ascent(learning_rate_schedule=square)))
    assert content["agent"]["update"]["learning_rate_schedule"].endswith("test_forms_of_schedules.py:square")
    assert factor(from_mapping(content).agent.update.learning_rate_schedule, 0.5) == 0.25


def test_a_function_that_no_process_finds_is_passed_again():
    agent = A2C(update=Ascent(learning_rate_schedule=lambda p: 1.0 - 0.5 * p))
    content, config = kept(agent)
    assert "given as a function" in content["agent"]["update"]["learning_rate_schedule"]
    with pytest.raises(ValueError, match=r"pass the agent with it, as in rlgrad.load\(path, agent=…\)"):
        from_mapping(content)
    assert from_mapping(content, agent) == config


def test_a_schedule_in_a_file_is_a_setting_with_its_whole_path_and_asks_to_be_trusted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def slope(p, end=0.5):\n    return 1.0 - (1.0 - end) * p\n")
    content, _ = kept(A2C(entropy_schedule="mine.py:slope(end=0.2)"))
    text = content["agent"]["entropy_schedule"]
    assert text == f"{tmp_path / 'mine.py'}:slope(end=0.2)"
    assert factor(text, 0.5) == pytest.approx(0.6)
    (asked,) = permissions(tmp_path / "elsewhere", content)
    assert "execute the file" in str(asked)
    assert permissions(tmp_path, kept(A2C(entropy_schedule="cosine(end=0.2)"))[0]) == []


def test_schedules_are_options():
    config, _ = parse_command(["cartpole-ppo", "--agent.update.learning-rate-schedule", "cosine(end=0.1)"])
    assert config.agent.update.learning_rate_schedule == "cosine(end=0.1)"
    config, _ = parse_command(["cartpole-dqn", "--agent.exploration.random.schedule", "cosine"])
    assert config.agent.exploration.random.schedule == "cosine"
    assert dataclasses.replace(DQN().exploration.random, schedule="cosine").at(1.0) == pytest.approx(0.05)
