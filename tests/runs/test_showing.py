"""What a person sees of a run in Python: the line at its end, and runs and evaluations as they show themselves."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import rlgrad
from rlgrad.runs.evaluation import Evaluation
from rlgrad.runs.showing import reached

QUICK = {"num_envs": 2, "num_steps": 8, "hidden_sizes": (4,), "total_timesteps": 320, "vectorization_mode": "sync"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown") / "run"
    return rlgrad.train("a2c", "CartPole-v1", run_dir=folder, evaluation_episodes=0, verbose=False, **QUICK)


def svg_of(page):
    return ET.fromstring(re.search(r"<svg.*</svg>", page, re.DOTALL)[0])


def test_training_ends_with_a_line_on_what_was_reached(in_a_folder_of_its_own, capsys):
    rlgrad.train("a2c", "CartPole-v1", evaluation_episodes=3, **QUICK)
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(
        r"CartPole-v1 is not solved yet after 320 steps in [\d.]+ s: greedy return [\d.]+ over 3 fresh episodes "
        r"\(sampled: [\d.]+\); solved from 475.",
        last,
    )
    rlgrad.train("a2c", "CartPole-v1", evaluation_episodes=0, **QUICK)
    assert capsys.readouterr().out.splitlines()[-1].endswith("not evaluated.")
    rlgrad.train("a2c", "CartPole-v1", evaluation_episodes=0, verbose=False, **QUICK)
    assert capsys.readouterr().out == ""


def test_a_run_shows_itself_in_a_line_and_with_its_curve(run):
    last = run.history["train/return"][-1]
    assert repr(run) == f"<Run of a2c on CartPole-v1: 320 of 320 steps, return in training {last:.1f}, in {run.path}>"
    page = run._repr_html_()
    (curve,) = [path for path in svg_of(page).iter("path") if "line" in path.get("class")]
    known = np.isfinite(run.history["train/return"]).sum()
    assert len(re.findall("[ML]", curve.get("d"))) == known
    assert "solved: 475" in page
    assert "http" not in page


def test_an_evaluation_shows_itself(run):
    evaluation = Evaluation(np.array([10.0, 20.0, 30.0, 40.0]), np.array([1, 2, 3, 4]), greedy=True)
    assert repr(evaluation) == "<Evaluation: return 25.0 [4.5, 45.5] over 4 greedy episodes of 2.5 steps>"
    assert "share of episodes" in "".join(svg_of(evaluation._repr_html_()).itertext())
    one = Evaluation(np.array([10.0]), np.array([1]), greedy=False)
    assert repr(one) == "<Evaluation: return 10.0 over 1 sampled episode of 1.0 steps>"
    svg_of(one._repr_html_())


def test_the_share_of_episodes_that_reached_a_return():
    shares = reached([30.0, 10.0, 20.0, 20.0], "")
    assert shares.x.tolist() == [10.0, 10.0, 20.0, 20.0, 30.0]
    assert shares.y.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_a_run_without_a_row_shows_itself_too(run, monkeypatch):
    monkeypatch.setattr(run._journal, "history", {name: [] for name in run.history})
    assert "<svg" not in run._repr_html_()
    assert "return" not in repr(run)


def test_names_are_no_markup(run, monkeypatch):
    monkeypatch.setattr(run, "path", run.path.parent / "<script>alert(1)</script>")
    assert "<script" not in run._repr_html_()


def test_a_callback_that_fails_at_the_evaluation_is_no_failed_evaluation(in_a_folder_of_its_own, caplog):
    class Fails(rlgrad.Callback):
        def on_evaluation(self, run, results):
            assert results["greedy"]["episodes"] == 2
            raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        rlgrad.train("a2c", "CartPole-v1", evaluation_episodes=2, callbacks=Fails(), verbose=False, **QUICK)
    assert "Not evaluated" not in caplog.text
