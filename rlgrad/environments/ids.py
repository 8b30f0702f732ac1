"""From the id or the place of an environment to what makes it, and advice where there is nothing of that name."""

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.experimental.functional import FuncEnv

from rlgrad.core import registry
from rlgrad.environments.functional import AnyFuncEnv, FunctionalEnv, functional_of

Made = TypeVar("Made")

# The extra of the gymnasium distribution that each family of its environments needs.
_EXTRAS = {"box2d": "box2d", "mujoco": "mujoco", "phys2d": "jax", "tabular": "jax"}

# Packages that register their environments when they are imported, by the beginning of the ids.
_MODULES = {"ALE/": "ale_py", "MiniGrid-": "minigrid", "BabyAI-": "minigrid"}


ATARI_LIMIT = "max_num_frames_per_episode"  # Atari environments count frames, of which a step has several


def frame_limit(spec: EnvSpec, kwargs: Mapping[str, Any] | None = None) -> int | None:
    """Return the number of steps after which an environment that counts frames ends its episodes; `None` for others.

    Args:
        spec: its specification.
        kwargs: for its constructor, besides those of the specification.
    """
    options = {**spec.kwargs, **(kwargs or {})}
    return int(options[ATARI_LIMIT] // options["frameskip"]) if ATARI_LIMIT in spec.kwargs else None


def find_spec(env_id: str) -> EnvSpec:
    """Return the specification of a registered id, or of `module:id`, whose module is imported first.

    Raises:
        ValueError: the id is unknown; suggests similar ones.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        registry.import_named(module, env_id)
    if name not in gymnasium.registry:
        register()
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise ValueError(f"No environment is registered as {name!r}: {_suggestion(name, module)}") from error


def _suggestion(name: str, module: str) -> str:
    """Return advice for an id that is not registered."""
    registers = next((home for start, home in _MODULES.items() if name.startswith(start) and home != module), None)
    if registers is not None:
        return f"write '{registers}:{name}', which imports the package that registers it."
    by_lower_case = {known.lower(): known for known in gymnasium.registry}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=3)
    if close:
        return f"did you mean {' or '.join(by_lower_case[match] for match in close)}?"
    return "gymnasium.pprint_registry() lists them, and 'module:id' imports the module that registers one first."


def explain_missing(spec: EnvSpec, create: Callable[[], Made]) -> Made:
    """Return the result of `create`, which makes an environment of this specification.

    Raises:
        ImportError: its package is not installed; the message has the command that installs it.
    """
    try:
        return create()
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        package, _, path = str(spec.entry_point or spec.vector_entry_point).partition(".envs.")
        extra = _EXTRAS.get(path.split(".", maxsplit=1)[0]) if package == "gymnasium" else None
        advice = f"pip install 'gymnasium[{extra}]'" if extra else str(error)
        raise ImportError(f"{spec.id} needs a package that is not installed: {advice}") from error


def register() -> None:
    """Register with Gymnasium the ids of all installed functional environments that it does not know yet."""
    for name, point in registry.envs().items():
        # Loading may import `rlgrad.envs`, which registers: look only afterwards.
        cls = point.load() if name not in gymnasium.registry else None
        if cls is not None and name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point=partial(_make, cls),
                vector_entry_point=partial(_make_vector, cls),
                max_episode_steps=getattr(cls, "max_episode_steps", None),
                reward_threshold=getattr(cls, "reward_threshold", None),
            )


def _make(cls: Any, render_mode: str | None = None, **kwargs: Any) -> FunctionalEnv:
    return FunctionalEnv(functional_of(cls, kwargs), render_mode)


def _make_vector(cls: Any, num_envs: int = 1, max_episode_steps: int | None = None, **kwargs: Any) -> Any:
    from rlgrad.environments.functional_vector import FunctionalVectorEnv

    return FunctionalVectorEnv(functional_of(cls, kwargs), num_envs, max_episode_steps)


def with_kwargs(kwargs: Mapping[str, Any], name: str, create: Callable[[], Made]) -> Made:
    """Return the result of `create`, which makes an environment of this name with these keyword arguments.

    Raises:
        ValueError: it does not take them.
    """
    try:
        return create()
    except TypeError as error:
        said = str(error).split("\n", maxsplit=1)[0]
        own = said.startswith((f"{name}.__init__() missing", f"{name}() missing")) or "environment creator" in said
        if own and "() missing" in said:
            raise ValueError(f"{said}. Give it in env_kwargs (command line: --env-kwargs name value).") from error
        if not kwargs or "argument" not in said:
            raise
        raise ValueError(f"env_kwargs={dict(kwargs)} are not what {name} takes: {said}") from error


def maker(
    env: str, max_episode_steps: int | None = None, env_kwargs: Mapping[str, Any] | None = None
) -> Callable[[], gymnasium.Env[Any, Any]]:
    """Return a function that makes one environment of an id, of `module:id`, or of a class in a file, `file.py:Name`.

    Args:
        env: the id or the place.
        max_episode_steps: a time limit. It replaces an id's own.
        env_kwargs: for its constructor.

    Raises:
        ValueError: there is no such environment, or it does not take these arguments.
    """
    found, kwargs = load_class(env), dict(env_kwargs or {})
    if isinstance(found, str):
        return maker_of(find_spec(found), max_episode_steps, kwargs)
    name = registry.spoken_name(found)
    functional = with_kwargs(kwargs, name, partial(find_functional, found, kwargs))
    stepwise = partial(with_kwargs, kwargs, name, partial(found, **kwargs))
    make = stepwise if functional is None else partial(make_stepwise, functional)
    return make if max_episode_steps is None else lambda: gymnasium.wrappers.TimeLimit(make(), max_episode_steps)


def maker_of(
    spec: EnvSpec, max_episode_steps: int | None, kwargs: Mapping[str, Any]
) -> Callable[[], gymnasium.Env[Any, Any]]:
    """Return a function that makes one environment of a specification. See `maker`."""
    create = partial(gymnasium.make, spec, max_episode_steps, **kwargs)
    return lambda: with_kwargs(kwargs, spec.id, lambda: explain_missing(spec, create))


def load_class(env: Any) -> Any:
    """Return what `file.py:Name` names, or the class of an environment that `module:Name` does; else the argument itself."""
    place, name = registry.split(env) if isinstance(env, str) else ("", "")
    if place.endswith(".py"):
        return registry.find("rlgrad.envs", env)
    if not place or not name.isidentifier() or name in gymnasium.registry:
        return env
    cls = getattr(registry.import_named(place, env), name, None)  # importing it may have registered an id of that name
    own = isinstance(cls, type) and issubclass(cls, (gymnasium.Env, FuncEnv)) and not issubclass(cls, gymnasium.Wrapper)
    return cls if own and name not in gymnasium.registry else env


def find_functional(env: Any, kwargs: dict[str, Any]) -> AnyFuncEnv | None:
    """Return the functional environment that a user means, or `None` if it is written in another way.

    Args:
        env: an id, a class, an instance, or a function that makes an environment.
        kwargs: for the constructor of a class.
    """
    if isinstance(env, str) and env in registry.envs():
        env = registry.envs()[env].load()
    if isinstance(env, FuncEnv):
        return env
    return functional_of(env, kwargs) if isinstance(env, type) and issubclass(env, FuncEnv) else None


def require_spaces(env: gymnasium.Env[Any, Any]) -> None:
    """Raise a ValueError for an environment that does not say what it observes or takes."""
    for name in ("observation_space", "action_space"):
        given = getattr(env, name, None)
        if not isinstance(given, gymnasium.Space):
            has = f"no {name}" if given is None else f"{given!r} as its {name}"
            raise ValueError(
                f"{type(env.unwrapped).__name__} has {has}: set self.{name} to a gymnasium.Space in its __init__, such as "
                "gymnasium.spaces.Discrete(2)."
            )


def make_stepwise(
    functional: AnyFuncEnv, max_episode_steps: int | None = None, render_mode: str | None = None
) -> gymnasium.Env[Any, Any]:
    """Return a functional environment as an ordinary one, with this time limit or its own."""
    limit = max_episode_steps or getattr(functional, "max_episode_steps", None)
    single = FunctionalEnv(functional, render_mode)
    return single if limit is None else gymnasium.wrappers.TimeLimit(single, limit)
