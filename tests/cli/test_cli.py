"""The command line as a user meets it: what it prints, its exit status, and sentences instead of tracebacks."""

import dataclasses
import json
import shutil

import pytest
import yaml

from rlgrad.agents import A2C, NPG, PPO
from rlgrad.cli import main
from rlgrad.cli.commands.train import parse_command
from rlgrad.cli.options import parse
from rlgrad.config import from_mapping, to_yaml
from rlgrad.updates import Ascent, NaturalGradient, PerHead, TrustRegion

AGENT = '''
import tensorflow as tf
import rlgrad

class MyAgent(rlgrad.Agent):
    """An agent in a file of its own."""

    temperature: float = 1.0
    """Softens the advantages."""

    def credit(self, batch, now):
        return {"log_prob": tf.tanh(batch.advantages / self.temperature), "value": batch.returns - now.value}
'''
QUICK = ["--total-timesteps", "512", "--num-envs", "4", "--num-steps", "32", "--evaluation-episodes", "2"]
QUICK += ["--vectorization-mode", "sync"]
pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


@pytest.fixture
def run_folder(finished):
    return finished("reinforce")


def status(arguments):
    """The exit status, whichever way a command ends."""
    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code


def test_training_ends_with_a_verdict_and_the_next_commands(capsys, tmp_path):
    assert main(["train", "reinforce", "CartPole-v1", *QUICK, "--run-dir", "r"]) == 0
    output = capsys.readouterr().out
    assert "CartPole-v1 is not solved yet" in output
    assert "solved from 475" in output
    for command in ("watch", "evaluate", "plot", "resume"):
        assert f"rlgrad {command} r" in output


def test_a_shipped_config_can_be_overridden():
    options = ["--agent.gamma", "0.5", "--agent.update.policy.learning-rate", "0.1", *QUICK]
    config = yaml.safe_load(to_yaml(parse_command(["cartpole", *options])[0], {}))
    assert config["agent"]["gamma"] == 0.5
    assert config["agent"]["update"]["policy"]["learning_rate"] == 0.1
    assert config["total_timesteps"] == 512
    assert config["agent"]["baseline"] == "value"


def test_the_config_of_a_run_can_be_trained_again(run_folder, tmp_path):
    assert main(["train", str(run_folder / "config.yaml"), "--run-dir", "again"]) == 0
    mine, theirs = (json.loads((f / "evaluation.json").read_text()) for f in (tmp_path / "again", run_folder))
    assert mine == theirs


def test_an_agent_in_a_file_needs_no_registration(tmp_path, capsys):
    (tmp_path / "my_agent.py").write_text(AGENT)
    command = ["train", "my_agent.py:MyAgent", "CartPole-v1", "--agent.temperature", "0.5", *QUICK, "--run-dir", "r"]
    assert main(command) == 0
    assert "temperature: 0.5" in (tmp_path / "r" / "config.yaml").read_text()
    assert main(["evaluate", "r", "--episodes", "2"]) == 0


def test_the_agents_own_hyper_parameters_are_in_the_help(tmp_path, capsys):
    (tmp_path / "my_agent.py").write_text(AGENT)
    assert status(["train", "my_agent.py:MyAgent", "CartPole-v1", "--help"]) == 0
    output = capsys.readouterr().out
    assert "--agent.temperature" in output
    assert "Softens the advantages." in output


