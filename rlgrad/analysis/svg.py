"""Figures as SVG text, for HTML pages: no script, no font, no background, so that they fit light pages and dark ones.

Every text is escaped here. Axes are in `currentColor`; series have the classes `s0` … `s7`, whose colours a page may set.
"""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
COLORS = ("#2f7ed8", "#e07b1f", "#2f9e57", "#c4479a", "#8468d4", "#a8861a", "#1f9ea3", "#d24a43")
_RIGHT, _TOP, _BOTTOM = 20.0, 12.0, 46.0
_LETTER = 10.0  # room for a letter, in the largest size in which a page shows it
_TICKS = 5
_LONGEST = 22  # letters of a name beside a bar
_NONE: Mapping[str, float] = {}
_POINTS = 400  # of a line, which is as many as a figure shows


@dataclass(frozen=True)
class Series:
    """A line, with a band around it if there is one, and a point at its end if there is one.

    Attributes:
        name: for the legend.
        x: float (P,).
        y: float (P,); NaN is a gap.
        low: lower end of the band, float (P,). `None`: there is none.
        high: upper end.
        end: a mean and its interval, (mean, low, high), drawn beyond the last x.
        steps: draw steps instead of straight lines.
    """

    name: str
    x: Any
    y: Any
    low: Any = None
    high: Any = None
    end: tuple[float, float, float] | None = None
    steps: bool = False


def lines(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    level: tuple[float, str] | None = None,
    marks: Mapping[str, float] = _NONE,
    log: bool = False,
    width: float = 640.0,
    height: float = 300.0,
) -> str:
    """Return a figure of lines.

    Args:
        series: the lines, in the order of their colours.
        x_label: below the x axis.
        y_label: beside the y axis.
        level: a dashed horizontal line, and what it means.
        marks: dashed vertical lines: the letter above each, and its x.
        log: the y axis is logarithmic; values that are not above 0 are gaps.
        width: in units of the figure, which scales with the page.
        height: likewise.
    """
    drawn = [_thinned(each, log) for each in series]
    scale = _Scale.of(drawn, level, log, width, height)
    parts = [*_axes(scale, x_label, y_label)]
    if level is not None and not (log and level[0] <= 0.0):
        y = scale.y(_logged(level[0], log))
        parts.append(f'<path class="level" d="M{scale.left:.1f} {y:.1f}H{width - _RIGHT:.1f}"/>')
        parts.append(_text(scale.left + 8.0, y - 5.0, level[1], "start"))
    for letter, at in marks.items():
        parts.append(f'<path class="level" d="M{scale.x(at):.1f} {_TOP + 4.0}V{height - _BOTTOM:.1f}"/>')
        parts.append(_text(scale.x(at), _TOP, letter, "middle"))
    for i, each in enumerate(drawn):
        parts += _line(each, scale, i % len(COLORS), log)
    return _figure("".join(parts), width, height, f"{y_label} against {x_label}")


def bars(
    names: Sequence[str],
    values: Sequence[float],
    *,
    label: str,
    low: Sequence[float] = (),
    high: Sequence[float] = (),
    level: float | None = None,
    width: float = 640.0,
) -> str:
    """Return a figure of horizontal bars, or of points with intervals where `low` and `high` are given."""
    left, row = 16.0 + _LETTER * min(_LONGEST, max(map(len, names), default=0)), 24.0
    height = _TOP + row * len(names) + _BOTTOM
    ends = [v for v in (*values, *low, *high, *(() if level is None else (level,))) if math.isfinite(v)]
    ends += [] if low else [0.0]
    bottom, top = _padded(min(ends, default=0.0), max(ends, default=1.0))

    def at(value: float) -> float:
        return left + (value - bottom) / (top - bottom) * (width - left - _RIGHT)

    parts = []
    for tick in _ticks(bottom, top):
        parts.append(f'<path class="grid" d="M{at(tick):.1f} {_TOP}V{height - _BOTTOM:.1f}"/>')
        parts.append(_text(at(tick), height - _BOTTOM + 16.0, _short(tick), "middle"))
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        y = _TOP + row * (i + 0.5)
        shown = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        parts.append(_text(left - 8.0, y + 4.0, shown, "end", title=name))
        if not math.isfinite(value):
            continue
        if low:
            parts.append(f'<path class="line s{i % 8}" d="M{at(low[i]):.1f} {y:.1f}H{at(high[i]):.1f}"/>')
            parts.append(f'<circle class="dot s{i % 8}" cx="{at(value):.1f}" cy="{y:.1f}" r="4.5"/>')
        else:
            begin, end = sorted((at(0.0), at(value)))
            long = max(end - begin, 0.5)
            parts.append(f'<rect class="bar s0" x="{begin:.1f}" y="{y - 7.0:.1f}" width="{long:.1f}" height="14"/>')
    if level is not None:
        parts.append(f'<path class="level" d="M{at(level):.1f} {_TOP}V{height - _BOTTOM:.1f}"/>')
    parts.append(_text(width / 2.0, height - 8.0, label, "middle"))
    return _figure("".join(parts), width, height, label)


