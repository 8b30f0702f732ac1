"""The page of benchmarks/speed.py: one table, with the target of each row and whether it was met."""

import platform
import statistics
from typing import Any

from speed_rows import ROWS, Row, Target

Line = dict[str, Any]

# What a metric is called, and how its numbers are written.
METRICS = {
    "steady": ("steps/s, after compilation", "{:,.0f}"),
    "whole": ("steps/s, with compilation", "{:,.0f}"),
    "compile": ("compilation, s", "{:.2f}"),
    "share": ("collecting, share of the environment's own speed", "{:.0%}"),
    "seconds": ("training, s", "{:.2f}"),
    "compiled_seconds": ("training after compilation, s", "{:.2f}"),
    "shell_seconds": ("from the shell, s", "{:.1f}"),
    "steps": ("environment steps", "{:,.0f}"),
}

INTRODUCTION = """\
# Training speed beside the peers

Medians (lowest to highest) of repeats in which the two sides take turns, each side in its fastest setting. The two sides of a
row were measured on the same occasion; the machine is {machine}. Occasions differ in machine and in what else ran on it, by a
factor of two and more: the ratio of a row says something, not a row beside another one. The same networks (two hidden layers of
64 tanh units for the actor and as many for the critic, where no CNN is named), rollouts, epochs and minibatches on both sides.
*Ratio*: ours to the peer's.

- *Steps/s, with compilation*: environment steps per second of the first training in a process. *After compilation*: of the
  second, equally long. *Compilation*: the difference between the two in time.
- *Collecting*: rollouts, beside the same environments vectorized in the same way under random actions.
- *To a greedy return of 475*: a policy is evaluated every 1,024 steps, over 10 greedy episodes and, where these reach 475, over
  100; every repeat is another seed. *Training, s*: with compilation, without evaluating. *From the shell*: from the start of
  the process, without evaluating.

`python benchmarks/speed.py --rows …` measures and adds to [speed.jsonl](speed.jsonl), `--table` writes this page from it.
"""


CONDITIONS = """
## Conditions

*Load*: the mean number of processes that wanted a core in the minute before a measurement; the one before it, on one core,
makes it about 1.
"""

MISSED = """
## What was missed, and what limits it

- Row 3: two thirds of the time go into gradient steps of 256 rows, which are some 95 kernels of XLA each. Half of that is
  matrix products and tanh, the rest what it costs to start so many. A fifth of the time is the environment's own.
- Row 7: both sides are bound by their convolutions. Of the time of 40 steps, two fifths are the gradients, a third is acting,
  whose batches of 8 read 6 MB of weights each, and a fifth is the emulator.
- Row 11: training takes about as many steps on both sides, but 2 s of ours are compilation and, from the shell, 4 s are the
  imports of TensorFlow and Keras: a third of what the peer takes in all would be less.
- Row 12: half an update of 64 rows a step; the products of two networks of 256-256, some 35 MFLOP an update, are most of it.
- Row 14: of 3.5 ms a step some 2 are the update's program, many small kernels over 256 rows; the rest is to start it and to
  play a step by itself.
- Row 15: of 0.95 ms a step, the environment takes 0.11, the update's program 0.39 and Python around both 0.45. Row 16 makes the
  same update in 0.08 ms inside of a loop: what a call from outside adds is to start a program of some 200 kernels with 23
  variables.
- Row 16: 50 times would be 0.033 ms a step. Each step reads and writes 35,000 weights and as many numbers of traces several
  times, and multiplies vectors by nine matrices.
"""

GROWTH = """
## How it grows

![Steps per second over the number of environments and over the width of the networks](growth.png)

A2C on CartPole, 16 steps a rollout, on Gymnasium's vector environment and on the compiled one. Small networks are bound by what
steps and kernels cost to start, wide ones by arithmetic. `python benchmarks/growth.py measure` adds to
[growth.jsonl](growth.jsonl), `plot` draws.
"""


