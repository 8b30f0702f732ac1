"""`rlgrad tune`: search for better hyper-parameters, and write them as a config."""

import argparse
import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlgrad.cli import options
from rlgrad.cli.commands.train import parse_command
from rlgrad.cli.output import Result, Table, parser_for

if TYPE_CHECKING:
    from rlgrad.config import Config
    from rlgrad.search import Space
    from rlgrad.tuning.studies import Study, Trial

USAGE = """\
rlgrad tune CONFIG [options] [options of train]
       rlgrad tune AGENT ENV [options] [options of train]
       rlgrad tune --from RUN [options] [options of train]"""
_SHOWN = 5  # of the best trials


def parser() -> argparse.ArgumentParser:
    """The arguments that do not depend on the agent, for shells that complete them; `run` reads its own and leaves the rest."""
    parser = _own()
    parser.add_argument("target", nargs="?", help="config, YAML file, agent, or my_agent.py:MyAgent")
    parser.add_argument("env", nargs="?", help="Gymnasium id")
    parser.add_argument("--from", help="search around this run's config")
    for name in options.option_types():
        parser.add_argument(f"--{name.replace('_', '-')}", help=argparse.SUPPRESS)
    return parser


def _own() -> argparse.ArgumentParser:
    parser = parser_for(
        "tune",
        "Search for better hyper-parameters, and write them as a config. Every option of rlgrad train is taken too, and what "
        "it sets is not searched.\nThe same command goes on with a study that was stopped or killed.",
        "rlgrad tune cartpole --trials 30 --total-timesteps 50000",
        "rlgrad tune a2c CartPole-v1 --search agent.gamma agent.update.learning_rate=1e-4:1e-2:log agent.num_steps=5,16,64",
    )
    parser.usage = USAGE
    parser.add_argument("--trials", type=int, default=50, help="in all, those of earlier calls included (default: 50)")
    parser.add_argument(
        "--search",
        nargs="+",
        default=[],
        metavar="NAME",
        help="what to search instead of what the agent declares: name=low:high, name=low:high:log, name=a,b,c, or a name that "
        "the agent declares",
    )
    parser.add_argument("--study", help="its name; default: environment and agent")
    parser.add_argument("--folder", type=Path, default=Path("tuning"), help="of all studies (default: tuning)")
    parser.add_argument("--storage", help="URL of a database; default: study.db (SQLite) in the study's folder")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each trial (default: 1)")
    parser.add_argument("--episodes", type=int, default=30, help="that each run is measured by (default: 30)")
    parser.add_argument(
        "--greedy", action="store_true", help="measure the most likely actions, instead of sampled ones"
    )
    parser.add_argument("--pruner", choices=("median", "halving", "none"), default="median", help="default: median")
    parser.add_argument("--timeout", type=float, help="seconds after which no further trial begins")
    return parser


def run(arguments: list[str]) -> Result:
    """Search, and show the best trials."""
    own, rest = _own().parse_known_args(arguments)
    if not rest:
        _own().error("which config or agent? For example: rlgrad tune cartpole")
    config, run_dir = parse_command(rest)
    if run_dir is not None:
        raise ValueError("the runs of a study are in its folder: leave --run-dir out, and see --study and --folder.")
    from rlgrad.tuning.studies import Measure
    from rlgrad.tuning.trials import tune

    safe = config.env_name.replace("/", "_").replace(":", "_")
    folder = own.folder / (own.study or f"{safe}-{type(config.agent).__name__}".lower())
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
            report=lambda trial, study: print(_line(trial, study), flush=True),
        )
    return _result(study)


@contextlib.contextmanager
def _warnings_alone() -> Iterator[None]:
    """What one run says of itself, every trial would."""
    log = logging.getLogger("rlgrad")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)


def _space(config: "Config", wanted: Sequence[str], arguments: Sequence[str]) -> "Space":
    """What is searched: what was asked for, or what the agent declares and no option sets."""
    from rlgrad.core.checks import close_names
    from rlgrad.search import parse_search
    from rlgrad.tuning.trials import declared

    known = declared(config)
    given = {name for name in map(_name, arguments) if name}
    given |= {f"agent.{name}" for name in given & {"num_envs", "num_steps"}}
    if not wanted:
        return {name: what for name, what in known.items() if name not in given}
    space: dict[str, Any] = {}
    for name, what in map(parse_search, wanted):
        if what is None and name not in known:
            raise ValueError(f"the agent declares no range for {name!r}: {name}=low:high. {close_names(name, known)}")
        if name in given:
            raise ValueError(f"--{name} sets what --search is to search: leave one of them out.")
        space[name] = known[name] if what is None else what
    return space


def _name(argument: str) -> str:
    """The dotted name that an option sets; of what is no option, nothing."""
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
        return Result(document, [*lines, "None is complete: more of them, longer ones, or --pruner none."], 1)
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
