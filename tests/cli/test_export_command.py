"""`rlgrad export`: files beside a run, and what it says of them."""

import json

import keras
import numpy as np
import pytest

import rlgrad
from rlgrad.agents import A2C
from rlgrad.cli import main


@pytest.fixture
def run_folder(finished):
    return finished(A2C(normalize_observations=True), "Pendulum-v1", evaluation_episodes=0)


def test_a_run_is_exported_beside_itself_with_what_it_takes_and_gives(run_folder, capsys):
    assert main(["export", str(run_folder), "--format", "keras"]) == 0
    output = capsys.readouterr().out
    assert "takes  observation      float32  (N, 3)" in output
    assert "gives  action           float32  (N, 1)" in output
    assert f"Wrote {run_folder / 'policy.keras'}" in output
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    said = keras.saving.load_model(run_folder / "policy.keras")({"observation": x})
    run = rlgrad.load(run_folder, verbose=False)
    np.testing.assert_allclose(said["action"], run.policy.act(x, greedy=True), rtol=1e-5, atol=1e-6)
    run.close()


def test_machines_get_json(run_folder, tmp_path, capsys):
    assert main(["export", str(run_folder), "--format", "saved_model", "--output", str(tmp_path / "p"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["inputs"] == {"observation": ["float32", [3]]}
    assert set(said["outputs"]) == {"action", "mean", "log_std"}
    assert (tmp_path / "p" / "saved_model.pb").is_file()


def test_mistakes_end_in_a_sentence(run_folder, tmp_path, capsys):
    assert main(["export", str(tmp_path), "--format", "keras"]) == 2
    assert "is no run folder" in capsys.readouterr().err
    assert main(["export", str(run_folder), "--format", "litert", "--output", "policy.onnx"]) == 2
    assert "does not end as litert does: .tflite" in capsys.readouterr().err
    (tmp_path / "there.keras").touch()
    assert main(["export", str(run_folder), "--format", "keras", "--output", str(tmp_path / "there.keras")]) == 2
    assert "never writes over another" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["export", str(run_folder), "--format", "torch"])
    assert stop.value.code == 2


def test_the_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "rlgrad export runs/a --format onnx" in capsys.readouterr().out
