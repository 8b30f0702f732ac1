"""Which collector plays an environment: a compiled one where it is written in TensorFlow, else Gymnasium's."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rlgrad.environments.ids import _from_file, _functional, _stepwise
from rlgrad.rollouts.compiled import CompiledCollector
from rlgrad.rollouts.gym import GymCollector

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
