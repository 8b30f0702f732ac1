"""Where a run comes from: run.json, which says what made it. config.yaml, beside it, holds the settings.

No code reads run.json to decide anything: `rlgrad train --from RUN` repeats a run from its config.yaml. run.json tells a person
what else must be equal (machine, versions, commit) for the weights to come out equal.
"""

import functools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import gymnasium
import keras
import tensorflow as tf

from rlgrad.config import Config
from rlgrad.core import plain_files, registry
from rlgrad.environments.ids import find_spec, frame_limit
from rlgrad.runs import checkpoints

FILE = "run.json"
_ENGINES = ("mujoco", "Box2D", "ale_py")  # they step environments whose classes belong to another package


def write(path: Path, config: Config, *, command: str, device: str, vectorization_mode: str) -> None:
    """Write run.json into the folder of a run that is about to begin.

    Args:
        path: the run's folder.
        config: of the run.
        command: the command that started it, as one would type it.
        device: the device it computes on.
        vectorization_mode: how its environments are stepped, never `"auto"`.
    """
    made = provenance(config, command=command, device=device, vectorization_mode=vectorization_mode)
    checkpoints.write_text(path / FILE, json.dumps(made, indent=2) + "\n")


def write_resumed(
    path: Path, config: Config, timesteps: int, *, command: str, device: str, vectorization_mode: str
) -> None:
    """Add to run.json that a run is resumed from a checkpoint.

    Args:
        path: the run's folder.
        config: of the run.
        timesteps: environment steps at the checkpoint.
        command: the command that resumes it, as one would type it.
        device: the device it computes on.
        vectorization_mode: how its environments are stepped, never `"auto"`.
    """
    file = path / FILE
    try:
        made = plain_files.read_json(file)
        before = list(made.setdefault("resumed", []))
    except (OSError, ValueError, TypeError, AttributeError):  # older runs lack the file, and it may have been edited
        made, before = {}, []
    now = occasion(command, environment_of(config, vectorization_mode)["entry_point"], device)
    made["resumed"] = [*before, {"timesteps": timesteps, **now}]
    checkpoints.write_text(file, json.dumps(made, indent=2) + "\n")


def provenance(config: Config, *, command: str, device: str, vectorization_mode: str) -> dict[str, Any]:
    """Return the content of run.json when a run begins.

    Args:
        config: of the run.
        command: the command that started it, as one would type it.
        device: the device it computes on.
        vectorization_mode: how its environments are stepped, never `"auto"`.

    Returns:
        `seed`, `environment`, and the entries of `occasion`.
    """
    environment = environment_of(config, vectorization_mode)
    return {**occasion(command, environment["entry_point"], device), "seed": config.seed, "environment": environment}


def occasion(command: str, entry_point: str, device: str) -> dict[str, Any]:
    """Describe the machine, the versions and the command that train a run now.

    Args:
        command: the command, as one would type it.
        entry_point: `module:name` of the environment.
        device: the device the run computes on.

    Returns:
        `command`, `started`, `directory`, `device`, `machine`, `versions`, and `git`: the commit of the repository
        around the current directory, and whether tracked files differ from it; absent outside of a repository.
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
    """Return the versions of Python and of the packages that a run computes with, its environment's included.

    Args:
        entry_point: `module:name` of the environment.
    """
    known = {
        "python": platform.python_version(),
        "rlgrad": version("rlgrad"),
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
    """Describe the environment: id, entry point, arguments, wrappers, time limit, and how it is stepped."""
    asked = dict(config.env_kwargs)
    wrappers = list(config.wrappers)
    spec = _spec(config.env)
    if spec is None:
        name, limit = _place(config.env), getattr(config.env, "max_episode_steps", None)
        found: dict[str, Any] = {"id": config.env_name, "entry_point": name, "kwargs": asked}
        if isinstance(config.env, functools.partial):
            found["kwargs"] = config.env.keywords | asked
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
    """Return the commit of the repository around a folder, and whether tracked files differ from it. `None` outside of one."""
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
    """Return `module:name` of a class, a function or an instance; text is returned as it is."""
    if isinstance(thing, str):
        return thing
    while isinstance(thing, functools.partial):
        thing = thing.func
    named = thing if hasattr(thing, "__qualname__") else type(getattr(thing, "unwrapped", thing))
    return f"{named.__module__}:{named.__qualname__}"


def _plain(value: Any) -> Any:
    """Return arguments as JSON can hold them, and the `repr` of those it cannot."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)
