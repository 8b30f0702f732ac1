"""Ids of environments: finding what is registered, and saying what is missing."""

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import gymnasium
from gymnasium.envs.registration import EnvSpec

from rlgrad.rollouts import functional

Made = TypeVar("Made")

# The extra of the gymnasium distribution that each family of its environments needs.
_EXTRAS = {"box2d": "box2d", "mujoco": "mujoco", "phys2d": "jax", "tabular": "jax"}

# Packages that register their environments when they are imported, by how the ids begin.
_MODULES = {"ALE/": "ale_py", "MiniGrid-": "minigrid", "BabyAI-": "minigrid"}


ATARI_LIMIT = "max_num_frames_per_episode"  # Atari environments count frames, of which a step has several


def frame_limit(spec: EnvSpec, kwargs: Mapping[str, Any] | None = None) -> int | None:
    """Steps after which an environment that counts frames cuts its episodes itself; none for others.

    Args:
        spec: its specification.
        kwargs: for its constructor, besides those of the specification.
    """
    options = {**spec.kwargs, **(kwargs or {})}
    return int(options[ATARI_LIMIT] // options["frameskip"]) if ATARI_LIMIT in spec.kwargs else None


def find_spec(env_id: str) -> EnvSpec:
    """The specification of a registered id, or of `module:id`, which imports the module first.

    Raises:
        ValueError: unknown, with the names that come close.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{env_id!r} asks for the module {module!r}, which cannot be imported: {error}."
            ) from error
    if name not in gymnasium.registry:
        functional.register()
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise ValueError(f"No environment is registered as {name!r}: {_meant(name, module)}") from error


def _meant(name: str, module: str) -> str:
    """What an id that is not registered may have been meant to be."""
    registers = next((home for start, home in _MODULES.items() if name.startswith(start) and home != module), None)
    if registers is not None:
        return f"write '{registers}:{name}', which imports the package that registers it."
    by_lower_case = {known.lower(): known for known in gymnasium.registry}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=3)
    if close:
        return f"did you mean {' or '.join(by_lower_case[match] for match in close)}?"
    return "gymnasium.pprint_registry() lists them, and 'module:id' imports the module that registers one first."


def installed(spec: EnvSpec, create: Callable[[], Made]) -> Made:
    """What `create` makes, or an ImportError with the command that installs what is missing."""
    try:
        return create()
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        package, _, path = str(spec.entry_point or spec.vector_entry_point).partition(".envs.")
        extra = _EXTRAS.get(path.split(".", maxsplit=1)[0]) if package == "gymnasium" else None
        advice = f"pip install 'gymnasium[{extra}]'" if extra else str(error)
        raise ImportError(f"{spec.id} needs a package that is not installed: {advice}") from error
