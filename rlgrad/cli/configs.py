"""`rlgrad configs`: the configs that ship with rlgrad."""

import argparse

from rlgrad import registry
from rlgrad.cli.output import Result, Table, parser_for


def parser() -> argparse.ArgumentParser:
    """The command's arguments: none."""
    return parser_for("configs", "The configs that ship with rlgrad.", "rlgrad train cartpole")


def run(arguments: list[str]) -> Result:
    """Each config's name, with the comment that it begins with."""
    parser().parse_args(arguments)
    found = {
        name: file.read_text().splitlines()[0].removeprefix("#").strip() for name, file in registry.configs().items()
    }
    return Result([{"name": name, "says": says} for name, says in found.items()], [Table([*found.items()])])
