"""`rlgrad agents`: list the installed agents."""

import argparse

from rlgrad.cli.loading import import_tensorflow
from rlgrad.cli.output import Result, Table, parser_for
from rlgrad.core import registry


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    return parser_for("agents", "List the installed agents.", "rlgrad agents")


def run(arguments: list[str]) -> Result:
    """List each agent's name with the first sentence of its class."""
    parser().parse_args(arguments)
    import_tensorflow()
    from rlgrad.config import agent_class

    found = {name: _first_line(agent_class(name).__doc__) for name in sorted(registry.agents())}
    hint = "\nYour own needs no registration: rlgrad train my_agent.py:MyAgent CartPole-v1"
    return Result([{"name": name, "says": says} for name, says in found.items()], [Table([*found.items()]), hint])


def _first_line(text: str | None) -> str:
    lines = (text or "").strip().splitlines()
    return lines[0] if lines else ""
