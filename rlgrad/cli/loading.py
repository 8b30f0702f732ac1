"""Import TensorFlow without what its C++ side prints at that moment, and load runs."""

import argparse
import gc
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rlgrad.cli.keyword_arguments import HELP, keyword_arguments
from rlgrad.cli.output import count
from rlgrad.core.importing import uncollected
from rlgrad.core.plain_files import require_plain
from rlgrad.runs.locking import describe_no_run

if TYPE_CHECKING:
    from rlgrad.runs.env_calls import EnvCall
    from rlgrad.runs.run import Run


def import_tensorflow() -> None:
    """Import TensorFlow and Keras. Show what they write to stderr only if the import fails."""
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            with uncollected():
                importlib.import_module("tensorflow")
                importlib.import_module("keras")
            gc.freeze()  # later collections, and the one at exit, skip these objects
        except BaseException:
            hidden.seek(0)
            os.write(shown, hidden.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def load_run(options: argparse.Namespace, max_episode_steps: int | None = None, workers: int | None = None) -> "Run":
    """Load the run that a command's options name, after a quiet import of TensorFlow.

    With `--trust` everything that it asks for is permitted. `max_episode_steps` is another time limit for its training, and
    `workers` another number of workers.
    """
    check_run(options.run)
    import_tensorflow()
    from rlgrad.runs.training import load

    limit = max_episode_steps
    return load(options.run, env=options.env, trust=options.trust, max_episode_steps=limit, workers=workers)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of commands that load a run."""
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument(
        "--env",
        help="environment in place of the run's: an id, or my_env.py:MyEnv; needed where it was passed in Python as an object "
        "that cannot be found again",
    )
    add_trust(parser)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the option of commands that read what another person may have made."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="permit what another person's folder asks for, such as to execute a file; it is said first (docs/resume.md)",
    )


def add_limit(parser: argparse.ArgumentParser, instead: str = "the run's") -> None:
    """Add the option of commands that play episodes."""
    parser.add_argument(
        "--max-episode-steps", type=count, metavar="N", help=f"end episodes after this many steps (default: {instead})"
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the option of commands that play a run's policy."""
    parser.add_argument(
        "--checkpoint",
        default="last",
        metavar="STEPS",
        help="play the weights of this checkpoint: last, best, or the environment steps of one that is kept (default: last)",
    )


def add_env_kwargs(parser: argparse.ArgumentParser, added: bool = False) -> None:
    """Add the option of commands that make an environment; the run's own arguments are `added` to where there is a run."""
    text = f"{HELP}, in place of the run's of these names" if added else HELP
    parser.add_argument("--env-kwargs", nargs="*", default=[], metavar="NAME=VALUE", help=text)


def add_env_calls(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that play a run's policy in an environment which its callbacks may have changed."""
    said = "after those that the run made while it trained (run.call_envs, run.set_env_attr)"
    parser.add_argument(
        "--call-envs",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help=f"call methods of the environment, such as set_level=3; a list in brackets is several arguments; {said}",
    )
    parser.add_argument(
        "--set-env-attr",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="set attributes of the environment, such as gravity=12, likewise",
    )


def env_calls(options: argparse.Namespace) -> "list[EnvCall]":
    """Return the calls that the options of `add_env_calls` ask for."""
    from rlgrad.runs.env_calls import EnvCall

    calls = keyword_arguments(options.call_envs, "--call-envs").items()
    attributes = keyword_arguments(options.set_env_attr, "--set-env-attr").items()
    return [
        *(EnvCall(name, list(value) if isinstance(value, list) else [value], {}) for name, value in calls),
        *(EnvCall(name, [value], {}, sets=True) for name, value in attributes),
    ]


def require_limit(limit: int | None) -> None:
    """Raise a ValueError for an option of `add_limit` that is no number of steps."""
    if limit is not None and limit < 1:
        raise ValueError(f"--max-episode-steps is at least 1, got {limit}.")


def check_run(path: Path) -> None:
    """Raise a ValueError if a folder holds no run, or links. Call this before the slow imports."""
    if not (path / "config.yaml").is_file():
        near = sorted(p.parent for p in (path.parent if path.parent.is_dir() else Path()).glob("*/config.yaml"))[-3:]
        hint = f" There: {', '.join(map(str, near))}." if near else ""
        raise ValueError(f"{describe_no_run(path)}{hint}")
    require_plain(path)
