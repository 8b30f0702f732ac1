"""Agents, environments and configs are found by name (entry points) or by path; nothing has to be imported first."""

import importlib.util
import json
import sys
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlgrad.core.checks import close_names

if TYPE_CHECKING:
    pass


def agents() -> dict[str, EntryPoint]:
    """Entry points of the group `rlgrad.agents`, of every installed distribution, by name."""
    return {point.name: point for point in entry_points(group="rlgrad.agents")}


def envs() -> dict[str, EntryPoint]:
    """Entry points of the group `rlgrad.envs`, by environment id."""
    return {point.name: point for point in entry_points(group="rlgrad.envs")}


def configs() -> dict[str, Traversable]:
    """The configs that ship with rlgrad, by name."""
    found = files("rlgrad.configs").iterdir()
    return {Path(f.name).stem: f for f in sorted(found, key=lambda f: f.name) if f.name.endswith(".yaml")}


def config_results() -> dict[str, dict[str, Any]]:
    """What the configs that ship reached, by name; those that were not measured are missing.

    Returns:
        `env`, `timesteps`, `seeds`, and `train_return`, `greedy` and `sampled` with `mean`, `low`, `high` each: interquartile
        mean over the seeds and its 95 % bootstrap interval.
    """
    found: dict[str, dict[str, Any]] = json.loads((files("rlgrad.configs") / "results.json").read_text())
    return found


def from_file(path: Path, class_name: str) -> Any:
    """The class of a name in a Python file, which is executed.

    Raises:
        ValueError: there is no such file or class; says what was meant.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r}.")
    path = path.resolve()  # a run is told where it was
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{str(path)!r} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up here while its body still runs.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    if not hasattr(module, class_name):
        classes = [n for n, thing in vars(module).items() if isinstance(thing, type)]
        raise ValueError(f"{path} has no class {class_name!r}. {close_names(class_name, classes)}")
    return getattr(module, class_name)
