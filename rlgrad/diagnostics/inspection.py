"""A diagnosis in words: each number with a sentence that says what it means for the next run."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rlgrad.diagnostics.diagnosis import Diagnosis, Head

History = Mapping[str, Sequence[float]]


class Row(NamedTuple):
    """A line of the table of a diagnosis."""

    name: str
    value: str
    meaning: str


def rows(diagnosis: Diagnosis, history: History | None = None) -> list[Row]:
    """Return the table of a diagnosis.

    Args:
        diagnosis: of one rollout.
        history: metrics of the run by name. `None`: the run logged no diagnostics.

    Returns:
        A row for each number that applies.
    """
    found = []
    samples = f"{diagnosis.count:,} {plural(diagnosis)}"
    if diagnosis.policy is not None:
        found += _of_policy(diagnosis, diagnosis.policy, samples)
        over_time = None if history is None else averaged_noise_scale(history)
        if over_time is not None:
            meaning = "Signal and noise each averaged over the last quarter of training: steadier than one rollout. "
            found.append(
                Row("noise scale, run", amount(over_time), meaning + _batch(over_time, diagnosis.count, samples))
            )
    for name, head in diagnosis.heads.items():
        if name != "policy":
            meaning = _batch(head.noise_scale, diagnosis.count, samples)
            found.append(Row(f"{name}: noise scale", amount(head.noise_scale), meaning))
            found.append(Row(f"{name}: SNR", amount(head.snr), _snr(head.snr, samples)))
    for name, head in diagnosis.heads.items():
        for layer, snr in head.layers.items():
            found.append(Row(f"SNR, {name}: {layer}", amount(snr), f"This layer of the {name}'s gradient by itself."))
    return found


def averaged_noise_scale(history: History) -> float | None:
    """Return mean noise over mean signal in the last quarter of the logged diagnoses. `None`: there are none."""
    pairs = zip(history.get("gradient/noise", ()), history.get("gradient/signal", ()), strict=True)
    known = [(noise, signal) for noise, signal in pairs if math.isfinite(noise) and math.isfinite(signal)]
    if not known:
        return None
    late = known[-max(1, len(known) // 4) :]
    noise, signal = (sum(column) for column in zip(*late, strict=True))
    return noise / signal if signal > 0.0 else math.inf


def amount(x: float) -> str:
    """Format a number for a table: three digits, thousands separated, ∞ for infinity and – for NaN."""
    if math.isnan(x):
        return "–"
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"


def plural(diagnosis: Diagnosis) -> str:
    """Return the plural of a unit: `steps` or `episodes`."""
    return f"{diagnosis.unit}s"


def _of_policy(diagnosis: Diagnosis, head: Head, samples: str) -> list[Row]:
    found = [
        Row(
            "signal ‖G‖²",
            amount(head.signal),
            "Squared length of the policy gradient without noise, estimated; it may come out below 0.",
        ),
        Row(
            "noise tr Σ",
            amount(head.noise),
            f"Variance of one {diagnosis.unit}'s gradient; that of the mean over {samples} is 1/{diagnosis.count:,} of it.",
        ),
        Row("noise scale", amount(head.noise_scale), _batch(head.noise_scale, diagnosis.count, samples)),
        Row("SNR", amount(head.snr), _snr(head.snr, samples)),
        Row("cosine to the mean", amount(diagnosis.cosine), _cosine(diagnosis)),
    ]
    if diagnosis.share_by_time:
        found += [
            Row("share of later half", percent(diagnosis.late_share), _late(diagnosis.late_share)),
            Row("largest episode", percent(diagnosis.largest_share), _largest(diagnosis)),
        ]
    if diagnosis.variances is not None:
        v = diagnosis.variances
        of_agent, of_best = _over(v.agent, v.none), _over(v.optimal, v.none)
        found += [
            Row("variance, agent", percent(of_agent), _baseline(of_agent, of_best)),
            Row(
                "variance, constant",
                percent(of_best),
                f"With the best constant baseline, {amount(v.baseline)} in units of the return.",
            ),
            Row(
                "variance, per weight",
                percent(_over(v.componentwise, v.none)),
                "With the best constant baseline for each weight: no constant does better.",
            ),
        ]
    return found


def _batch(scale: float, count: int, samples: str) -> str:
    if math.isnan(scale):
        return "Nothing to say: fewer than two samples, or a gradient of 0."
    if math.isinf(scale):
        return f"The signal cannot be told from noise in {samples}: average more of them, by a larger batch."
    progress = percent(1.0 / (1.0 + scale / count))
    advice = (
        "a larger batch would pay almost in proportion"
        if scale > 2 * count
        else "a smaller batch would do almost as well"
        if scale < count / 2
        else "the batch is about right"
    )
    return f"An update on {samples} makes {progress} of the progress of one without noise: {advice}."


def _snr(snr: float, samples: str) -> str:
    if math.isnan(snr):
        return "Nothing to say: fewer than two samples, or a gradient of 0."
    if snr <= 0.0:
        return f"The mean over {samples} cannot be told from noise."
    return f"The mean over {samples} is more {'signal than noise' if snr > 1.0 else 'noise than signal'}."


def _cosine(diagnosis: Diagnosis) -> str:
    known = [c for c in diagnosis.cosines if math.isfinite(c)]
    against = percent(sum(c < 0.0 for c in known) / len(known)) if known else "–"
    return f"{against} of the {plural(diagnosis)} pull against the mean gradient."


def _late(share: float) -> str:
    if math.isnan(share):
        return "Nothing to say: a single time step, or a gradient of 0."
    if not 0.0 <= share <= 1.0:
        return f"{'Late' if share < 0.0 else 'Early'} steps pull against the rest."
    if 0.25 <= share <= 0.75:
        return "Early and late steps both have a say."
    return (
        "Late steps decide."
        if share > 0.75
        else "Late steps have little say: look at gamma, gae_lambda and the baseline."
    )


def _largest(diagnosis: Diagnosis) -> str:
    count = len(diagnosis.share_by_episode)
    return (
        f"Of {count} episodes or parts of one in the rollout; an even share is {percent(1.0 / count)}." if count else ""
    )


def _baseline(agent: float, best: float) -> str:
    compared = "Of the variance without a baseline, with the agent's advantages: "
    if math.isnan(agent) or math.isnan(best):
        return compared + "there is none to compare with."
    if agent > 1.0:
        return compared + "this baseline makes it worse."
    if agent > best:
        return compared + "a constant would do better, so the baseline is not learned yet."
    return compared + "better than any constant."


def percent(x: float) -> str:
    """Format a fraction as a percentage."""
    return f"{100 * x:.3g} %" if math.isfinite(x) else "–"


def _over(a: float, b: float) -> float:
    return a / b if b else math.nan
