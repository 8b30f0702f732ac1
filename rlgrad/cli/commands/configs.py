"""`rlgrad configs`: the configs that ship with rlgrad, and what they reached."""

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
    """The command's arguments: none."""
    return parser_for(
        "configs", "The configs that ship with rlgrad, and what each reached on how many seeds.", "rlgrad configs"
    )


def run(arguments: list[str]) -> Result:
    """Each config's name, its results, and the comment that it begins with."""
    parser().parse_args(arguments)
    results = registry.config_results()
    found: list[dict[str, Any]] = [
        {"name": name, "says": _first_line(file.read_text()), "results": results.get(name)}
        for name, file in registry.configs().items()
    ]
    rows = [(config["name"], *_cells(config["results"]), config["says"]) for config in found]
    return Result(found, [Table(rows, _HEADER, right=(1, 2, 3)), f"\n{_MEANING}"])


def _cells(results: dict[str, Any] | None) -> tuple[str, str, str]:
    if results is None:
        return "no results yet", "", ""
    greedy = results["greedy"]
    interval = f"{greedy['mean']:.1f} [{greedy['low']:.1f}, {greedy['high']:.1f}]"
    return interval, str(len(results["seeds"])), f"{results['timesteps']:,}"


def _first_line(text: str) -> str:
    return text.splitlines()[0].removeprefix("#").strip()
