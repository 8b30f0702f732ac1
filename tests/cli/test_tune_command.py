"""`rlgrad tune`: what is searched, what it says, and the config that it leaves."""

import json
from pathlib import Path

import pytest
import yaml

from rlgrad.cli import main
from rlgrad.cli.commands.train import parse_command
from rlgrad.cli.commands.tune import _space
from rlgrad.search import Range

QUICK = ["--total-timesteps", "256", "--num-envs", "2", "--num-steps", "32", "--hidden-sizes", "8"]
pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


def searched(*arguments, search=()):
    return _space(parse_command(list(arguments))[0], search, arguments)


def test_what_the_agent_declares_is_searched_but_for_what_an_option_sets():
    everything = searched("ppo", "CartPole-v1")
    left = searched(
        "ppo", "CartPole-v1", "--agent.gamma", "0.9", "--num-steps=64", "--agent.update.learning-rate", "1e-3"
    )
    assert set(everything) - set(left) == {"agent.gamma", "agent.num_steps", "agent.update.learning_rate"}


def test_search_names_what_is_searched_instead():
    space = searched("a2c", "CartPole-v1", search=["agent.gamma", "agent.num_steps=5:50", "activation=tanh,relu"])
    assert space == {
        "agent.gamma": [0.9, 0.95, 0.98, 0.99, 0.995, 0.999],
        "agent.num_steps": Range(5, 50),
        "activation": ["tanh", "relu"],
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a2c", "CartPole-v1", "--search", "agent.gama"], "declares no range for 'agent.gama'"),
        (["a2c", "CartPole-v1", "--search", "agent.gama=0.1:0.2"], "Did you mean 'gamma'?"),
        (["a2c", "CartPole-v1", "--agent.gamma", "0.9", "--search", "agent.gamma"], "leave one of them out"),
        (["a2c", "CartPole-v1", "--run-dir", "r"], "leave --run-dir out"),
        (["a2c", "CartPole-v1", "--trials", "0"], "trials is at least 1, got 0"),
        (["a2c", "CartPole-v1", "--seeds", "0"], "seeds is at least 1, got 0"),
        (["a2c"], "which environment?"),
        (["a3c", "CartPole-v1"], "or 'a2c'"),
        (["a2c", "NoSuchEnv-v0", "--trials", "1"], "NoSuchEnv"),
    ],
)
def test_a_mistake_is_answered_by_a_sentence_and_status_2(arguments, expected, capsys):
    pytest.importorskip("optuna")
    assert main(["tune", *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "Traceback" not in error


def test_a_study_ends_with_a_table_and_a_config_that_trains(capsys):
    pytest.importorskip("optuna")
    command = ["tune", "a2c", "CartPole-v1", *QUICK, "--trials", "2", "--episodes", "3"]
    command += ["--search", "agent.update.learning_rate"]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "trial   0  return" in output
    assert "2 trials: 2 complete, 0 pruned, 0 failed." in output
    assert "0 (as given)" in output
    assert "rlgrad train tuning/cartpole-v1-a2c/best.yaml" in output
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [trial["number"] for trial in said["trials"]] == [0, 1]
    best = yaml.safe_load(Path(said["config"]).read_text())
    assert best["agent"]["update"]["learning_rate"] == said["best"]["values"]["agent.update.learning_rate"]
    assert main(["train", said["config"], "--run-dir", "r", "--evaluation-episodes", "2"]) == 0


def test_without_arguments_it_asks_for_a_config(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["tune"])
    assert "which config or agent?" in capsys.readouterr().err


def test_the_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    assert "rlgrad tune cartpole --trials 30" in capsys.readouterr().out
