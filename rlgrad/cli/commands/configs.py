"""`rlgrad configs`: list the configs that ship with rlgrad, and their results."""

import argparse
from typing import Any

from rlgrad.cli.output import Result, Table, parser_for
from rlgrad.core import registry

_HEADER = ("config", "greedy return", "seeds", "steps", "what it trains")
_MEANING = (
    "Greedy return: interquartile mean over seeds [95 % bootstrap interval], last weights, 100 fresh episodes each.\n"
    "All figures, beside those of other libraries: benchmarks/results/learning.md. Train one: rlgrad train cartpole"
)


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    return parser_for(
        "configs",
        "List the configs that ship with rlgrad, with their results and the number of seeds.",
        "rlgrad configs",
    )


def run(arguments: list[str]) -> Result:
    """List each config's name, its results, and the first line of its file."""
    parser().parse_args(arguments)
    results = registry.config_results()
    listed: list[dict[str, Any]] = [
        {"name": name, "says": _first_line(file.read_text()), "results": results.get(name)}
        for name, file in registry.configs().items()
    ]
    rows = [(config["name"], *_cells(config["results"]), config["says"]) for config in listed]
    return Result(listed, [Table(rows, _HEADER, right=(1, 2, 3)), f"\n{_MEANING}"])


def _cells(results: dict[str, Any] | None) -> tuple[str, str, str]:
    if results is None:
        return "no results yet", "", ""
    greedy = results["greedy"]
    interval = f"{greedy['mean']:.1f} [{greedy['low']:.1f}, {greedy['high']:.1f}]"
    return interval, str(len(results["seeds"])), f"{results['timesteps']:,}"


def _first_line(text: str) -> str:
    return text.splitlines()[0].removeprefix("#").strip()
