"""The report on a finished run, which `rlgrad train` and `rlgrad resume` print."""

from typing import TYPE_CHECKING

from rlgrad.cli.output import Result
from rlgrad.core.plain_files import read_json

if TYPE_CHECKING:
    from rlgrad.runs.run import Run


def report(run: "Run") -> Result:
    """Return how a run ended, and the commands to try next."""
    from rlgrad.config import agent_name
    from rlgrad.environments.drawing import can_be_seen
    from rlgrad.runs.showing import verdict

    file = run.path / "evaluation.json"
    results = read_json(file) if file.exists() else None
    commands = (
        *([f"rlgrad watch {run.path}"] if can_be_seen(run.config.env) else []),
        f"rlgrad evaluate {run.path}",
        f"rlgrad plot {run.path}",
        f"rlgrad report {run.path}",
        f"rlgrad inspect {run.path}",
        f"rlgrad resume {run.path} --total-timesteps {2 * run.config.total_timesteps}",
        f"tensorboard --logdir {run.path.parent}",
    )
    document = {
        "run": run.path,
        "agent": agent_name(run.config.agent),
        "env": run.config.env_name,
        "seed": run.config.seed,
        "timesteps": run.timesteps,
        "seconds": run.seconds,
        "train_return": next(iter(run.history["train/return"][-1:]), None),
        "evaluation": results,
    }
    last = f"Everything is in {run.path}. Next:"
    return Result(document, [verdict(run, results), last, *(f"  {command}" for command in commands)])
