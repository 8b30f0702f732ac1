"""What a name means: an entry point of an installed distribution, or a place such as `file.py:Name` or `module:Name`.

Groups of entry points: `rlgrad.agents`, `rlgrad.envs`, `rlgrad.updates`, `rlgrad.collectors`, `rlgrad.logs`, `rlgrad.encoders`.
What ships stands in them like everything else, so another package adds to rlgrad without changing it, and nothing has to be
imported beforehand.
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
    """Look through the metadata of all distributions on a path, which takes some 10 ms, once."""
    del path
    return tuple((point.name, point) for point in entry_points(group=group))


def agents() -> dict[str, EntryPoint]:
    """Return the installed agents by name."""
    return installed("rlgrad.agents")


def envs() -> dict[str, EntryPoint]:
    """Return the installed environments that are written in TensorFlow, by id."""
    return installed("rlgrad.envs")


def find(group: str, name: str) -> Any:
    """Load what a name means.

    Args:
        group: of entry points, such as `rlgrad.agents`.
        name: an entry point's name, or a place: `my_agent.py:MyAgent`, `my_package.agents:MyAgent`.

    Raises:
        ValueError: there is no such name, file, module or class; says what was meant.
    """
    noun = group.rpartition(".")[2].removesuffix("s")
    place, colon, attribute = name.rpartition(":")
    if not colon:
        known = installed(group)
        if name not in known:
            raise ValueError(f"There is no {noun} {name!r}. {close_names(name, known)} Your own: my_{noun}.py:Name.")
        return known[name].load()
    if place.endswith(".py"):
        return _from_script(Path(place), attribute) if _is_running(Path(place)) else from_file(Path(place), attribute)
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise ValueError(f"{name!r} asks for the module {place!r}, which cannot be imported: {error}.") from error
    if not hasattr(module, attribute):
        raise ValueError(f"The module {place} has no {attribute!r}. {close_names(attribute, vars(module))}")
    return getattr(module, attribute)


def _is_running(path: Path) -> bool:
    script = getattr(sys.modules["__main__"], "__file__", None)
    return script is not None and Path(script).resolve() == path.resolve()


def _from_script(path: Path, attribute: str) -> Any:
    """Return what the running script has defined so far: executed anew, it would do all its work again, and again."""
    names = vars(sys.modules["__main__"])
    if attribute not in names:
        raise ValueError(f"{path} is running, and has not defined {attribute!r} yet. {close_names(attribute, names)}")
    return names[attribute]


def name_of(group: str, thing: Any) -> str:
    """Return the name by which `find` finds a class or function: an entry point's, or its place.

    A place is `module:Name` for what an installed distribution brings, else `file.py:Name`.
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
