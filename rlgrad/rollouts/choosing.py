"""Which collector plays an environment: a compiled one where it is written in TensorFlow, else Gymnasium's."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.experimental.functional import FuncEnv

from rlgrad import registry
from rlgrad.rollouts.collector import GymCollector
from rlgrad.rollouts.compiled import CompiledCollector
from rlgrad.rollouts.functional import AnyFuncEnv, FunctionalEnv, functional_of
from rlgrad.rollouts.specs import find_spec, installed

Collector = GymCollector | CompiledCollector


def make_collector(
    env: Any,
    *,
    vectorization_mode: str = "auto",
    env_kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[str] = (),
    step_timeout: float | None = None,
    **options: Any,
) -> Collector:
    """The collector for an environment, by a fixed rule.

    An environment written in TensorFlow, without wrappers, is compiled together with the policy, unless a mode of
    `GymCollector` is asked for. Everything else goes to `GymCollector`.

    Args:
        env: what `GymCollector` takes; or a functional environment, its class; or `file.py:Name` of a class of either kind.
        vectorization_mode: `"auto"`, `"compiled"`, or a mode of `GymCollector`.
        env_kwargs: for the environment's constructor.
        wrappers: around each environment.
        step_timeout: see `GymCollector`.
        options: those that both collectors have.

    Raises:
        ValueError: `"compiled"` for an environment that is not written in TensorFlow, or with wrappers; `"async"` for one
            that is.
    """
    kwargs, env = dict(env_kwargs or {}), _from_file(env)
    functional = _functional(env, kwargs)
    if functional is not None and vectorization_mode == "async":
        raise ValueError(
            "An environment written in TensorFlow cannot be stepped in processes of its own, which TensorFlow does not "
            'survive: leave vectorization_mode out, or set it to "sync".'
        )
    if functional is not None and vectorization_mode in ("auto", "compiled") and not wrappers and step_timeout is None:
        return CompiledCollector(functional, **options)
    if vectorization_mode == "compiled" and step_timeout is None:
        what = "this one is wrapped" if wrappers else f"{env} is none"
        raise ValueError(
            f'vectorization_mode="compiled" is for environments written in TensorFlow and without wrappers, and {what}: leave '
            "it out, or see docs/compiled-environments.md."
        )
    if functional is not None and not isinstance(env, str):
        env, kwargs = partial(_stepwise, functional), {}
    return GymCollector(
        env,
        vectorization_mode=vectorization_mode,
        env_kwargs=kwargs or None,
        wrappers=wrappers,
        step_timeout=step_timeout,
        **options,
    )


def maker(env: str) -> Callable[[], gymnasium.Env[Any, Any]]:
    """What makes one environment of an id, of `module:id`, or of a class in a file, `file.py:Name`.

    Raises:
        ValueError: there is none.
    """
    found = _from_file(env)
    if isinstance(found, str):
        spec = find_spec(found)
        return lambda: installed(spec, partial(gymnasium.make, spec))
    functional = _functional(found, {})
    return found if functional is None else partial(_stepwise, functional)


def _from_file(env: Any) -> Any:
    """The class that `file.py:Name` means; anything else as it is."""
    path, _, name = env.rpartition(":") if isinstance(env, str) else ("", "", "")
    return registry.from_file(Path(path), name) if path.endswith(".py") else env


def _functional(env: Any, kwargs: dict[str, Any]) -> AnyFuncEnv | None:
    """The functional environment that a user means, if it is one."""
    if isinstance(env, str) and env in registry.envs():
        env = registry.envs()[env].load()
    if isinstance(env, FuncEnv):
        return env
    return functional_of(env, kwargs) if _is_functional_class(env) else None


def _is_functional_class(env: Any) -> bool:
    return isinstance(env, type) and issubclass(env, FuncEnv)


def _stepwise(functional: AnyFuncEnv) -> gymnasium.Env[Any, Any]:
    limit = getattr(functional, "max_episode_steps", None)
    single = FunctionalEnv(functional)
    return single if limit is None else gymnasium.wrappers.TimeLimit(single, limit)
