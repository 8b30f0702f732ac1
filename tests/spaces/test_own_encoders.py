"""An encoder of a user's own trains, is saved, resumed, exported and tuned like ours, and no file of ours names it."""

import keras
import numpy as np
import pytest
import yaml
from gymnasium import spaces
from helpers.reading import MODULE
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.cli import main
from rlgrad.config import Config, from_mapping
from rlgrad.exporting.standalone import model_inputs
from rlgrad.spaces import Encoder, register_encoder, table
from rlgrad.tuning import tune

QUICK = {"num_envs": 4, "num_steps": 8, "hidden_sizes": (8,), "seed": 3, "verbose": False, "evaluation_episodes": 8}
TOTAL = 320


def train(home, path, **options):
    options = {"total_timesteps": TOTAL, "max_episode_steps": 9, **QUICK, **options}
    return rlgrad.train(options.pop("agent", "a2c"), f"{home / 'reading.py'}:Reading", run_dir=path, **options)


def weights(run):
    return [v.numpy() for v in run.policy.variables]


def assert_equal_weights(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def encoders_of(run):
    return yaml.safe_load((run.path / "config.yaml").read_text()).get("encoders")


def test_an_encoder_of_another_package_trains_resumes_to_the_same_weights_and_is_exported(package, tmp_path):
    whole = train(package, tmp_path / "whole")
    half = train(package, tmp_path / "half", total_timesteps=160)
    assert any((a != b).any() for a, b in zip(weights(whole), weights(half), strict=True))
    assert_equal_weights(whole, rlgrad.load(tmp_path / "half", verbose=False).train(TOTAL))
    assert encoders_of(whole) == ["letters"]
    embeddings = [v for v in whole.policy.trainable_variables if v.path.endswith("embeddings")]
    assert [tuple(v.shape) for v in embeddings] == [(5, 4), (5, 4)]  # of the policy and of the value

    texts = ["a", "abcd", "dddda", "ba"]
    actions = whole.policy.act(texts, greedy=True)
    assert [whole.policy.act(text, greedy=True) for text in texts] == actions.tolist()
    for name in ("p.keras", "p.tflite"):
        rlgrad.export(whole.policy, tmp_path / name)
    model = keras.saving.load_model(tmp_path / "p.keras", safe_mode=True)
    inputs = model_inputs(whole.policy, texts)
    assert inputs["observation"].tolist()[1] == [1, 2, 3, 4, 0]
    outputs = model(inputs)
    np.testing.assert_array_equal(outputs["action"], actions)
    np.testing.assert_allclose(outputs["logits"], whole.policy(inputs["observation"])["policy"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_it_learns_what_only_the_text_says(package, tmp_path):
    options = {"total_timesteps": 8_192, "num_envs": 8, "num_steps": 64, "evaluation_episodes": 100}
    run = train(package, tmp_path / "run", agent="ppo", **options)
    assert run.evaluate(100).mean_return > 3.5  # 4 is the most, 2.5 what one action alone gets


@mostly_slow("memory", {"no memory": {}, "gru": {"memory": "gru", "memory_size": 4}})
def test_processes_convert_texts_to_the_same_numbers_and_a_memory_reads_them_too(memory, package, tmp_path):
    one, other = (
        train(package, tmp_path / mode, **memory, vectorization_mode=mode, num_envs=2) for mode in ("sync", "async")
    )
    assert_equal_weights(one, other)


def test_without_its_package_a_run_says_what_is_missing(package, tmp_path):
    train(package, tmp_path / "run", evaluation_episodes=0)
    (package / "reading-1.0.dist-info" / "entry_points.txt").write_text("")
    from rlgrad.core import registry

    registry._points.cache_clear()
    with pytest.raises(ValueError, match=r"encoded by 'letters', which cannot be found.*Install the package"):
        rlgrad.load(tmp_path / "run", verbose=False)


@mostly_slow("by", ["place", "class"])
def test_an_encoder_of_a_file_is_named_or_registered_and_kept_by_its_place(home, tmp_path, monkeypatch, by):
    with pytest.raises(ValueError, match=r"Text.* is not supported.*write an encoder"):
        train(home, tmp_path / "none")
    monkeypatch.chdir(home)
    if by == "class":
        from reading import Letters

        assert register_encoder(Letters) is Letters
    run = train(
        home, tmp_path / "run", encoders=() if by == "class" else ("reading.py:Letters",), evaluation_episodes=0
    )
    assert encoders_of(run) == [f"{home / 'reading.py'}:Letters"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(table, "_registered", {})
    table._kind_of.cache_clear()
    assert_equal_weights(run, rlgrad.load(run.path, verbose=False))


def test_an_encoder_of_a_script_is_needed_again_and_a_sentence_says_so(home, tmp_path):
    from reading import Letters

    class Own(Letters):
        pass

    register_encoder(Own)
    run = train(home, tmp_path / "run", evaluation_episodes=0)
    assert encoders_of(run) == ["(Own, registered by a script)"]
    assert_equal_weights(run, rlgrad.load(run.path, verbose=False))
    table._registered.clear()
    table._kind_of.cache_clear()
    with pytest.raises(
        ValueError, match=r"encoded by \(Own, registered by a script\).*register_encoder with that class"
    ):
        rlgrad.load(run.path, verbose=False)


@pytest.mark.slow
def test_it_is_tuned(package, tmp_path):
    config = Config(
        agent=rlgrad.agents.A2C(num_envs=4, num_steps=8),
        env=f"{package / 'reading.py'}:Reading",
        max_episode_steps=9,
        total_timesteps=64,
        hidden_sizes=(4,),
        evaluation_episodes=0,
        logs=("csv",),
    )
    study = tune(config, tmp_path / "study", trials=2, pruner="none")
    assert 0 <= study.best.value <= 4
    assert from_mapping(yaml.safe_load(study.config.read_text())).env == config.env
    (first, *_) = sorted((tmp_path / "study" / "trials").rglob("config.yaml"))
    assert yaml.safe_load(first.read_text())["encoders"] == ["letters"]


def test_the_command_line_takes_it_and_repeats_it(home, tmp_path, capsys):
    place = f"{home / 'reading.py'}"
    arguments = ["--encoders", f"{place}:Letters", "--total-timesteps", "64", "--evaluation-episodes", "2"]
    limit = ["--max-episode-steps", "9"]
    assert main(["train", "a2c", f"{place}:Reading", *arguments, *limit, "--run-dir", str(tmp_path / "a")]) == 0
    assert main(["train", "--from", str(tmp_path / "a"), "--run-dir", str(tmp_path / "b")]) == 0
    capsys.readouterr()
    one, other = (rlgrad.load(tmp_path / name, verbose=False) for name in "ab")
    assert_equal_weights(one, other)


def test_a_run_folder_does_not_execute_an_encoder_of_its_own(package, tmp_path):
    run = train(package, tmp_path / "run", evaluation_episodes=0)
    (run.path / "evil.py").write_text("raise SystemExit('executed')")
    file = run.path / "config.yaml"
    text = file.read_text()
    for place in (f"{run.path / 'evil.py'}:Letters", "evil.py:Letters"):
        file.write_text(text.replace("- letters", f"- {place}"))
        with pytest.raises(ValueError, match=r"evil\.py"):
            rlgrad.load(run.path, verbose=False)


def test_a_run_that_had_no_encoder_does_not_get_one_silently(tmp_path):
    run = rlgrad.train("a2c", "CartPole-v1", total_timesteps=32, run_dir=tmp_path / "run", **QUICK)
    assert encoders_of(run) is None

    class Halves(Encoder):
        serves = spaces.Box

        def prepare(self, x):
            return keras.ops.cast(x, "float32") / 2.0

    register_encoder(Halves)
    with pytest.raises(ValueError, match=r"without \(Halves, registered by a script\)"):
        rlgrad.load(run.path, verbose=False)


def test_an_encoder_that_nothing_uses_is_refused(home, tmp_path):
    with pytest.raises(ValueError, match=r"encoders names .*Letters, which serves Text, and no part of Box"):
        rlgrad.train(
            "a2c",
            "CartPole-v1",
            encoders=[f"{home / 'reading.py'}:Letters"],
            total_timesteps=32,
            run_dir=tmp_path / "r",
        )
    assert not (tmp_path / "r" / "config.yaml").exists()


def test_of_two_installed_encoders_one_has_to_be_chosen(package, tmp_path):
    file = package / "reading-1.0.dist-info" / "entry_points.txt"
    file.write_text("[rlgrad.encoders]\nletters = reading:Letters\nothers = reading:Others\n")
    (package / "reading.py").write_text(MODULE + "\n\nclass Others(Letters):\n    pass\n")
    with pytest.raises(ValueError, match="Several installed encoders serve Text, letters, others: choose one"):
        train(package, tmp_path / "none")
    run = train(package, tmp_path / "run", encoders=["others"], evaluation_episodes=0)
    assert encoders_of(run) == ["others"]
    assert type(run.policy.preparation.encoders[0]).__name__ == "Others"