def legend(names: Sequence[str]) -> str:
    """Return the names of the series with their colours, as HTML."""
    each = "".join(
        f'<li><span class="key k{i % len(COLORS)}"></span>{html.escape(n)}</li>' for i, n in enumerate(names)
    )
    return f'<ul class="legend">{each}</ul>'


def style() -> str:
    """Return the style sheet that the figures need."""
    series = "".join(
        f".fig .line.s{i},.fig .dot.s{i}{{stroke:{c}}}"
        f".fig .dot.s{i},.fig .band.s{i},.fig .bar.s{i}{{fill:{c}}}.k{i}{{background:{c}}}"
        for i, c in enumerate(COLORS)
    )
    return (
        ".fig{display:block;width:100%;height:auto;max-width:46rem;font:12px system-ui,sans-serif;color:inherit}"
        ".fig text{fill:currentColor}.fig .axis,.fig .grid,.fig .level{stroke:currentColor;fill:none}"
        ".fig .axis{opacity:.6}.fig .grid{opacity:.14}.fig .level{opacity:.6;stroke-dasharray:5 4}"
        ".fig .line{fill:none;stroke-width:1.8;stroke-linejoin:round}.fig .band{opacity:.2}.fig .bar{opacity:.85}"
        ".legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;padding:0;margin:.3rem 0}"
        ".legend .key{display:inline-block;width:1.1em;height:.35em;margin-right:.45em;vertical-align:middle;border-radius:2px}"
        + series
    )