def test_evaluate_prints_returns(run_folder, capsys):
    assert main(["evaluate", str(run_folder), "--episodes", "3"]) == 0
    assert "over 3 fresh episodes" in capsys.readouterr().out
    assert main(["evaluate", str(run_folder), "--episodes", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["greedy"]["episodes"] == 3


def test_a_time_limit_can_be_given_wherever_episodes_are_played(run_folder, tmp_path, capsys):
    assert main(["evaluate", str(run_folder), "--episodes", "2", "--max-episode-steps", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["greedy"]["mean_return"] == 7.0
    film = ["record", str(run_folder), "--output", str(tmp_path / "e.gif"), "--max-episode-steps", "5", "--json"]
    assert main(film) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == [{"steps": 5, "return": 5.0, "cut": False}]
    main(["check", "CartPole-v1", "--steps", "50", "--max-episode-steps", "4"])
    assert "A limit of 4 steps cut" in capsys.readouterr().out
    copy = tmp_path / "copy"
    shutil.copytree(run_folder, copy)
    assert main(["resume", str(copy), "--max-episode-steps", "6", "--total-timesteps", "640"]) == 0
    assert yaml.safe_load((copy / "config.yaml").read_text())["max_episode_steps"] == 6
    for command in (["evaluate"], ["watch"], ["record"], ["resume"]):
        assert main([*command, str(run_folder), "--max-episode-steps", "0"]) == 2
    assert "--max-episode-steps is at least 1" in capsys.readouterr().err


def test_plot_draws_one_run_or_several(run_folder, tmp_path):
    assert main(["plot", str(run_folder)]) == 0
    assert main(["plot", str(run_folder), str(run_folder), "--output", "both.png"]) == 0
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")


def test_watch_writes_a_gif_where_there_is_no_display(run_folder, tmp_path, capsys):
    assert main(["watch", str(run_folder), "--output", "episode.gif"]) == 0
    assert (tmp_path / "episode.gif").read_bytes().startswith(b"GIF8")
    assert "An episode of" in capsys.readouterr().out


def test_inspect_explains_each_number_and_draws_a_picture(run_folder, tmp_path, capsys):
    assert main(["inspect", str(run_folder), "--output", "here.png"]) == 0
    output = capsys.readouterr().out
    assert "trained without --diagnose" in output
    assert "A rollout of 128 steps after 512 environment steps" in output
    for quantity in (
        "noise scale",
        "SNR, policy: hidden_1",
        "SNR, value: output",
        "cosine to the mean",
        "variance, agent",
    ):
        (line,) = [line for line in output.splitlines() if line.startswith(quantity + "  ")]
        assert line.endswith(".")
    assert (tmp_path / "here.png").read_bytes().startswith(b"\x89PNG")
    assert main(["inspect", str(run_folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 128
    assert (run_folder / "diagnostics.png").exists()


def test_a_run_trained_with_diagnose_is_inspected_from_its_files_alone(tmp_path, capsys, monkeypatch):
    assert main(["train", "reinforce", "CartPole-v1", "--diagnose", *QUICK, "--run-dir", "r"]) == 0
    assert "rlgrad inspect r" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())["diagnose"] is True
    assert (tmp_path / "r" / "diagnostics.json").exists()
    assert "gradient/noise_scale" in (tmp_path / "r" / "metrics.csv").read_text()
    monkeypatch.setattr("rlgrad.runs.training.load", None)
    assert main(["inspect", "r"]) == 0
    output = capsys.readouterr().out
    assert "A rollout of 128 steps after 384 environment steps" in output
    assert "noise scale, run" in output
    assert "trained without" not in output
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "r", "--fresh"]) == 0
    assert "after 512 environment steps" in capsys.readouterr().out


def test_a_table_in_a_terminal_holds_the_same_rows(run_folder, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["inspect", str(run_folder)]) == 0
    output = capsys.readouterr().out
    assert "what it says" in output
    assert "cosine to the mean" in output


@pytest.mark.parametrize(
    ("value", "kept"), [(["--diagnose"], True), (["--diagnose", "True"], True), (["--diagnose", "False"], False)]
)
def test_diagnose_is_a_flag_that_the_config_keeps(value, kept):
    config, _ = parse_command(["reinforce", "CartPole-v1", *value, *QUICK])
    assert config.diagnose is kept
    assert yaml.safe_load(to_yaml(config, {}))["diagnose"] is kept


def test_a_run_without_diagnose_has_nothing_of_it(run_folder):
    assert not (run_folder / "diagnostics.json").exists()
    assert "gradient/noise_scale" not in (run_folder / "metrics.csv").read_text()


def test_resume_goes_on(run_folder, capsys):
    assert main(["resume", "run", "--total-timesteps", "1024"]) == 0
    assert "after 1,024 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "expected"),
    [("agents", "reinforce"), ("envs", "rlgrad/Breakout-v1"), ("envs", "CartPole-v1"), ("configs", "cartpole")],
)
def test_lists(command, expected, capsys):
    assert main([command]) == 0
    assert expected in capsys.readouterr().out


def test_version(capsys):
    import rlgrad

    assert main(["--version"]) == 0
    assert rlgrad.__version__ in capsys.readouterr().out


def update_of(agent, *arguments, **settings):
    """The update that settings of a YAML file and arguments lead to."""
    return parse({"agent": {"name": agent, **settings}}, list(arguments), prog="test")[0].agent.update


NESTED = {"type": "per_head", "policy": {"type": "natural_gradient", "fisher": "empirical"}, "value": {"num_epochs": 3}}


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        # What is not said stays as the agent has it; another type of update begins with its own defaults.
        (
            lambda: update_of("npg", "--agent.update.policy.fisher", "empirical"),
            PerHead(policy=NaturalGradient(fisher="empirical"), value=NPG().update.value),
        ),
        (
            lambda: update_of(
                "npg", "--agent.update.policy.type", "trust_region", "--agent.update.policy.damping", "0.3"
            ),
            PerHead(policy=TrustRegion(damping=0.3), value=NPG().update.value),
        ),
        (
            lambda: update_of("npg", "--agent.update.policy.type=trust_region", "--agent.update.policy.damping=0.3"),
            PerHead(policy=TrustRegion(damping=0.3), value=NPG().update.value),
        ),
        (lambda: update_of("npg", update={"value": {"num_epochs": 2}}).value.num_minibatches, 16),
        (
            lambda: update_of("a2c", update=NESTED),
            PerHead(policy=NaturalGradient(fisher="empirical"), value=Ascent(num_epochs=3)),
        ),
        (
            lambda: update_of("a2c", "--agent.update.policy.fisher", "exact", update=NESTED).policy,
            NaturalGradient(fisher="exact"),
        ),
        (lambda: update_of("a2c", "--agent.update.type", "ascent", update={}), A2C().update),
        (
            lambda: update_of("ppo", "--agent.update.target-kl", "0.02", "--agent.update.num-epochs", "4"),
            dataclasses.replace(PPO().update, target_kl=0.02, num_epochs=4),
        ),
    ],
)
def test_updates_inside_updates_are_chosen_by_their_type_and_options(update, expected):
    assert update() == expected


def test_the_help_is_that_of_the_chosen_update(capsys):
    chosen = ["--agent.update.type", "per_head", "--agent.update.policy.type", "trust_region"]
    assert status(["train", "a2c", "CartPole-v1", *chosen, "--help"]) == 0
    output = capsys.readouterr().out
    assert "--agent.update.policy.backtrack-factor" in output
    assert "--agent.update.value.num-epochs" in output
    assert "--agent.update.max-grad-norm" not in output


def test_nested_updates_are_written_so_that_a_run_and_a_command_line_read_them_again():
    of_value = ["--agent.update.value.num-epochs", "2", "--agent.update.value.num-minibatches", "4"]
    chosen = ["--agent.update.policy.type", "trust_region", "--agent.update.policy.target-kl", "0.02"]
    config, _ = parse_command(["npg", "CartPole-v1", *QUICK, *of_value, *chosen])
    value = Ascent(learning_rate=1e-3, num_epochs=2, num_minibatches=4)
    expected = NPG(num_envs=4, num_steps=32, update=PerHead(policy=TrustRegion(target_kl=0.02), value=value))
    assert config.agent == expected
    written = yaml.safe_load(to_yaml(config, {}))
    assert from_mapping(written).agent == expected
    written.pop("resolved", None)
    assert parse(written, [], prog="test")[0].agent == expected


def test_a_run_of_an_update_that_an_agent_does_not_have_by_itself_is_loaded_with_it(finished):
    update = PerHead(policy=TrustRegion(target_kl=0.02), value=Ascent(learning_rate=1e-3))
    agent = NPG(num_envs=4, num_steps=32, update=update)
    folder = finished(agent, total_timesteps=128)
    assert "train/surrogate_improvement" in (folder / "metrics.csv").read_text()
    assert from_mapping(yaml.safe_load((folder / "config.yaml").read_text())).agent == agent


BAD_FILE = "class Lonely: pass"


@pytest.mark.slow
def test_every_command_takes_a_run_with_memory(capsys):
    assert main(["train", "ppo", "CartPole-v1", *QUICK, "--memory", "lstm", "--run-dir", "r"]) == 0
    for command in (["evaluate", "r", "--episodes", "2"], ["watch", "r", "--output", "e.gif"], ["plot", "r"]):
        assert main(command) == 0
    assert main(["inspect", "r"]) == 2
    assert "gradients of sequences" in capsys.readouterr().err
    assert main(["resume", "r", "--total-timesteps", "1024"]) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", "cartpol"], "Did you mean 'cartpole'"),
        (["train", "reinforse", "CartPole-v1"], "Did you mean 'reinforce'"),
        (["train", "reinforce"], "which environment?"),
        (["train", "reinforce", "CartPoll-v1"], "CartPole-v1"),
        (["train", "reinforce", "CartPole-v1", "--agent.gama", "0.9"], "--agent.gamma"),
        (["train", "reinforce", "CartPole-v1", "--agent.gamma", "much"], "could not convert"),
        (["train", "reinforce", "CartPole-v1", "--agent.gamma", "1.5"], "between 0 and 1"),
        (["train", "reinforce", "CartPole-v1", "--agent.baseline", "nome"], "leave_one_out"),
        (["train", "reinforce", "CartPole-v1", "--seed", "-1"], "integer ≥ 0"),
        (["train", "nowhere.py:MyAgent", "CartPole-v1"], "There is no file"),
        (["train", "bad.py:Agent", "CartPole-v1"], "has no class 'Agent'"),
        (["train", "bad.py:Lonely", "CartPole-v1"], "no subclass of rlgrad.Agent"),
        (["train", "nowhere.yaml"], "there is no file"),
        (["train", "bad.yaml"], "Unknown setting 'totl_timesteps'. Did you mean 'total_timesteps'"),
        (["train", "nested.yaml"], "There is no update 'natural_gradint'. Did you mean 'natural_gradient'"),
        (
            ["train", "npg", "CartPole-v1", "--agent.update.value.type", "trust_region"],
            "value is an update that can move a value, such as Ascent, got TrustRegion",
        ),
        (["train", "npg", "CartPole-v1", "--agent.update.policy.type"], "--agent.update.policy.type needs a value"),
        (["train", "npg", "CartPole-v1", "--agent.update.policy.fischer", "exact"], "--agent.update.policy.fisher"),
        (["train", "ppo", "CartPole-v1", "--agent.update.type", "trust_region"], "the agents npg and trpo"),
        (["evaluate", "nowhere"], "no run folder"),
        (["evaluate", "nowhere", "--episodes", "0"], "at least 1"),
        (["plot", "nowhere"], "no run folder"),
        (["inspect", "nowhere"], "no run folder"),
        (["inspect"], "the following arguments are required: run"),
        (["train", "reinforce", "CartPole-v1", "--diagnose", "maybe"], "diagnose"),
        (["agents", "extra"], "unrecognized arguments: extra"),
        ([], ""),
    ],
)
def test_a_mistake_is_answered_by_a_sentence_and_status_2(arguments, expected, tmp_path, capsys):
    (tmp_path / "bad.py").write_text(BAD_FILE)
    (tmp_path / "nested.yaml").write_text(
        "agent: {name: npg, update: {policy: {type: natural_gradint}}}\nenv: CartPole-v1\n"
    )
    (tmp_path / "bad.yaml").write_text("agent: {name: reinforce}\nenv: CartPole-v1\ntotl_timesteps: 5\n")
    assert status(arguments) == 2
    captured = capsys.readouterr()
    assert expected in " ".join((captured.err + captured.out).split())
    assert "Traceback" not in captured.err


def test_an_error_in_the_users_own_agent_keeps_its_traceback(tmp_path):
    (tmp_path / "broken.py").write_text(AGENT.replace("tf.tanh", "int").replace("MyAgent", "Broken"))
    with pytest.raises(TypeError):
        main(["train", "broken.py:Broken", "CartPole-v1", *QUICK])
