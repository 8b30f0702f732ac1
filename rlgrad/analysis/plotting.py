"""Parts that all pictures share, and the picture of a diagnosis."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlgrad.analysis.statistics import running_mean
from rlgrad.core.faults import whole

if TYPE_CHECKING:  # it imports TensorFlow, which a learning curve does not need
    from rlgrad.diagnostics.diagnosis import Diagnosis

_BARS = 64
_COLORS = {"policy": "C0", "value": "C1", "q": "C2"}
_PICTURES = (".png", ".pdf", ".svg")


def check_picture(path: Path) -> None:
    """Raise a ValueError for a picture that could not be written, before anything is computed for it."""
    if path.suffix.lower() not in _PICTURES:
        raise ValueError(f"A picture's name ends in {', '.join(_PICTURES[:-1])} or {_PICTURES[-1]}, got {str(path)!r}.")
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {str(path.parent)!r} to write {path.name} into.")


def plot_diagnosis(
    diagnosis: "Diagnosis", history: Mapping[str, Sequence[float]] | None, output: Path, name: str = ""
) -> Path:
    """Plot signal-to-noise by layer, cosines, shares over time and variances, and what was logged over training.

    Args:
        diagnosis: of one rollout.
        history: metrics of the run by name. `None`: the run logged no diagnostics.
        output: PNG to write.
        name: of the run.

    Returns:
        `output`.
    """
    panels = list(_panels(diagnosis, history))
    lines = min(2, len(panels))
    columns = -(-len(panels) // lines)
    figure = blank(4.6 * columns, 3.5 * lines)
    what = f"{diagnosis.count:,} {diagnosis.unit}s after {diagnosis.timesteps:,} environment steps"
    figure.suptitle(f"{name}: {what}" if name else what, fontsize=11)
    for i, draw in enumerate(panels):
        axes = figure.add_subplot(lines, columns, i % lines * columns + i // lines + 1)
        draw(axes)
        axes.grid(alpha=0.3)
    with whole(output) as partial:
        figure.savefig(partial, dpi=110)
    return output


def blank(width: float, height: float) -> Any:
    """Return an empty figure of a size in inches."""
    # The object interface draws without a display and leaves a notebook's own figures alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _panels(diagnosis: "Diagnosis", history: Mapping[str, Sequence[float]] | None) -> Iterator[Callable[[Any], object]]:
    """Return a function for each panel, that draws it: those for which there are numbers."""
    yield lambda axes: _plot_layers(axes, diagnosis)
    if diagnosis.share_by_time:
        yield lambda axes: _plot_shares(axes, diagnosis)
    if diagnosis.cosines:
        yield lambda axes: _plot_cosines(axes, diagnosis)
    if diagnosis.variances is not None:
        yield lambda axes: _plot_variances(axes, diagnosis)
    if history is None:
        return
    if diagnosis.policy is not None:
        yield lambda axes: _plot_noise_scale(axes, history, diagnosis)
    if diagnosis.variances is not None:
        yield lambda axes: _plot_ratios(axes, history)
    if diagnosis.q is not None:
        yield lambda axes: _plot_snr(axes, history, diagnosis)


def _plot_layers(axes: Any, diagnosis: "Diagnosis") -> None:
    bars = [(kind, *item) for kind, head in diagnosis.heads.items() for item in head.layers.items()][::-1]
    for i, (kind, _, snr) in enumerate(bars):
        if np.isfinite(snr):
            axes.barh(i, snr, color=_COLORS[kind])
    axes.set_yticks(range(len(bars)), [f"{kind}: {layer}" for kind, layer, _ in bars], fontsize=8)
    axes.set_xscale("symlog", linthresh=1.0)
    axes.axvline(1.0, color="grey", linestyle="--", linewidth=1)
    axes.set_xlabel("signal-to-noise ratio of the mean gradient\n(dashed: as much signal as noise)")
    axes.set_title("Signal by layer", fontsize=10)


def _plot_cosines(axes: Any, diagnosis: "Diagnosis") -> None:
    known = [c for c in diagnosis.cosines if np.isfinite(c)]
    axes.hist(known, bins=np.linspace(-1.0, 1.0, 41), color="C0")
    axes.axvline(0.0, color="grey", linewidth=1)
    axes.set_xlabel("cosine to the mean gradient")
    axes.set_ylabel(f"{diagnosis.unit}s")
    axes.set_title("Who pulls along, who against", fontsize=10)


def _plot_shares(axes: Any, diagnosis: "Diagnosis") -> None:
    length = len(diagnosis.share_by_time)
    width = -(-length // _BARS) or 1
    starts = np.arange(0, length, width)
    share = 100.0 * np.add.reduceat(diagnosis.share_by_time, starts) if length else starts
    axes.bar(starts, share, width=width, align="edge", color=np.where(share < 0.0, "C3", "C0"))
    axes.axhline(0.0, color="grey", linewidth=1)
    together = f", {width} to a bar" if width > 1 else ""
    axes.set_xlabel(f"time step of the {'episode' if diagnosis.unit == 'episode' else 'rollout'}{together}")
    axes.set_ylabel("share of the policy gradient, %")
    axes.set_title("Which time steps it comes from", fontsize=10)


def _plot_variances(axes: Any, diagnosis: "Diagnosis") -> None:
    v = diagnosis.variances
    names = ("none", "agent's", "best constant", "best per weight")
    values = [] if v is None else [v.none, v.agent, v.optimal, v.componentwise]
    for name, value in zip(names, values, strict=False):
        height = 100.0 * value / values[0] if values[0] else np.nan
        axes.bar_label(axes.bar(name, height, color="C1" if name == "agent's" else "C0"), fmt="%.3g %%", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("baseline")
    axes.set_ylabel("variance of the policy gradient,\n% of that without a baseline")
    axes.set_title("What a baseline is worth", fontsize=10)


def _plot_noise_scale(axes: Any, history: Mapping[str, Sequence[float]], diagnosis: "Diagnosis") -> None:
    """Plot the noise scale. Signal and noise are averaged first, as the ratio of a single rollout is mostly chance."""
    noise, signal = (np.asarray(history[f"gradient/{name}"]) for name in ("noise", "signal"))
    known = np.isfinite(noise) & np.isfinite(signal)
    steps = np.asarray(history["time/timesteps"])[known]
    window = max(5, len(steps) // 10)
    smooth_noise, smooth_signal = running_mean(noise[known], window), running_mean(signal[known], window)
    scale = np.divide(smooth_noise, smooth_signal, out=np.full(len(steps), np.nan), where=smooth_signal > 0.0)
    axes.plot(steps, scale, linewidth=1.6, label=f"mean of {window} diagnoses")
    axes.axhline(diagnosis.count, color="grey", linestyle="--", linewidth=1, label=f"batch: {diagnosis.count:,}")
    axes.set_yscale("log")
    axes.set_xlabel("environment steps")
    axes.set_ylabel(f"gradient noise scale, {diagnosis.unit}s\n(gap: no signal to be seen)")
    axes.set_title("Batch size that the gradient asks for", fontsize=10)
    axes.legend(fontsize=8)


def _plot_snr(axes: Any, history: Mapping[str, Sequence[float]], diagnosis: "Diagnosis") -> None:
    for head in diagnosis.heads:
        values = np.asarray(history.get(f"gradient/{'' if head == 'policy' else f'{head}_'}snr", ()))
        known = np.isfinite(values)
        if known.any():
            steps, window = np.asarray(history["time/timesteps"])[known], max(5, known.sum() // 10)
            axes.plot(steps, running_mean(values[known], window), linewidth=1.4, color=_COLORS[head], label=head)
    axes.axhline(1.0, color="grey", linestyle="--", linewidth=1)
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set_xlabel("environment steps")
    axes.set_ylabel(f"signal-to-noise ratio\nof the mean over {diagnosis.count:,} {diagnosis.unit}s")
    axes.set_title("Signal while training", fontsize=10)
    axes.legend(fontsize=8)


def _plot_ratios(axes: Any, history: Mapping[str, Sequence[float]]) -> None:
    from matplotlib.ticker import LogFormatter

    labels = {"": "agent's baseline", "optimal_": "best constant", "componentwise_": "best per weight"}
    for prefix, label in labels.items():
        values = np.asarray(history[f"gradient/{prefix}variance_ratio"])
        known = np.isfinite(values)
        steps = np.asarray(history["time/timesteps"])[known]
        axes.plot(steps, 100.0 * running_mean(values[known], max(5, known.sum() // 10)), linewidth=1.4, label=label)
    axes.axhline(100.0, color="grey", linestyle="--", linewidth=1)
    axes.set_yscale("log")
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(LogFormatter(minor_thresholds=(2.0, 0.5)))
    axes.tick_params(axis="y", which="both", labelsize=8)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("variance of the policy gradient,\n% of that without a baseline")
    axes.set_title("Baseline while training", fontsize=10)
    axes.legend(fontsize=8)