def page(lines: list[Line]) -> str:
    """The page, as Markdown."""
    found = INTRODUCTION.format(machine=platform.machine()).splitlines()
    found += ["", header("row", "work", "peer", "measured", "rlgrad", "peer", "ratio", "target", "met")]
    conditions = [
        *CONDITIONS.splitlines(),
        "",
        "| row | occasion | commit | cores | load | rlgrad | peer |",
        "|---" * 7 + "|",
    ]
    for name, row in ROWS.items():
        ours, theirs = last_occasion(row, [line for line in lines if line["row"] == name and line["repeat"] >= 0])
        if ours or theirs:
            found += compared(name, row, ours, theirs)
            conditions.append(condition(name, ours, theirs))
    versions = sorted({f"{name} {version}" for line in lines for name, version in line["versions"].items()})
    found += [*MISSED.splitlines(), *GROWTH.splitlines()]
    return "\n".join([*found, *conditions, "", "Versions: " + ", ".join(versions) + ".", ""])


def header(*names: str) -> str:
    return "| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|"


def last_occasion(row: Row, lines: list[Line]) -> tuple[list[Line], list[Line]]:
    """Our lines and the peer's of the last occasion with both; where there is none, of the last one at all."""
    by_occasion: dict[str, tuple[list[Line], list[Line]]] = {}
    for line in lines:
        ours, theirs = by_occasion.setdefault(line["occasion"], ([], []))
        (ours if line["side"] == "rlgrad" else theirs).append(line)
    ordered = [by_occasion[occasion] for occasion in sorted(by_occasion)]
    whole = [(ours, theirs) for ours, theirs in ordered if ours and (theirs or row.peer is None)]
    return (whole or ordered or [([], [])])[-1]


def compared(name: str, row: Row, ours: list[Line], theirs: list[Line]) -> list[str]:
    """A line of the table for each metric of a row."""
    rows = []
    for metric in row.metrics:
        mine, other = values(ours, metric), values(theirs, metric)
        target = next((target for target in row.targets if target.metric == metric), None)
        ratio = f"{statistics.median(mine) / statistics.median(other):.2f}" if mine and other else "–"
        first = (name, row.work, row.peer or "–") if not rows else ("", "", "")
        cells = (
            *first,
            METRICS[metric][0],
            shown(metric, mine),
            shown(metric, other),
            ratio,
            *verdict(target, mine, other),
        )
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def values(lines: list[Line], metric: str) -> list[float]:
    return [line["metrics"][metric] for line in lines if metric in line["metrics"]]


def shown(metric: str, numbers: list[float]) -> str:
    if not numbers:
        return "–"
    pattern = METRICS[metric][1]
    middle, low, high = (pattern.format(x) for x in (statistics.median(numbers), min(numbers), max(numbers)))
    return f"{middle} ({low} to {high})" if len(numbers) > 1 else middle


def verdict(target: Target | None, ours: list[float], theirs: list[float]) -> tuple[str, str]:
    """The target in words, and whether it was met."""
    if target is None:
        return "", ""
    bound = f"{target.bound:.3g} ×" if target.relative else METRICS[target.metric][1].format(target.bound)
    if not ours:
        return f"{target.sign} {bound}", "–"
    met = target.met(statistics.median(ours), statistics.median(theirs) if theirs else None)
    return f"{target.sign} {bound}", {True: "yes", False: "**no**", None: "–"}[met]


def condition(name: str, ours: list[Line], theirs: list[Line]) -> str:
    """When a row was measured, and how."""
    lines = [*ours, *theirs]
    loads = [line["load"] for line in lines]
    settings = (chosen(ours), chosen(theirs))
    about = (lines[0]["occasion"].replace("T", " "), lines[0]["commit"], str(lines[0]["cores"]))
    return "| " + " | ".join((name, *about, f"{min(loads):.1f} to {max(loads):.1f}", *settings)) + " |"


def chosen(lines: list[Line]) -> str:
    if not lines:
        return "–"
    settings = ", ".join(f"{key} {value}" for key, value in lines[0]["settings"].items() if value != "")
    return f"{settings or 'as it comes'}, {len(lines)} ×"
