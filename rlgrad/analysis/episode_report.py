"""The part of a report that follows one episode: what the agent credits each step, beside pictures of some, and values."""

import io
import string
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlgrad.analysis import pages, svg
from rlgrad.diagnostics.credited_steps import ERROR, StepCredits

_OUTPUTS = {
    "log_prob": "∇ log π(a|s)",
    "q": "∇ q(s, a)",
    "value": "∇ v(s)",
    "action": "∇ a(s), the length of the vector",
    "logits": "∇ of the logits, the length of the vector",
    "entropy": "∇ H(π(·|s))",
    "action_log_prob": "∇ log π(a(s)|s)",
}
"""What is credited, in the order in which agents have it: the first is drawn beside the pictures."""
_PICTURES, _PIXELS = 8, 160


class EpisodeSteps(NamedTuple):
    """An episode of T steps whose credits are known, and pictures of it.

    Attributes:
        credits: of its steps.
        pictures: uint8 (height, width, 3) before each step, at most `small`.
        caption: how it was played.
    """

    credits: StepCredits
    pictures: Sequence[Any]
    caption: str


def small(picture: Any) -> Any:
    """Return a picture at the size in which a report shows it, uint8 (height, width, 3)."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((_PIXELS, _PIXELS))
    return np.asarray(image)


def followed(name: str, episode: EpisodeSteps) -> str:
    """Return the credits of an episode as HTML.

    Args:
        name: of what was played, for a heading.
        episode: its credits and pictures.
    """
    return pages.heading(f"{name}: credit by step") + "".join(_parts(episode))


def _parts(episode: EpisodeSteps) -> Iterator[str]:
    credits = episode.credits.credits
    names = sorted(credits, key=lambda each: [*_OUTPUTS].index(each) if each in _OUTPUTS else len(_OUTPUTS))
    yield pages.text(episode.caption, soft=True)
    if names:
        yield from _beside_pictures(names[0], credits[names[0]], episode.pictures)
    else:
        yield pages.text("Every step has the same credit.")
    others = [_of_output(name, credits[name]) for name in names[1:]]
    yield pages.grid(*_values(episode.credits), *others)


def _beside_pictures(name: str, credit: Any, pictures: Sequence[Any]) -> Iterator[str]:
    chosen = shown_steps(credit, len(pictures))
    letters = dict(zip(string.ascii_lowercase, chosen, strict=False))
    series = svg.Series("credit", np.arange(len(credit)), credit)
    figure = svg.lines(
        [series], x_label="step of the episode", y_label="credit", level=(0.0, ""), marks=letters, height=260.0
    )
    yield pages.figure(figure, f"{_said(name)} Pictures are of the steps at the letters, before the action.")
    yield pages.strip([(_png(pictures[t]), f"{letter} · step {t}: {credit[t]:.3g}") for letter, t in letters.items()])


def shown_steps(credit: Any, pictures: int) -> list[int]:
    """Return steps to show: those of the largest and of the smallest credit, and others evenly between."""
    last = min(len(credit), pictures) - 1
    if last < 0:
        return []
    extremes = {int(np.argmax(credit[: last + 1])), int(np.argmin(credit[: last + 1]))}
    even = {round(t) for t in np.linspace(0, last, max(2, _PICTURES - len(extremes)))}
    apart = {t for t in even if min(abs(t - extreme) for extreme in extremes) > last / 20}
    return sorted(extremes | apart)


def _of_output(name: str, credit: Any) -> str:
    series = svg.Series("credit", np.arange(len(credit)), credit)
    figure = svg.lines([series], x_label="step of the episode", y_label="credit", width=420.0)
    return pages.figure(figure, _said(name))


def _values(found: StepCredits) -> Iterator[str]:
    if found.values is None:
        return
    lines = [svg.Series("value", np.arange(len(found.values)), found.values)]
    if found.returns is not None:
        lines.append(svg.Series("discounted return from here", np.arange(len(found.returns)), found.returns))
    figure = svg.lines(lines, x_label="step of the episode", y_label="return", width=420.0)
    caption = "Value against return: what the networks expect at each step, and what came, in the rewards that they learn from."
    yield pages.figure(figure + svg.legend([line.name for line in lines]), caption)


def _said(name: str) -> str:
    if name == ERROR:
        return "The error δ of each step, which moves all that the steps before made eligible."
    return f"How much each step counts in the update: the credit on {_OUTPUTS.get(name, name)}."


def _png(picture: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).quantize(64).save(file, "PNG", optimize=True)
    return file.getvalue()
