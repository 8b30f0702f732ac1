"""`rlgrad resume`: continue training a run."""

import argparse
import shlex

from rlgrad.cli.loading import add_limit, add_run, load_run, require_limit
from rlgrad.cli.output import Result, count, parser_for


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = parser_for("resume", "Continue training a run.", "rlgrad resume runs/a --total-timesteps 400000")
    add_run(parser)
    parser.add_argument(
        "--total-timesteps", type=count, help="total steps, including those already taken (default: the run's)"
    )
    add_limit(parser)
    parser.add_argument(
        "--workers", type=count, help="processes that step the environments; 0: none (default: the run's)"
    )
    return parser


def run(arguments: list[str]) -> Result:
    """Continue from the run's last checkpoint as if training had never stopped."""
    options = parser().parse_args(arguments)
    require_limit(options.max_episode_steps)
    run = load_run(options, max_episode_steps=options.max_episode_steps, workers=options.workers)
    if options.total_timesteps is not None or not (run.finished or run.ended):
        run.train(options.total_timesteps, command=shlex.join(["rlgrad", "resume", *arguments]))
    elif run.is_evaluated:
        how = "ended early" if run.ended else "is finished"
        raise ValueError(f"{options.run} {how}, after {run.timesteps:,} steps: pass --total-timesteps to continue.")
    from rlgrad.cli.results import report
    from rlgrad.runs.training import conclude

    conclude(run)
    run.close()
    return report(run)
