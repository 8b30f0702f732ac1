"""Where a run comes from: run.json, which says what made it. config.yaml, beside it, says what was asked for.

Nothing is decided by run.json: `rlgrad train --from RUN` repeats a run from its config.yaml, and run.json tells a person what
has to be the same besides for the weights to come out the same.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import keras
import tensorflow as tf

import rlgrad
from rlgrad.config import Config
from rlgrad.core import registry
from rlgrad.environments.ids import find_spec, frame_limit
from rlgrad.runs import checkpoints

if TYPE_CHECKING:
    from rlgrad.runs.run import Run

FILE = "run.json"
_ENGINES = ("mujoco", "Box2D", "ale_py")  # what steps environments whose class is another package's


def write(run: "Run", command: str) -> None:
    """Write run.json into a run's folder.

    Args:
        run: about to be trained.
        command: what started it, as one would type it.
    """
    mode = run.collector.vectorization_mode
    made = provenance(run.config, command=command, device=run.device, vectorization_mode=mode)
    checkpoints.write_text(run.path / FILE, json.dumps(made, indent=2) + "\n")


def write_resumed(run: "Run", command: str) -> None:
    """Add to a run's run.json that it goes on from a checkpoint.

    Args:
        run: about to be trained.
        command: what goes on with it, as one would type it.
    """
    file = run.path / FILE
    try:
        made = json.loads(file.read_text())
        before = list(made.setdefault("resumed", []))
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
    ):  # an older run has none, and whoever lent it may have edited it
        made, before = {}, []
    mode = run.collector.vectorization_mode
    now = occasion(command, environment_of(run.config, mode)["entry_point"], run.device)
    made["resumed"] = [*before, {"timesteps": run.timesteps, **now}]
    checkpoints.write_text(file, json.dumps(made, indent=2) + "\n")


def provenance(config: Config, *, command: str, device: str, vectorization_mode: str) -> dict[str, Any]:
    """What run.json holds when a run begins.

    Args:
        config: what the run was asked to do.
        command: what started it, as one would type it.
        device: what it computes on.
        vectorization_mode: how its environments are stepped, never `"auto"`.

    Returns:
        `seed`, `environment`, and what `occasion` gives.
    """
    environment = environment_of(config, vectorization_mode)
    return {**occasion(command, environment["entry_point"], device), "seed": config.seed, "environment": environment}


def occasion(command: str, entry_point: str, device: str) -> dict[str, Any]:
    """What trains a run here and now.

    Args:
        command: what started it, as one would type it.
        entry_point: `module:name` of the environment.
        device: what it computes on.

    Returns:
        `command`, `started`, `directory`, `device`, `machine`, `versions`, and `git`: commit and whether tracked files differed
        from it, of the repository that the current directory is in; absent outside of one.
    """
    git = git_state(Path.cwd())
    return {
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "directory": str(Path.cwd()),
        "device": device,
        "machine": {"platform": platform.platform(), "architecture": platform.machine(), "cores": os.cpu_count()},
        "versions": versions(entry_point),
        **({} if git is None else {"git": git}),
    }


def versions(entry_point: str) -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes, that of its environment included.

    Args:
        entry_point: `module:name` of the environment.
    """
    known = {
        "python": platform.python_version(),
        "rlgrad": rlgrad.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": version("numpy"),
        "gymnasium": gymnasium.__version__,
    }
    home = entry_point.partition(":")[0].partition(".")[0]
    used = [name for name in (home, *_ENGINES) if name in sys.modules and name not in known]
    installed = packages_distributions() if used else {}  # looks into every package, which takes 0.1 s and more
    return known | {dist: version(dist) for name in used for dist in installed.get(name, []) if dist not in known}


def environment_of(config: Config, vectorization_mode: str) -> dict[str, Any]:
    """The environment's id, entry point, arguments, wrappers, time limit, and how it is stepped."""
    asked = dict(config.env_kwargs)
    wrappers = list(config.wrappers)
    spec = _spec(config.env)
    if spec is None:
        name, limit = _place(config.env), getattr(config.env, "max_episode_steps", None)
        found: dict[str, Any] = {"id": config.env_name, "entry_point": name, "kwargs": asked}
    else:
        vector = vectorization_mode == "vector_entry_point"
        made_by = _place(spec.vector_entry_point if vector else spec.entry_point)
        entry_point = registry.envs()[spec.id].value if spec.id in registry.envs() else made_by
        found = {"id": config.env if isinstance(config.env, str) else spec.id, "entry_point": entry_point}
        found["kwargs"], limit = {**spec.kwargs, **asked}, spec.max_episode_steps or frame_limit(spec, asked)
        wrappers = [wrapper.name for wrapper in spec.additional_wrappers] + wrappers
    found["kwargs"] = {key: _plain(value) for key, value in found["kwargs"].items()}
    limits = {"max_episode_steps": config.max_episode_steps or limit, "vectorization_mode": vectorization_mode}
    return found | {"wrappers": wrappers} | limits


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit that a folder is at, and whether tracked files differ from it; none outside of a repository."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")  # the run's own folder is untracked
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):  # no git, no repository, no commit, a slow disk
        return None
    return done.stdout.strip()


def _spec(env: Any) -> gymnasium.envs.registration.EnvSpec | None:
    if isinstance(env, str) and not env.rpartition(":")[0].endswith(".py"):
        try:
            return find_spec(env)
        except ValueError:  # a collector of the user's own may know environments that Gymnasium does not
            return None
    spec = getattr(env, "spec", None)
    return spec if isinstance(spec, gymnasium.envs.registration.EnvSpec) else None


def _place(thing: Any) -> str:
    """`module:name` of a class, a function or an instance; a text is one already."""
    if isinstance(thing, str):
        return thing
    named = thing if hasattr(thing, "__qualname__") else type(getattr(thing, "unwrapped", thing))
    return f"{named.__module__}:{named.__qualname__}"


def _plain(value: Any) -> Any:
    """Arguments as JSON holds them; of what it cannot, what Python shows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)
