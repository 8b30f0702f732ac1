"""`rlgrad train`: train a config, or an agent on an environment; or repeat a run."""

import argparse
import logging
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlgrad.cli import options, side_by_side
from rlgrad.cli.loading import add_trust, check_run, import_tensorflow
from rlgrad.cli.output import Result, parser_for
from rlgrad.cli.results import report
from rlgrad.core import registry
from rlgrad.core.settings import count as whole
from rlgrad.core.settings import mapping, read
from rlgrad.runs.trust import require_trust

if TYPE_CHECKING:
    from rlgrad.config import Config

USAGE = """\
usage: rlgrad train CONFIG [options]
       rlgrad train AGENT ENV [options]
       rlgrad train --from RUN [options]
       rlgrad train … --seeds 0-9 [--workers N] [options]

CONFIG is a config that ships with rlgrad (`rlgrad configs`) or a YAML file, AGENT a name (`rlgrad agents`) or
my_agent.py:MyAgent, ENV a Gymnasium id (`rlgrad envs`). --from takes the settings of a run: with the same seed, on the same
machine and versions (run.json), the weights are the same to the bit. Options replace settings.

  --seeds 0-9                        a run for each seed (0-9, or 1,4,7), side by side: N at a time with --workers N
  --trust                            permit what another person's config asks for, such as to execute a file; it is said first
  --json                             print one JSON document, and nothing else, on stdout

All options, including the agent's:  rlgrad train reinforce --help
The type of the update, which moves the weights, decides which options the update has:
  --agent.update.type per_head --agent.update.policy.type natural_gradient --help
Examples:
  rlgrad train cartpole --seed 3
  rlgrad train reinforce CartPole-v1 --total-timesteps 200000 --agent.gamma 0.99
  rlgrad train --from runs/a --seed 4 --run-dir runs/b
"""


def parser() -> argparse.ArgumentParser:
    """Return a parser of the options that do not depend on the agent, for shells that complete them; `run` uses another."""
    parser = parser_for("train", "Train an agent.", "rlgrad train cartpole")
    parser.add_argument("target", nargs="?", help="config, YAML file, agent, or my_agent.py:MyAgent")
    parser.add_argument("env", nargs="?", help="Gymnasium id")
    parser.add_argument("--from", help="repeat this run")
    parser.add_argument("--seeds", help="a run for each seed, side by side: 0-9, or 1,4,7")
    add_trust(parser)
    for name, hint in options.option_types().items():
        parser.add_argument(f"--{name.replace('_', '-')}", choices=options.choices(hint) or None)
    return parser


def run(arguments: list[str]) -> Result:
    """Train, evaluate, and report whether the task is solved."""
    if not arguments:
        print(USAGE, file=sys.stderr)
        raise SystemExit(2)
    if arguments[0] in ("-h", "--help"):
        return Result(None, [USAGE])
    seeds, words = _take(arguments, "--seeds")
    if seeds is not None:
        return _train_seeds(words, side_by_side.seeds_of(seeds))
    config, run_dir = parse_command(arguments)
    from rlgrad.runs.training import run_config

    run = run_config(config, run_dir=run_dir, command=shlex.join(["rlgrad", "train", *arguments]))
    run.close()
    return report(run)


def _train_seeds(arguments: list[str], seeds: list[int]) -> Result:
    """Train a run for each seed, so many at a time as `--workers` says."""
    if not arguments:
        raise ValueError("--seeds is said with what to train: rlgrad train cartpole --seeds 0-9")
    if any(word == "--seed" or word.startswith("--seed=") for word in arguments):
        raise ValueError("--seed is of one run, and --seeds of several: leave one of them out.")
    at_once, words = _take(arguments, "--workers")
    named, words = _take(words, "--run-dir")
    config, _ = parse_command(words)  # a mistake is said before anything is trained
    from rlgrad.runs.folders import folder_name

    agent, when = type(config.agent).__name__.lower(), time.strftime("%Y%m%d-%H%M%S")
    folder = Path(named or f"runs/{folder_name(config)}-{agent}-seeds-{when}").expanduser()
    for taken in (path for seed in seeds if (path := folder / f"seed-{seed}").exists()):
        raise FileExistsError(f"{taken} exists; a run never writes over another. Choose a new folder.")
    most = min(len(seeds), os.cpu_count() or 1) if at_once is None else whole(at_once, "--workers")
    if most < 1:
        raise ValueError(f"--workers is at least 1, got {at_once}.")
    return side_by_side.train_each(words, seeds, folder, most)


