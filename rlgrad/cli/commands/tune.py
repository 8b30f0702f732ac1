"""`rlgrad tune`: search for better hyper-parameters, and write the best as a config."""

import argparse
import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlgrad.cli import options
from rlgrad.cli.commands.train import parse_command
from rlgrad.cli.loading import add_trust
from rlgrad.cli.output import Result, Table, count, parser_for

if TYPE_CHECKING:
    from rlgrad.config import Config
    from rlgrad.search import Space
    from rlgrad.tuning.studies import Study, Trial

USAGE = """\
rlgrad tune CONFIG [options] [options of train]
       rlgrad tune AGENT ENV [options] [options of train]
       rlgrad tune --from RUN [options] [options of train]"""
_SHOWN = 5  # of the best trials
_OF_STUDY = {"workers", "ray_address"}  # options that are the study's here, and each run's elsewhere


def parser() -> argparse.ArgumentParser:
    """Return a parser of the options that do not depend on the agent, for shells that complete them; `run` uses another."""
    parser = _own()
    parser.add_argument("target", nargs="?", help="config, YAML file, agent, or my_agent.py:MyAgent")
    parser.add_argument("env", nargs="?", help="Gymnasium id")
    parser.add_argument("--from", help="search around this run's config")
    add_trust(parser)
    for name in options.option_types().keys() - _OF_STUDY:
        parser.add_argument(f"--{name.replace('_', '-')}", help=argparse.SUPPRESS)
    return parser


def _own() -> argparse.ArgumentParser:
    parser = parser_for(
        "tune",
        "Search for better hyper-parameters, and write the best as a config. It also takes every option of rlgrad train: what "
        "an option sets is not searched.\nThe same command continues a study that was stopped or killed.",
        "rlgrad tune cartpole --trials 30 --total-timesteps 50000",
        "rlgrad tune a2c CartPole-v1 --search agent.gamma agent.update.learning_rate=1e-4:1e-2:log agent.num_steps=5,16,64",
    )
    parser.usage = USAGE
    parser.add_argument(
        "--trials", type=count, default=50, help="trials in total, including those of earlier calls (default: 50)"
    )
    parser.add_argument(
        "--search",
        nargs="+",
        default=[],
        metavar="NAME",
        help="what to search instead of the agent's own search space: name=low:high, name=low:high:log, name=a,b,c, or a "
        "name from that space",
    )
    parser.add_argument("--study", help="name of the study (default: environment and agent)")
    parser.add_argument("--folder", type=Path, default=Path("tuning"), help="folder of all studies (default: tuning)")
    parser.add_argument("--storage", help="URL of a database (default: study.db, SQLite, in the study's folder)")
    parser.add_argument("--seeds", type=count, default=1, help="runs of each trial, with different seeds (default: 1)")
    parser.add_argument("--episodes", type=count, default=30, help="episodes to evaluate each run by (default: 30)")
    parser.add_argument(
        "--greedy", action="store_true", help="evaluate the most likely actions, instead of sampled ones"
    )
    parser.add_argument(
        "--pruner",
        choices=("median", "halving", "none"),
        default="median",
        help="what stops trials that fall behind (default: median)",
    )
    parser.add_argument("--workers", type=count, help="trials at a time, with Ray (default: one, in this process)")
    parser.add_argument("--ray-address", help="head of the Ray cluster that runs them, or auto (default: this machine)")
    parser.add_argument("--timeout", type=float, help="begin no further trial after this many seconds")
    return parser


def run(arguments: list[str]) -> Result:
    """Search, and show the best trials."""
    own, rest = _own().parse_known_args(arguments)
    if not rest:
        _own().error("which config or agent? For example: rlgrad tune cartpole")
    config, run_dir = parse_command(rest)
    if run_dir is not None:
        raise ValueError(
            "the runs of a study are in the study's folder: leave --run-dir out, and use --study and --folder."
        )
    from rlgrad.runs.folders import folder_name
    from rlgrad.tuning.studies import Measure, import_optuna
    from rlgrad.tuning.trials import tune

    import_optuna()  # before anything is promised
    folder = own.folder / (own.study or f"{folder_name(config)}-{type(config.agent).__name__}".lower())
    print(f"Into {folder}", flush=True)
    with _warnings_alone():
        study = tune(
            config,
            folder,
            trials=own.trials,
            space=_space(config, own.search, rest),
            measure=Measure(seeds=own.seeds, episodes=own.episodes, greedy=own.greedy),
            pruner=own.pruner,
            storage=own.storage,
            timeout=own.timeout,
            workers=own.workers,
            ray_address=own.ray_address,
            report=lambda trial, study: print(_line(trial, study), flush=True),
        )
    return _result(study)


@contextlib.contextmanager
def _warnings_alone() -> Iterator[None]:
    """Log warnings alone: every trial would repeat what a run logs about itself."""
    log = logging.getLogger("rlgrad")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)


def _space(config: "Config", wanted: Sequence[str], arguments: Sequence[str]) -> "Space":
    """Return the space to search: the wanted names, or all that the agent declares and no option sets."""
    from rlgrad.core.checks import close_names
    from rlgrad.search import parse_search
    from rlgrad.tuning.trials import declared

    known = declared(config)
    fixed = {name for name in map(_name, arguments) if name}
    fixed |= {f"agent.{name}" for name in fixed & {"num_envs", "num_steps"}}
    if not wanted:
        return {name: what for name, what in known.items() if name not in fixed}
    space: dict[str, Any] = {}
    for name, what in map(parse_search, wanted):
        if what is None and name not in known:
            raise ValueError(f"the agent declares no range for {name!r}: {name}=low:high. {close_names(name, known)}")
        if name in fixed:
            raise ValueError(f"--{name} fixes a value that --search is to vary: leave one of them out.")
        space[name] = known[name] if what is None else what
    return space


def _name(argument: str) -> str:
    """Return the dotted name that an option sets, `""` for a word that is no option."""
    return argument.partition("=")[0].removeprefix("--").replace("-", "_") if argument.startswith("--") else ""


def _line(trial: "Trial", study: "Study") -> str:
    worth = trial.state if trial.value is None else f"return {trial.value:.1f}"
    best = "" if study.best is None else f" (best {study.best.value:.1f}, trial {study.best.number})"
    reason = f": {trial.reason.splitlines()[0]}" if trial.reason else ""
    return f"trial {trial.number:>3}  {worth}{best}{reason}"


def _result(study: "Study") -> Result:
    document = {
        "folder": study.folder,
        "config": study.config,
        "best": study.best,
        "as_given": study.as_given,
        "trials": list(study.trials),
    }
    counts = [f"{sum(t.state == state for t in study.trials)} {state}" for state in ("complete", "pruned", "failed")]
    lines: list[str | Table] = [f"\n{len(study.trials)} trials: {', '.join(counts)}."]
    if study.best is None:
        return Result(
            document, [*lines, "No trial is complete: run more of them, longer ones, or use --pruner none."], 1
        )
    shown = study.ranked()[:_SHOWN]
    if study.as_given is not None and study.as_given not in shown:
        shown.append(study.as_given)
    names = list(study.best.values)
    rows = [
        [
            str(t.number) + (" (as given)" if t.as_given else ""),
            f"{t.value:.1f}",
            *(_cell(t.values[name]) for name in names),
        ]
        for t in shown
    ]
    table = Table(
        rows, ["trial", "return", *(name.removeprefix("agent.") for name in names)], right=range(1, len(names) + 2)
    )
    return Result(
        document, [*lines, table, f"\nThe best as a config: {study.config}. Next:", f"  rlgrad train {study.config}"]
    )


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
