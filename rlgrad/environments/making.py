"""From whatever a user calls an environment (an id, an instance, a function) to one vector environment."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
from gymnasium import Env
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit

from rlgrad.environments.array_observations import require_arrays, with_arrays
from rlgrad.environments.guarding import Guarded, guards_of
from rlgrad.environments.ids import find_spec, installed
from rlgrad.environments.masking import MaskInObservation, can_be_masked, mask_width
from rlgrad.environments.processes import Processes
from rlgrad.environments.vector import (
    AnyVectorEnv,
    Environment,
    common_limit,
    from_vector,
    from_vector_entry_point,
    threshold,
)
from rlgrad.environments.wrapping import Wrap, wrap_all
from rlgrad.spaces.conversion import converts

AnyEnv = Env[Any, Any]
MODES = ("auto", "sync", "async", "vector_entry_point")


def make(
    env: Any,
    num_envs: int | None,
    max_episode_steps: int | None,
    vectorization_mode: str,
    env_kwargs: Mapping[str, Any] | None,
    wrappers: Sequence[str] = (),
    step_timeout: float | None = None,
) -> Environment:
    """Makes the vector environment; the arguments and errors are those of `GymCollector`, and documented there."""
    if step_timeout is not None and not 0.0 < step_timeout < math.inf:
        raise ValueError(f"step_timeout is a number of seconds above 0, got {step_timeout!r}.")
    if step_timeout is not None and vectorization_mode != "async":
        raise ValueError(
            "step_timeout needs environments in processes of their own, since nothing else can be stopped in the middle of a "
            f'step: set vectorization_mode="async", or leave step_timeout out; got {vectorization_mode!r}.'
        )
    made = _make(env, num_envs, max_episode_steps, vectorization_mode, env_kwargs, wrappers)
    require_arrays(made.vector)
    if isinstance(made.vector.unwrapped, Processes):
        made.vector.unwrapped.step_timeout = step_timeout
    return made


def _make(
    env: Any,
    num_envs: int | None,
    max_episode_steps: int | None,
    vectorization_mode: str,
    env_kwargs: Mapping[str, Any] | None,
    wrappers: Sequence[str],
) -> Environment:
    if vectorization_mode not in MODES:
        raise ValueError(f"vectorization_mode is one of {', '.join(MODES)}; got {vectorization_mode!r}.")
    if env_kwargs and isinstance(env, Env | VectorEnv):
        raise ValueError("env_kwargs are for an environment that is still to be made: leave them out for this one.")
    if env_kwargs and "max_episode_steps" in env_kwargs:
        raise ValueError("Give max_episode_steps to the collector itself, not in env_kwargs.")
    if wrappers and (isinstance(env, Env | VectorEnv) or vectorization_mode == "vector_entry_point"):
        raise ValueError("wrappers are for single environments that are still to be made: wrap this one yourself.")
    kwargs, wrap = dict(env_kwargs or {}), wrap_all(wrappers)
    if isinstance(env, VectorEnv):
        return from_vector(env, num_envs, max_episode_steps, vectorization_mode)
    if isinstance(env, Env):
        if num_envs is not None and num_envs > 1:
            raise ValueError(f"One environment cannot fill num_envs={num_envs} slots: pass a function that makes one.")
        if vectorization_mode not in ("auto", "sync"):
            raise ValueError(f"An instance runs in sync only: pass a function for {vectorization_mode!r}.")
        return _from_environments([env], max_episode_steps)._replace(owned=False)
    num_envs = 8 if num_envs is None else num_envs
    if vectorization_mode == "auto":
        vectorization_mode = resolved_mode(env, num_envs, max_episode_steps, kwargs, wrappers)
    if isinstance(env, str):
        return _from_id(env, num_envs, max_episode_steps, vectorization_mode, kwargs, wrap)
    if not callable(env):
        raise TypeError(
            "env is an id, a gymnasium.Env, a function that makes one, or a gymnasium.vector.VectorEnv; "
            f"got a {type(env).__name__}."
        )
    if vectorization_mode == "vector_entry_point":
        raise ValueError('vectorization_mode="vector_entry_point" needs an id; for a function use "sync" or "async".')
    create = partial(_call, env, kwargs)
    return _from_function(lambda: wrap(create()), num_envs, max_episode_steps, vectorization_mode)


def resolved_mode(
    env: Any, num_envs: int, max_episode_steps: int | None, kwargs: dict[str, Any], wrappers: Sequence[str]
) -> str:
    """What `vectorization_mode="auto"` becomes: a rule that looks at the environment alone, never at timings.

    `"vector_entry_point"` for several slots of an id that has one which means the same: it takes the same arguments, has the
    spaces of the single environment, and keeps to a time limit that is asked for. Else `"sync"`.
    """
    if not isinstance(env, str) or num_envs == 1 or wrappers:
        return "sync"
    spec = find_spec(env)
    limited = max_episode_steps is None or spec.max_episode_steps is not None
    same = spec.vector_entry_point is not None and limited and _same_as_single(spec, kwargs)
    return "vector_entry_point" if same else "sync"


def _same_as_single(spec: EnvSpec, kwargs: dict[str, Any]) -> bool:
    if spec.entry_point is None:
        return True
    with contextlib.ExitStack() as made:
        try:
            single = made.enter_context(contextlib.closing(gymnasium.make(spec, **kwargs)))
            vector = gymnasium.make_vec(spec, 1, vectorization_mode="vector_entry_point", **kwargs)
        except Exception:  # whatever it is, the mode that is then taken says so in words, if it has the same trouble
            return False
        made.callback(vector.close)
        return (
            single.observation_space == vector.single_observation_space
            and single.action_space == vector.single_action_space
            and not converts(single.observation_space)
            and mask_width(single) is None  # nobody says how a vector entry point gives its masks
            and "autoreset_mode" in vector.metadata
        )


def _from_id(
    env_id: str,
    num_envs: int,
    max_episode_steps: int | None,
    vectorization_mode: str,
    kwargs: dict[str, Any],
    wrap: Wrap,
) -> Environment:
    spec = find_spec(env_id)
    if vectorization_mode == "vector_entry_point":
        return from_vector_entry_point(spec, num_envs, max_episode_steps, kwargs)
    if spec.entry_point is None:
        raise ValueError(f'{spec.id} makes vector environments only: use vectorization_mode="vector_entry_point".')

    def create() -> AnyEnv:
        def make() -> AnyEnv:
            return _fitting(
                kwargs, spec.id, lambda: gymnasium.make(spec, max_episode_steps=max_episode_steps, **kwargs)
            )

        return wrap(installed(spec, make))

    try:
        return _from_function(create, num_envs, None, vectorization_mode)
    except FileNotFoundError as error:  # in making one, or in the reset that looks for a mask
        raise FileNotFoundError(f"{spec.id} needs a file that its package has not brought: {error}") from error


def _fitting(kwargs: dict[str, Any], name: str, create: Callable[[], AnyEnv]) -> AnyEnv:
    """What `create` makes, or a sentence where the keyword arguments are not those that it takes."""
    try:
        return create()
    except TypeError as error:
        if not kwargs or "argument" not in str(error):
            raise
        raise ValueError(f"env_kwargs={kwargs} are not what {name} takes: {str(error).splitlines()[0]}") from error


def _call(function: Callable[..., Any], kwargs: dict[str, Any]) -> AnyEnv:
    env = _fitting(kwargs, getattr(function, "__name__", "the function"), lambda: function(**kwargs))
    if not isinstance(env, Env):
        advice = ": pass the vector environment itself" if isinstance(env, VectorEnv) else ""
        raise TypeError(f"The function must return a gymnasium.Env, it returned a {type(env).__name__}{advice}.")
    return env


def _from_function(
    create: Callable[[], AnyEnv], num_envs: int, max_episode_steps: int | None, vectorization_mode: str
) -> Environment:
    if vectorization_mode == "sync":
        envs = [create() for _ in range(num_envs)]
        made = _from_environments(envs, max_episode_steps)
        width = _mask_width_of_another(create, envs) if can_be_masked(envs[0]) else None
    else:
        probe = create()
        specs, width = [probe.spec], mask_width(probe)
        probe.close()
        vector: AnyVectorEnv = Processes(lambda: _finish(create(), max_episode_steps), num_envs, width)
        made = _reset_by_mask(vector, specs, max_episode_steps)._replace(vectorization_mode="async")
    if width is None:
        return made
    for guard in guards_of(made.vector):
        guard.mask_width = width
    return made._replace(vector=MaskInObservation(made.vector, width))


def _mask_width_of_another(create: Callable[[], AnyEnv], envs: list[AnyEnv]) -> int | None:
    # Resetting one of those that are to be played could change what it does later.
    probe = create()
    if any(env.unwrapped is probe.unwrapped for env in envs):  # a function that hands out the one environment it has
        return None
    width = mask_width(probe)
    probe.close()
    return width


def _from_environments(envs: list[AnyEnv], max_episode_steps: int | None) -> Environment:
    if len({id(env.unwrapped) for env in envs}) < len(envs):
        raise ValueError("The function returned the same environment twice: it must make a new one at each call.")
    vector: AnyVectorEnv = SyncVectorEnv(
        [partial(Guarded, _finish(env, max_episode_steps), slot) for slot, env in enumerate(envs)],
        copy=False,
        autoreset_mode=AutoresetMode.DISABLED,
    )
    return _reset_by_mask(vector, [env.spec for env in envs], max_episode_steps)


def _reset_by_mask(vector: AnyVectorEnv, specs: list[EnvSpec | None], max_episode_steps: int | None) -> Environment:
    limits = [limit for limit in (common_limit(specs), max_episode_steps) if limit is not None]
    return Environment(
        vector,
        AutoresetMode.DISABLED,
        True,
        min(limits, default=None),
        True,
        threshold(specs),
        owned=True,
        vectorization_mode="sync",
    )


def _finish(env: AnyEnv, max_episode_steps: int | None) -> AnyEnv:
    """Add what every environment needs before it is guarded: a time limit if one is given, and arrays as observations."""
    made: AnyEnv = with_arrays(env if max_episode_steps is None else TimeLimit(env, max_episode_steps))
    return made
