"""From an environment and options to the collector that plays it: a compiled one, Gymnasium's, or one of a user's own."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rlgrad.core import registry
from rlgrad.environments.ids import find_functional, load_class, make_stepwise
from rlgrad.random import StreamName, integer_seed, stream
from rlgrad.rollouts.base import Collector, require_collector
from rlgrad.rollouts.compiled import CompiledCollector
from rlgrad.rollouts.gym import GymCollector

GROUP = "rlgrad.collectors"
REMOTE = "ray"  # its name there


def make_collector(
    env: Any,
    *,
    collector: str | Callable[..., Any] = "auto",
    vectorization_mode: str = "auto",
    env_kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[str] = (),
    step_timeout: float | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    worker_timeout: float | None = None,
    asynchronous: bool = False,
    max_lag: int | None = None,
    **options: Any,
) -> Collector:
    """Make the collector for an environment, by a fixed rule unless one is named.

    An environment written in TensorFlow, without wrappers, is compiled together with the policy, unless `vectorization_mode` is
    a mode of `GymCollector`. Everything else goes to `GymCollector`.

    Args:
        env: what `GymCollector` takes; or a functional environment, its class; or `file.py:Name` of a class of either kind.
            A collector of a user's own is given it as it is.
        collector: `"auto"`; or the class of a collector, its name in the entry points `rlgrad.collectors`, `file.py:Name` or
            `module:Name`.
        vectorization_mode: `"auto"`, `"compiled"`, or a mode of `GymCollector`.
        env_kwargs: for the environment's constructor.
        wrappers: around each environment.
        step_timeout: see `GymCollector`.
        workers: processes that step the environments, with the installed collector `"ray"`. `None`: this one does.
        ray_address: see `RemoteCollector`.
        worker_timeout: likewise.
        asynchronous: do not wait for all workers; see `AsynchronousCollector`.
        max_lag: likewise.
        options: the other ones of `GymCollector`.

    Raises:
        ValueError: `"compiled"` for an environment that is not written in TensorFlow, or with wrappers; `"async"` for one
            that is; or an unknown name of a collector.
        TypeError: the collector lacks something that a run needs.
    """
    if workers is not None:
        if collector not in ("auto", REMOTE):
            raise ValueError(
                "workers is a setting of rlgrad's own collector, and another one is named: leave one of them out."
            )
        collector = f"{REMOTE}-asynchronous" if asynchronous else REMOTE
        options |= {"workers": workers, "ray_address": ray_address, "worker_timeout": worker_timeout}
        options |= {"max_lag": max_lag} if asynchronous else {}
    if collector != "auto":
        options |= {"env_kwargs": env_kwargs, "wrappers": wrappers, "step_timeout": step_timeout}
        return _make_own(collector, env, vectorization_mode=vectorization_mode, **options)
    kwargs, env = dict(env_kwargs or {}), load_class(env)
    functional = find_functional(env, kwargs)
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
        env, kwargs = partial(make_stepwise, functional), {}
    return GymCollector(
        env,
        vectorization_mode=vectorization_mode,
        env_kwargs=kwargs or None,
        wrappers=wrappers,
        step_timeout=step_timeout,
        **options,
    )


def _make_own(
    collector: str | Callable[..., Any],
    env: Any,
    *,
    seed: int = 0,
    streams: tuple[StreamName, StreamName] | None = None,
    **options: Any,
) -> Collector:
    """Make a collector of a user's own. A seed is all it takes: its numbers in an evaluation follow from another one."""
    create = registry.find(GROUP, collector) if isinstance(collector, str) else collector
    if not callable(create):
        raise ValueError(f"A collector is a class, and {collector!r} is a {type(create).__name__}.")
    options = {**dict.fromkeys(("num_envs", "num_steps", "episodes_per_env", "max_episode_steps")), **options}
    if getattr(create, "has_streams", False):
        own_seed = seed
        options |= {} if streams is None else {"streams": streams}
    else:
        own_seed = seed if streams is None else integer_seed(stream(seed, streams[0]))
    return require_collector(create(env, seed=own_seed, **options))
