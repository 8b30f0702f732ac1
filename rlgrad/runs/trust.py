"""Loading a run folder executes none of the code that came with it.

A run names its agent, updates, environment, collector, encoders, wrappers and logs. A name may lead to an installed package, or
to a file of the user's own by its whole path outside of the folder. Everything else is refused before anything is imported.
Arrays are read without pickle and YAML without tags, and Keras rebuilds models and optimizers in its safe mode: its own classes
and registered ones, no Lambda.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def require_own_code(folder: Path, content: Mapping[str, Any]) -> None:
    """Look through what a run folder would have executed.

    Args:
        folder: of the run.
        content: of its config.yaml.

    Raises:
        ValueError: code in the folder, or in a file that is not said absolutely; says which, and what to do.
    """
    agent = content.get("agent")
    names = [agent.get("name"), *_types(agent)] if isinstance(agent, Mapping) else []
    names += [
        content.get("env"),
        content.get("collector"),
        *_listed(content.get("encoders")),
        *_listed(content.get("wrappers")),
        *_listed(content.get("logs")),
    ]
    for name in names:
        if isinstance(name, str) and ":" in name:
            _require(folder, name.partition("(")[0].rpartition(":")[0], name)


def _types(settings: Mapping[str, Any]) -> list[Any]:
    """Return the updates that settings name, at any depth: each `type:`."""
    inner = [value for value in settings.values() if isinstance(value, Mapping)]
    return [settings.get("type"), *(name for each in inner for name in _types(each))]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _require(folder: Path, place: str, name: str) -> None:
    if place.endswith(".py"):
        file = Path(place)
        if file != file.resolve():
            raise ValueError(
                f"{folder} names the file {place!r}, which might be one that came with it: write the whole path of the one "
                f"that you mean, without links, into {folder / 'config.yaml'}."
            )
    else:
        origin = _origin(place.partition(".")[0])
        if origin is None:
            return
        file = origin
    if file.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"{folder} asks to execute {name!r}, which lies in the folder itself: code that came with a run is never executed. "
            "If it is yours, move it out of there, and name its new place in config.yaml."
        )


def _origin(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module) if module else None
    except (ImportError, ValueError):
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin)
