"""`rlgrad watch`: show an episode."""

import argparse
from pathlib import Path

from rlgrad.cli.commands.record import add_arguments, see
from rlgrad.cli.output import Result, parser_for


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for(
        "watch",
        "Show an episode in a window, or write it as a GIF if there is no display.",
        "rlgrad watch runs/a",
        "rlgrad watch runs/a --output episode.gif",
    )
    add_arguments(parser)
    parser.add_argument("--output", type=Path, help="write a GIF or MP4 instead of opening a window")
    return parser


def run(arguments: list[str]) -> Result:
    """Show an episode."""
    options = parser().parse_args(arguments)
    return see(options, options.output, episodes=1, otherwise=options.run / "episode.gif")