@dataclass(frozen=True)
class _Scale:
    """From data to places in the figure. With `log` the y data are logarithms to base 10."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    width: float
    height: float
    log: bool
    left: float  # room for the numbers of the y axis, and its label
    beyond: float  # room at the right for the points of ends

    @classmethod
    def of(
        cls, series: Sequence[Series], level: tuple[float, str] | None, log: bool, width: float, height: float
    ) -> "_Scale":
        """Return the scale on which everything is seen."""
        xs = _finite([each.x for each in series])
        ends = [_logged(v, log) for each in series for v in each.end or ()]
        ys = _finite([part for each in series for part in (each.y, each.low, each.high) if part is not None] + [ends])
        if level is not None and not (log and level[0] <= 0.0):
            ys = np.append(ys, _logged(level[0], log))
        y_low, y_high = _padded(*((ys.min(), ys.max()) if len(ys) else (0.0, 1.0)))
        x_low, x_high = (xs.min(), xs.max()) if len(xs) else (0.0, 1.0)
        numbers = max((len(_label(t, log)) for t in _ticks(y_low, y_high)), default=1)
        beyond = 14.0 * len(series) if any(each.end for each in series) else 0.0
        left, beyond = 28.0 + _LETTER * numbers, min(beyond, 0.2 * width)
        return cls(float(x_low), float(x_high), y_low, y_high, width, height, log, left, beyond)

    def x(self, value: Any) -> Any:
        span = self.x_high - self.x_low or 1.0
        return self.left + (value - self.x_low) / span * (self.width - self.left - _RIGHT - self.beyond)

    def y(self, value: Any) -> Any:
        return (
            self.height - _BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (self.height - _TOP - _BOTTOM)
        )


def _axes(scale: _Scale, x_label: str, y_label: str) -> Iterator[str]:
    right, bottom = scale.width - _RIGHT, scale.height - _BOTTOM
    for tick in _ticks(scale.x_low, scale.x_high):
        yield _text(scale.x(tick), bottom + 16.0, _short(tick), "middle")
    for tick in _ticks(scale.y_low, scale.y_high):
        yield f'<path class="grid" d="M{scale.left:.1f} {scale.y(tick):.1f}H{right:.1f}"/>'
        yield _text(scale.left - 6.0, scale.y(tick) + 4.0, _label(tick, scale.log), "end")
    yield f'<path class="axis" d="M{scale.left:.1f} {_TOP}V{bottom:.1f}H{right:.1f}"/>'
    yield _text((scale.left + right) / 2.0, scale.height - 8.0, x_label, "middle")
    place = f'transform="translate(13 {(_TOP + bottom) / 2.0:.1f}) rotate(-90)" text-anchor="middle"'
    yield f"<text {place}>{html.escape(y_label)}</text>"


def _line(each: Series, scale: _Scale, color: int, log: bool) -> Iterator[str]:
    x, y = scale.x(each.x), scale.y(each.y)
    if each.low is not None:
        low, high = scale.y(each.low), scale.y(each.high)
        known = np.isfinite(low) & np.isfinite(high)
        there = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[known], high[known], strict=True))
        back = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[known][::-1], low[known][::-1], strict=True))
        yield f'<polygon class="band s{color}" points="{there} {back}"/>'
    path, begun = [], False
    for a, b in zip(x, y, strict=True):
        if math.isfinite(b):
            move = f"H{a:.1f}V{b:.1f}" if each.steps and begun else f"{'L' if begun else 'M'}{a:.1f} {b:.1f}"
            path.append(move)
        begun = math.isfinite(b)
    name = f"<title>{html.escape(each.name)}</title>"
    if path:
        yield f'<path class="line s{color}" d="{"".join(path)}">{name}</path>'
    if len(path) == 1:  # a single point draws no line
        (a, *_), (b, *_) = x[np.isfinite(y)], y[np.isfinite(y)]
        yield f'<circle class="dot s{color}" cx="{a:.1f}" cy="{b:.1f}" r="3">{name}</circle>'
    if each.end is not None:
        mean, low, high = (scale.y(_logged(value, log)) for value in each.end)
        at = scale.width - _RIGHT - scale.beyond + 8.0 + 12.0 * color
        if math.isfinite(low) and math.isfinite(high):
            caps = "".join(f"M{at - 3:.1f} {end:.1f}h6" for end in (low, high))
            yield f'<path class="line s{color}" d="M{at:.1f} {low:.1f}V{high:.1f}{caps}"/>'
        yield f'<circle class="dot s{color}" cx="{at:.1f}" cy="{mean:.1f}" r="3.5">{name}</circle>'


def _thinned(each: Series, log: bool) -> Series:
    """Return a series of few enough points, as logarithms if the axis is logarithmic."""
    x = np.asarray(each.x, np.float64)
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).astype(int)) if len(x) else np.zeros(0, int)

    def part(values: Any) -> Any:
        return None if values is None else _logged(np.asarray(values, np.float64)[kept], log)

    return Series(each.name, x[kept], part(each.y), part(each.low), part(each.high), each.end, each.steps)


def _logged(value: Any, log: bool) -> Any:
    if not log:
        return value
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(np.asarray(value) > 0.0, np.log10(value), np.nan)
    return float(logs) if logs.ndim == 0 else logs


def _finite(parts: Sequence[Any]) -> Array:
    joined: Array = np.concatenate([np.ravel(np.asarray(part, np.float64)) for part in parts]) if parts else np.zeros(0)
    finite: Array = joined[np.isfinite(joined)]
    return finite


def _padded(low: float, high: float) -> tuple[float, float]:
    low, high = float(low), float(high)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers in a range, about five."""
    span = (high - low) / _TICKS
    if not span > 0.0 or not math.isfinite(span):
        return [low]
    unit = 10.0 ** math.floor(math.log10(span))
    step = next(unit * m for m in (1.0, 2.0, 5.0, 10.0) if unit * m >= span)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _label(tick: float, log: bool) -> str:
    return _short(tick) if not log else _short(10.0**tick) if abs(tick) < 300.0 else f"1e{tick:g}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if 1000.0 <= abs(value) < 1e7 and float(value).is_integer() else f"{value:.4g}"


def _text(x: float, y: float, text: str, anchor: str, title: str = "") -> str:
    full = f"<title>{html.escape(title)}</title>" if title and title != text else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}{full}</text>'


def _figure(content: str, width: float, height: float, label: str) -> str:
    named = f'role="img" aria-label="{html.escape(label, quote=True)}"'
    return f'<svg class="fig" viewBox="0 0 {width:g} {height:g}" {named}>{content}</svg>'
