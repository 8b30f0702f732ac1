"""What is said about a diagnosis, and what is averaged for it."""

import math

import numpy as np
import pytest

from rlgrad.analysis.plotting import plot_diagnosis, running_mean
from rlgrad.diagnostics import inspection
from rlgrad.diagnostics.diagnosis import Diagnosis, Head, Variances


def head(scale, snr=0.5):
    return Head(signal=1.0, noise=scale, noise_scale=scale, snr=snr, layers={})


@pytest.mark.parametrize(
    ("scale", "sentence"),
    [
        (300.0, "An update on 100 steps makes 25 % of the progress of one without noise: a larger batch would pay"),
        (100.0, "makes 50 % of the progress of one without noise: the batch is about right"),
        (25.0, "makes 80 % of the progress of one without noise: a smaller batch would do almost as well"),
        (200.0, "the batch is about right"),
        (200.1, "a larger batch would pay"),
        (50.0, "the batch is about right"),
        (49.9, "a smaller batch would do almost as well"),
        (math.inf, "cannot be told from noise in 100 steps"),
        (math.nan, "fewer than two samples, or a gradient of 0"),
    ],
)
def test_the_noise_scale_says_whether_the_batch_is_large_enough(scale, sentence):
    (row,) = [r for r in inspection.rows(Diagnosis("step", 100, 0, policy=head(scale))) if r.name == "noise scale"]
    assert sentence in row.meaning


@pytest.mark.parametrize(
    ("agent", "sentence"),
    [
        (12.0, "makes it worse"),
        (6.0, "not learned yet"),
        (3.0, "better than any constant"),
        (10.0, "not learned yet"),  # as without a baseline, whose variance is 10
        (5.0, "better than any constant"),  # as the best constant
        (math.nan, "none to compare"),
    ],
)
def test_the_variance_says_whether_the_baseline_helps(agent, sentence):
    found = Diagnosis("step", 100, 0, policy=head(1.0), variances=Variances(10.0, agent, 5.0, 4.0, 2.0))
    (row,) = [r for r in inspection.rows(found) if r.name == "variance, agent"]
    assert sentence in row.meaning


@pytest.mark.parametrize(
    ("share", "sentence"),
    [
        (0.5, "both have a say"),
        (0.9, "Late steps decide"),
        (0.1, "little say"),
        (0.25, "both have a say"),
        (0.75, "both have a say"),
        (0.0, "little say"),
        (1.0, "Late steps decide"),
        (-0.2, "Late steps pull"),
        (1.2, "Early"),
    ],
)
def test_the_share_says_which_steps_decide(share, sentence):
    found = Diagnosis("step", 2, 0, policy=head(1.0), share_by_time=[1 - share, share])
    (row,) = [r for r in inspection.rows(found) if r.name == "share of later half"]
    assert sentence in row.meaning


def test_every_head_has_its_rows_and_each_row_its_number():
    policy = Head(signal=1234.5, noise=200.0, noise_scale=50.0, snr=2.0, layers={"dense": 0.25})
    value = Head(signal=-1.0, noise=3.0, noise_scale=math.inf, snr=-0.5, layers={"dense_1": math.nan, "v": 1.5})
    found = Diagnosis(
        "episode",
        8,
        0,
        policy=policy,
        value=value,
        cosines=[1.0, -0.5, math.nan, 0.5],
        share_by_time=[0.2, 0.8],
        share_by_episode=[0.7, 0.2, 0.1, 0.0],
        variances=Variances(10.0, 4.0, 5.0, 2.0, 3.0),
    )
    history = {"gradient/noise": [9.0, 2.0], "gradient/signal": [9.0, 0.5]}
    told = {row.name: (row.value, row.meaning) for row in inspection.rows(found, history)}
    assert {name: number for name, (number, _) in told.items()} == {
        "signal ‖G‖²": "1,234",
        "noise tr Σ": "200",
        "noise scale": "50",
        "SNR": "2",
        "cosine to the mean": "0.333",
        "share of later half": "80 %",
        "largest episode": "70 %",
        "variance, agent": "40 %",
        "variance, constant": "50 %",
        "variance, per weight": "20 %",
        "noise scale, run": "4",
        "value: noise scale": "∞",
        "value: SNR": "-0.5",
        "SNR, policy: dense": "0.25",
        "SNR, value: dense_1": "–",
        "SNR, value: v": "1.5",
    }
    assert told["cosine to the mean"][1] == "33.3 % of the episodes pull against the mean gradient."
    assert told["largest episode"][1].endswith("of one in the rollout; an even share is 25 %.")
    assert told["noise tr Σ"][1].endswith("that of the mean over 8 episodes is 1/8 of it.")
    assert "signal than noise" in told["SNR"][1]
    assert "cannot be told from noise" in told["value: SNR"][1]


def test_signal_and_noise_are_averaged_before_they_are_divided():
    history = {
        "gradient/noise": [9.0] * 12 + [math.nan, 1.0, 3.0, 2.0, 2.0],
        "gradient/signal": [9.0] * 12 + [0.0, 4.0, -2.0, 1.0, 1.0],
    }
    assert inspection.averaged_noise_scale(history) == pytest.approx(2.0)
    assert inspection.averaged_noise_scale({"gradient/noise": [1.0], "gradient/signal": [-1.0]}) == math.inf
    assert inspection.averaged_noise_scale({}) is None


def test_running_means_leave_out_what_is_not_finite():
    found = running_mean([math.nan, 2.0, 4.0, math.inf, 9.0], 3)
    np.testing.assert_allclose(found, [math.nan, 2.0, 3.0, 3.0, 6.5])


def test_a_diagnosis_of_nothing_can_be_drawn_and_told(tmp_path):
    empty = Diagnosis("step", 0, 0)
    assert inspection.rows(empty) == []
    assert plot_diagnosis(empty, None, tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")
    undefined = Diagnosis(
        "episode", 1, 0, policy=head(math.nan, math.nan), cosines=[math.nan], share_by_time=[math.nan]
    )
    assert {row.value for row in inspection.rows(undefined)} == {"1", "–"}
    assert plot_diagnosis(undefined, None, tmp_path / "undefined.png").exists()
