"""`rlgrad watch`: see an episode."""

import argparse
from pathlib import Path

from rlgrad.cli.commands.record import add_arguments, see
from rlgrad.cli.output import Result, parser_for


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = parser_for(
        "watch",
        "See an episode in a window, or as a GIF where there is no display.",
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
