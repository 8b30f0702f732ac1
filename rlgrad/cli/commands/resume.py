"""`rlgrad resume`: go on training a run."""

import argparse
import shlex
from pathlib import Path

from rlgrad.cli.loading import load_run
from rlgrad.cli.output import Result, parser_for


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = parser_for("resume", "Go on training.", "rlgrad resume runs/a --total-timesteps 400000")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument(
        "--total-timesteps", type=int, help="steps in all, those already taken included; default: the run's"
    )
    return parser


def run(arguments: list[str]) -> Result:
    """Go on with a run where its last checkpoint has it, as if it had never stopped."""
    options = parser().parse_args(arguments)
    run = load_run(options.run)
    if options.total_timesteps is not None or not run.finished:
        run.train(options.total_timesteps, command=shlex.join(["rlgrad", "resume", *arguments]))
    elif (options.run / "evaluation.json").is_file():
        raise ValueError(
            f"{options.run} is finished, after {run.timesteps:,} steps: say with --total-timesteps how many there shall be."
        )
    from rlgrad.cli.results import report
    from rlgrad.runs.training import conclude

    conclude(run)
    run.close()
    return report(run)