def parse_command(arguments: list[str]) -> tuple["Config", Path | None]:
    """Return the config that a command line asks for, and the folder for its run if it names one."""
    trust, arguments = "--trust" in arguments, [word for word in arguments if word != "--trust"]
    if not arguments:
        raise ValueError("--trust is said with a config or a run: which one?")
    settings, words = _target(arguments, trust)
    import_tensorflow()
    config, run_dir = options.parse(settings, words, prog=f"rlgrad train {arguments[0]}")
    if not config.env:
        raise ValueError(f"which environment? For example: rlgrad train {arguments[0]} CartPole-v1")
    # Before the heavy imports print anything of their own.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    logging.raiseExceptions = False  # of a reader of the output that has ended, the run says so itself
    for noisy in ("tensorflow", "absl", "matplotlib", "h5py"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    return config, run_dir


def _target(arguments: list[str], trust: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that the first arguments name, an environment among them included, and the other arguments."""
    source, others = _take(arguments, "--from")
    if source is not None:
        if others and not others[0].startswith("-"):
            raise ValueError(f"--from repeats a run, its agent and environment: leave out {others[0]!r}.")
        check_run(Path(source))
        return _settings(Path(source) / "config.yaml", None, trust, of_a_run=True), others
    name, *rest = arguments
    env = rest.pop(0) if rest and not rest[0].startswith("-") else None
    configs, agents = registry.configs(), registry.agents()
    if name.endswith((".yaml", ".yml")) or name in configs:
        settings = read(configs[name]) if name in configs else _settings(Path(name), env, trust)
    elif ":" in name or name in agents:
        settings = {"agent": {"name": name}}
    else:
        raise ValueError(
            f"there is no config or agent {name!r}. {registry.advice(name, [*configs, *agents])} Your own: my_agent.py:MyAgent."
        )
    return settings | ({} if env is None else {"env": env}), rest


def _settings(file: Path, env: str | None, trust: bool, of_a_run: bool = False) -> dict[str, Any]:
    """Read a config file, and refuse what it may not do by itself and what a command line cannot repeat.

    Args:
        file: the file.
        env: the environment that replaces the file's, if there is one.
        trust: permit what it asks for.
        of_a_run: the file is a run's config.yaml, also if it has no `resolved`.

    Raises:
        ValueError: the file is missing, or holds no config, or one that only Python can train.
    """
    if not file.is_file():
        raise ValueError(f"there is no file {str(file)!r}.")
    settings = read(file, follow=not of_a_run)
    if "name" not in mapping(settings.get("agent"), f"{file}: agent"):
        raise ValueError(f"{file} needs at least `agent: {{name: reinforce}}`.")
    if not isinstance(settings.get("env", ""), str):
        raise ValueError(f"{file}: env is a string, got {settings['env']!r}.")
    source = file.parent if file.name == "config.yaml" else file
    asked = settings if env is None else {name: value for name, value in settings.items() if name != "env"}
    require_trust(source, asked, trust=trust, training=True)
    if settings.pop("resolved", None) is not None or of_a_run:
        _require_repeatable(file.parent, settings, env)
    return settings


def _require_repeatable(folder: Path, settings: dict[str, Any], env: str | None) -> None:
    """Raise a ValueError for a run that needs an object that was passed in Python."""
    if str(settings.get("env")).startswith("(") and env is None:
        raise ValueError(
            f"the environment of {folder} was {settings['env'][1:-1]}: repeat it with rlgrad.train in Python."
        )
    models = [name for name in ("model", "value_model", "critic_model") if (folder / f"{name}.json").exists()]
    if models:
        raise ValueError(
            f"{folder} was trained with a {models[0]} given as an object, whose initial weights it does not keep: repeat it "
            "with rlgrad.train in Python."
        )


def _take(arguments: list[str], option: str) -> tuple[str | None, list[str]]:
    """Return the value of an option, `None` if it is not among the arguments, and the other arguments."""
    for at, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2], arguments[:at] + arguments[at + 1 :]
        if argument == option and at + 1 < len(arguments):
            return arguments[at + 1], arguments[:at] + arguments[at + 2 :]
        if argument == option:
            raise ValueError(f"{option} needs a value.")
    return None, arguments
