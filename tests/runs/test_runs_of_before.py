"""Run folders that an older version of rlgrad left (tests/data/runs_before) load, resume and evaluate as they did.

`make.py` beside them has their settings, and wrote `expected.npz`: what the older version reached when it resumed each to its
end.
Weights depend on how a CPU rounds, so they are compared in three ways:

- With the expected ones, on every machine, to 2e-5. XLA and a plain graph, which round differently, end 1e-6 apart; the updates
  after the checkpoint move each network by 1e-2 and more.
- With the expected ones, to the bit, where CPU and packages are those of the older version.
- To the bit on every machine: a run that is interrupted a second time ends like one that is not.

What happens in these environments depends on the actions alone, which are discrete: returns and lengths are the same on every
machine.
"""

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.slow import mostly_slow

import rlgrad
from rlgrad.policies import actors

# The older version compiled the rollouts of compiled environments, and rewrote plain graphs, in every case.
pytestmark = pytest.mark.xla

BEFORE = Path(__file__).parents[1] / "data" / "runs_before"
KINDS = ("sync", "compiled", "memory")


def made():
    """The module that made the folders."""
    spec = importlib.util.spec_from_file_location("runs_before_make", BEFORE / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights(run):
    return [variable.numpy() for variable in run.policy.variables]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """Runs that are loaded, evaluated and resumed to their end, each once."""
    known = {}

    def to_the_end(kind, xla):
        if (kind, xla) not in known:
            folder = tmp_path_factory.mktemp(kind) / "run"
            shutil.copytree(BEFORE / kind, folder)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(actors, "gains_from_xla", lambda model: xla)
                run = rlgrad.load(folder, verbose=False)
                begun, timesteps = weights(run), run.timesteps
                played = {name: run.evaluate(10, greedy=name == "greedy") for name in ("greedy", "sampled")}
                run.train()
            with np.load(BEFORE / kind / "expected.npz") as file:
                expected = {name: file[name] for name in file.files}
            known[kind, xla] = SimpleNamespace(
                run=run, begun=begun, timesteps=timesteps, played=played, expected=expected, ended=weights(run)
            )
        return known[kind, xla]

    return to_the_end


COMPILING = pytest.param(True, marks=[pytest.mark.slow, pytest.mark.xla], id="xla")
each_way = pytest.mark.parametrize("xla", [pytest.param(False, id="graph"), COMPILING])
each_kind = mostly_slow("kind", KINDS, quick=["sync"])


@each_way
@each_kind
def test_a_run_of_before_evaluates_to_the_same_numbers(kind, xla, resumed):
    found, before = resumed(kind, xla), json.loads((BEFORE / kind / "evaluation.json").read_text())
    assert found.timesteps == before["timesteps"] == 1024
    now = found.played["greedy"].summary()
    assert {key: now[key] for key in before["greedy"]} == before["greedy"]
    # Each slot has had a stream of its own since: sampled episodes are others, of the same policy. Those of compiled
    # environments, whose numbers follow from the step, are the same.
    now = found.played["sampled"].summary()
    if kind == "compiled":
        assert {key: now[key] for key in before["sampled"]} == before["sampled"]
    else:
        assert now["episodes"] == before["sampled"]["episodes"]
        assert abs(now["mean_return"] - before["sampled"]["mean_return"]) < 4 * before["sampled"]["std_return"]


@each_way
@each_kind
def test_a_run_of_before_resumes_with_the_same_episodes(kind, xla, resumed):
    found = resumed(kind, xla)
    columns = {name.removeprefix("history/"): c for name, c in found.expected.items() if name.startswith("history/")}
    assert len(columns) == 5
    for name, column in columns.items():
        np.testing.assert_array_equal(found.run.history[name], column, err_msg=name)


@each_way
@each_kind
def test_a_run_of_before_resumes_to_the_same_weights(kind, xla, resumed):
    found = resumed(kind, xla)
    expected = [found.expected[f"{'xla' if xla else 'graph'}/{i}"] for i in range(len(found.ended))]
    trained = {id(variable) for variable in found.run.policy.trainable_variables}
    for variable, ended, theirs in zip(found.run.policy.variables, found.ended, expected, strict=True):
        np.testing.assert_allclose(ended, theirs, atol=2e-5, rtol=1e-5, err_msg=variable.path)
    moved = [
        np.abs(ended - begun).max()
        for variable, begun, ended in zip(found.run.policy.variables, found.begun, found.ended, strict=True)
        if id(variable) in trained
    ]
    assert np.median(moved) > 2e-3  # a hundred times the tolerance


@each_way
@each_kind
def test_a_run_of_before_resumes_to_the_bit_where_the_cpu_is_the_same(kind, xla, resumed):
    found = resumed(kind, xla)
    if str(found.expected["machine"]) != made().machine():
        pytest.skip("these folders were made on another CPU or with other packages")
    for i, ended in enumerate(found.ended):
        np.testing.assert_array_equal(ended, found.expected[f"{'xla' if xla else 'graph'}/{i}"], strict=True)


class Stop(rlgrad.Callback):
    def on_update(self, run, metrics):
        run.stop |= run.timesteps >= 1536


@pytest.mark.slow
@each_kind
def test_a_run_of_before_that_is_interrupted_again_ends_with_the_same_bits(kind, resumed, tmp_path, monkeypatch):
    monkeypatch.setattr(actors, "gains_from_xla", lambda model: False)
    shutil.copytree(BEFORE / kind, tmp_path / "run")
    first = rlgrad.load(tmp_path / "run", callbacks=[Stop()], verbose=False)
    first.train()
    assert first.timesteps == 1536
    second = rlgrad.load(tmp_path / "run", verbose=False).train()
    for mine, theirs in zip(weights(second), resumed(kind, False).ended, strict=True):
        np.testing.assert_array_equal(mine, theirs, strict=True)
