"""The command line. `--help` imports nothing heavy: each command imports what it needs."""

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType

from rlgrad.core.faults import EnvironmentFault, WriteFault, in_words

HELP = """\
usage: rlgrad COMMAND ...

Train reinforcement-learning agents on Gymnasium environments.

  train CONFIG [options]             a config that ships with rlgrad, or a YAML file
  train AGENT ENV [options]          an agent, by name or as file.py:Class, on an environment
  train --from RUN [options]         repeat a run
  resume RUN --total-timesteps N     continue training
  evaluate RUN                       returns of fresh episodes
  compare RUN...                     returns with confidence intervals, as a table
  plot RUN...                        learning curves as PNG, PDF or SVG
  report RUN...                      what was run, what came of it and how to repeat it, as one HTML file
  inspect RUN                        signal and noise of the gradients, as a table and a PNG
  watch RUN                          show an episode: in a window, or as a GIF
  record RUN --output episode.mp4    write episodes as a film, MP4 or GIF
  record-data RUN --output FOLDER    write episodes as data that agents learn from
  tune CONFIG | AGENT ENV [options]  search for better hyper-parameters, and write the best as a config
  export RUN --format FORMAT         write the policy as a file that acts without rlgrad
  check ENV                          try an environment before training on it
  agents | envs | configs            list what is installed, and the results of the configs
  completion SHELL                   print a completion script for bash, zsh or fish

  -h, --help                         show this help, or a command's
  --version

Examples:
  rlgrad train cartpole
  rlgrad train reinforce CartPole-v1 --total-timesteps 200000 --agent.gamma 0.99 --seed 3
  rlgrad train my_agent.py:MyAgent CartPole-v1 --total-timesteps 100000
  rlgrad train reinforce --help      all options, including the agent's
"""

COMMANDS = {  # each module has `parser()` and `run(arguments)`
    "train": "rlgrad.cli.commands.train",
    "resume": "rlgrad.cli.commands.resume",
    "evaluate": "rlgrad.cli.commands.evaluate",
    "compare": "rlgrad.cli.commands.compare",
    "plot": "rlgrad.cli.commands.plot",
    "report": "rlgrad.cli.commands.report",
    "inspect": "rlgrad.cli.commands.inspect",
    "watch": "rlgrad.cli.commands.watch",
    "record": "rlgrad.cli.commands.record",
    "record-data": "rlgrad.cli.commands.record_data",
    "tune": "rlgrad.cli.commands.tune",
    "export": "rlgrad.cli.commands.export",
    "check": "rlgrad.cli.commands.check",
    "agents": "rlgrad.cli.commands.agents",
    "envs": "rlgrad.cli.commands.envs",
    "configs": "rlgrad.cli.commands.configs",
    "completion": "rlgrad.cli.commands.completion",
}


_LONGEST = 1_500  # letters of a message


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after `rlgrad`. `None`: the process's own.

    Returns:
        The exit status: 0, or 1 if training failed. A mistake in the arguments exits with 2 and a sentence on stderr.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):  # of a terminal without "…" and "±"
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from rlgrad import __version__

        print(f"rlgrad {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        from rlgrad.core.checks import close_names

        return fail(f"there is no command {name!r}. {close_names(name, COMMANDS)}")
    return _run(name, rest)


def _run(name: str, arguments: list[str]) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    as_json = "--json" in arguments
    try:
        from rlgrad.cli.output import Result, show, stdout_to_stderr

        with stdout_to_stderr() if as_json else contextlib.nullcontext():
            result: Result = import_module(COMMANDS[name]).run([each for each in arguments if each != "--json"])
        show(result, as_json)
        sys.stdout.flush()
        return result.status
    except BrokenPipeError:  # `rlgrad … | head` stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (FloatingPointError, EnvironmentFault, WriteFault) as error:
        status = fail(str(error), status=1)
        print(getattr(error, "trace", ""), end="", file=sys.stderr)  # the environment's own traceback, if it raised
        return status
    except (ValueError, TypeError, OSError, ImportError, NotImplementedError) as error:
        if not _ours(error.__traceback__):
            raise
        return fail(in_words(error) if isinstance(error, OSError) else str(error))
    except MemoryError as error:
        return fail(
            f"there is not enough memory: {' '.join(str(error).split()) or 'make what is asked for smaller'}", status=1
        )
    except KeyboardInterrupt:
        return fail("stopped.", status=130)


def fail(message: str, status: int = 2) -> int:
    """Print what is wrong on stderr, and return the exit status. A text from a file is cut, and cannot move the cursor."""
    shown = message if len(message) <= _LONGEST else f"{message[:_LONGEST]} …"
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in shown)
    print(f"rlgrad: {shown}", file=sys.stderr)
    return status


def _ours(traceback: TracebackType | None) -> bool:
    """Return whether rlgrad, or Python on its behalf, raised an error, and not a user's code that rlgrad called."""
    modules = []
    while traceback is not None:
        frame = traceback.tb_frame
        if not _of_python(frame.f_code.co_filename):
            modules.append(str(frame.f_globals.get("__name__")))
        traceback = traceback.tb_next
    # Not by the file's path: a package of the user's may lie beside rlgrad, and its name may begin as rlgrad's.
    return bool(modules) and modules[-1].partition(".")[0] == "rlgrad"


def _of_python(file: str) -> bool:
    """Return True if a file belongs to Python's own library."""
    return file.startswith(("<frozen", f"{Path(os.__file__).parent}{os.sep}")) and "site-packages" not in file
