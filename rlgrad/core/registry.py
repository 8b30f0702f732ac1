"""Names of classes: entry points of installed distributions, and places such as `file.py:Name` or `module:Name`.

Groups of entry points: `rlgrad.agents`, `rlgrad.envs`, `rlgrad.updates`, `rlgrad.collectors`, `rlgrad.logs`, `rlgrad.encoders`.
rlgrad's own classes stand in these groups like those of any other package. So a package can add to rlgrad without changing it,
and without being imported first.
"""

import importlib
import importlib.util
import json
import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from rlgrad.core.checks import close_names


def installed(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group such as `rlgrad.agents`, of every installed distribution, by name."""
    return dict(_points(group, tuple(sys.path)))


@lru_cache(maxsize=64)
def _points(group: str, path: tuple[str, ...]) -> tuple[tuple[str, EntryPoint], ...]:
    """Return the entry points on an import path. Reading all metadata takes some 10 ms, hence the cache."""
    del path
    return tuple((point.name, point) for point in entry_points(group=group))


def agents() -> dict[str, EntryPoint]:
    """Return the installed agents by name."""
    return installed("rlgrad.agents")


def envs() -> dict[str, EntryPoint]:
    """Return the installed environments that are written in TensorFlow, by id."""
    return installed("rlgrad.envs")


def find(group: str, name: str) -> Any:
    """Return the class or function of a name.

    Args:
        group: of entry points, such as `rlgrad.agents`.
        name: an entry point's name, or a place: `my_agent.py:MyAgent`, `my_package.agents:MyAgent`.

    Raises:
        ValueError: there is no such name, file, module or class; the message has the names that are near.
    """
    noun = group.rpartition(".")[2].removesuffix("s")
    place, colon, attribute = name.rpartition(":")
    if not colon:
        known = installed(group)
        if name not in known:
            raise ValueError(f"There is no {noun} {name!r}. {close_names(name, known)} Your own: my_{noun}.py:Name.")
        return known[name].load()
    if place.endswith(".py"):
        return from_file(Path(place), attribute)
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise ValueError(f"{name!r} asks for the module {place!r}, which cannot be imported: {error}.") from error
    if not hasattr(module, attribute):
        raise ValueError(f"The module {place} has no {attribute!r}. {close_names(attribute, vars(module))}")
    return getattr(module, attribute)


def name_of(group: str, thing: Any) -> str:
    """Return the name by which `find` finds a class or function: an entry point's, or its place.

    A place is `module:Name` if an installed distribution brings the module, else `file.py:Name`.
    """
    place = f"{thing.__module__}:{thing.__qualname__}"
    for name, point in installed(group).items():
        if point.value == place:
            return name
    file = getattr(sys.modules.get(thing.__module__), "__file__", None)
    if file is None or "site-packages" in Path(file).parts:
        return place
    return f"{file}:{thing.__qualname__}"


def configs() -> dict[str, Traversable]:
    """Return the YAML files of the configs that ship with rlgrad, by name."""
    found = files("rlgrad.configs").iterdir()
    return {Path(f.name).stem: f for f in sorted(found, key=lambda f: f.name) if f.name.endswith(".yaml")}


def config_results() -> dict[str, dict[str, Any]]:
    """Return the results of the configs that ship, by name, without the configs that were not measured.

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
