"""The part of a report that shows what a run recorded of its gradients: by layer, by time step, and over training."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from rlgrad.analysis import pages, svg
from rlgrad.analysis.statistics import running_mean
from rlgrad.diagnostics import diagnosis as diagnoses

_MOST_LAYERS = 8  # lines of one figure


def diagnosed(path: Path, metrics: Mapping[str, Sequence[float]], name: str) -> str:
    """Return the diagnostics of a run as HTML; nothing if it recorded none.

    Args:
        path: the run's folder.
        metrics: columns of metrics.csv.
        name: of the run, for a heading.
    """
    if not (path / diagnoses.FILE).is_file():
        return ""
    found = diagnoses.read(path)
    what = f"Of one rollout of {found.count:,} {found.unit}s after {found.timesteps:,} steps, and over training."
    figures = [*_by_layer(found), *_by_time(found), *_baselines(found), *_over_training(found, metrics)]
    return (
        pages.heading(name) + pages.text(f"{what} docs/diagnostics.md explains each.", soft=True) + pages.grid(*figures)
    )


def _by_layer(found: diagnoses.Diagnosis) -> Iterator[str]:
    layers = [(f"{kind}: {layer}", snr) for kind, head in found.heads.items() for layer, snr in head.layers.items()]
    if layers:
        names, values = zip(*layers, strict=True)
        figure = svg.bars(names, values, label="signal-to-noise ratio", level=1.0, width=420.0)
        yield pages.figure(figure, "Signal by layer; dashed: as much signal as noise.")


def _by_time(found: diagnoses.Diagnosis) -> Iterator[str]:
    share = 100.0 * np.asarray(found.share_by_time, np.float64)
    if len(share) > 1:
        series = svg.Series("share", np.arange(len(share)), share, steps=True)
        of = "episode" if found.unit == "episode" else "rollout"
        figure = svg.lines([series], x_label=f"time step of the {of}", y_label="share, %", width=420.0)
        yield pages.figure(figure, "Which time steps the policy gradient comes from.")


def _baselines(found: diagnoses.Diagnosis) -> Iterator[str]:
    v = found.variances
    if v is not None and v.none > 0.0:
        named = {"none": v.none, "the agent's": v.agent, "best constant": v.optimal, "best per weight": v.componentwise}
        values = [100.0 * value / v.none for value in named.values()]
        figure = svg.bars([*named], values, label="variance, % of that without a baseline", width=420.0)
        yield pages.figure(figure, "What a baseline is worth: the variance of the policy gradient.")


def _over_training(found: diagnoses.Diagnosis, metrics: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Yield noise scale and signal over training. Single rollouts are mostly chance, so their numbers are averaged first."""
    signal, noise = (_smooth(metrics, f"gradient/{name}") for name in ("signal", "noise"))
    if len(signal.x) and np.array_equal(signal.x, noise.x):
        ratio = np.divide(noise.y, signal.y, out=np.full(len(noise.y), np.nan), where=signal.y > 0.0)
        level = (float(found.count), f"batch: {found.count:,}")
        scale = svg.Series("noise scale", signal.x, ratio)
        figure = svg.lines(
            [scale], x_label="environment steps", y_label=f"{found.unit}s", level=level, log=True, width=420.0
        )
        yield pages.figure(figure, "Gradient noise scale: the batch size that the gradient asks for; a gap: no signal.")
    prefix = "gradient/snr/"
    layers = [_smooth(metrics, name, name.removeprefix(prefix)) for name in metrics if name.startswith(prefix)]
    shown = [each for each in layers if len(each.x)][:_MOST_LAYERS]
    if shown:
        level = (1.0, "as much signal as noise")
        figure = svg.lines(
            shown, x_label="environment steps", y_label="signal-to-noise ratio", level=level, width=420.0
        )
        yield pages.figure(
            figure + svg.legend([each.name for each in shown]), "Signal by layer of the policy, averaged."
        )


def _smooth(metrics: Mapping[str, Sequence[float]], name: str, label: str = "") -> svg.Series:
    """Return the running mean of a metric where it has values, over a tenth of them or five."""
    steps, values = (np.asarray(metrics.get(each, []), np.float64) for each in ("time/timesteps", name))
    known = np.isfinite(values)
    if len(values) != len(steps) or not known.any():
        return svg.Series(label, np.zeros(0), np.zeros(0))
    return svg.Series(label, steps[known], running_mean(values[known], max(5, int(known.sum()) // 10)))
