"""From what a user passes as an environment (an id, an instance, a function) to one vector environment."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
from gymnasium import Env
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import TimeLimit

from rlgrad.core import registry
from rlgrad.environments.array_observations import ArrayObservations, require_arrays
from rlgrad.environments.environment_options import EnvironmentOptions
from rlgrad.environments.guarding import Guarded, guards_of
from rlgrad.environments.ids import find_spec, maker_of, require_spaces, with_kwargs
from rlgrad.environments.in_turn import InTurn
from rlgrad.environments.masking import MaskInObservation, can_be_masked, mask_width
from rlgrad.environments.processes import Processes
from rlgrad.environments.vector import (
    AnyVectorEnv,
    Environment,
    common_limit,
    from_vector,
    from_vector_entry_point,
    limit_of,
    threshold,
)
from rlgrad.environments.wrapping import wrap_all
from rlgrad.spaces.conversion import converts

AnyEnv = Env[Any, Any]


def make(env: Any, options: EnvironmentOptions) -> Environment:
    """Make the vector environment that a collector steps.

    Args:
        env: an id, a `gymnasium.Env`, a function that makes one, or a `gymnasium.vector.VectorEnv`.
        options: how it is made.

    Raises:
        ValueError, TypeError, ImportError: as `GymCollector` documents them.
    """
    options.require_possible(env)
    made = _make(env, options)
    require_arrays(made.vector)
    return made


def _make(env: Any, options: EnvironmentOptions) -> Environment:
    if isinstance(env, VectorEnv):
        return from_vector(env, options)
    if isinstance(env, Env):
        return _from_instance(env, options)
    mode = options.vectorization_mode
    options = replace(options, vectorization_mode=_resolved_mode(env, options) if mode == "auto" else mode)
    options.require_few_enough()
    if isinstance(env, str):
        return _from_id(find_spec(env), options)
    if not callable(env):
        raise TypeError(
            "env is an id, a gymnasium.Env, a function that makes one, or a gymnasium.vector.VectorEnv; "
            f"got a {type(env).__name__}."
        )
    if mode == "vector_entry_point":
        raise ValueError('vectorization_mode="vector_entry_point" needs an id; for a function use "sync" or "async".')
    return _from_function(lambda: _call(env, options), options.max_episode_steps, options)


def _resolved_mode(env: Any, options: EnvironmentOptions) -> str:
    """Choose for `vectorization_mode="auto"`, by a rule that looks at the environment alone, never at timings.

    `"vector_entry_point"` for several slots of an id whose vector entry point means the same: it takes the same arguments, has
    the spaces of the single environment, and respects a time limit that is given. Else `"sync"`.
    """
    if not isinstance(env, str) or options.slots == 1 or options.wrappers:
        return "sync"
    spec = find_spec(env)
    limited = options.max_episode_steps is None or spec.max_episode_steps is not None
    same = spec.vector_entry_point is not None and limited and _same_as_single(spec, options.env_kwargs)
    return "vector_entry_point" if same else "sync"


def _same_as_single(spec: EnvSpec, kwargs: Mapping[str, Any]) -> bool:
    if spec.entry_point is None:
        return True
    with contextlib.ExitStack() as made:
        try:
            single = made.enter_context(contextlib.closing(gymnasium.make(spec, **kwargs)))
            vector = gymnasium.make_vec(spec, 1, vectorization_mode="vector_entry_point", **kwargs)
        except Exception:  # if "sync", which is then chosen, has the same trouble, it explains it
            return False
        made.callback(vector.close)
        return (
            single.observation_space == vector.single_observation_space
            and single.action_space == vector.single_action_space
            and not converts(single.observation_space)
            and mask_width(single) is None  # there is no convention for masks of a vector entry point
            and "autoreset_mode" in vector.metadata
        )


def _from_id(spec: EnvSpec, options: EnvironmentOptions) -> Environment:
    if options.vectorization_mode == "vector_entry_point":
        return from_vector_entry_point(spec, options)
    if spec.entry_point is None:
        raise ValueError(f'{spec.id} makes vector environments only: use vectorization_mode="vector_entry_point".')
    try:
        return _from_function(maker_of(spec, options.max_episode_steps, options.env_kwargs), None, options)
    except FileNotFoundError as error:  # in making one, or in the reset that looks for a mask
        raise FileNotFoundError(f"{spec.id} needs a file that its package has not brought: {error}") from error


def _call(function: Callable[..., Any], options: EnvironmentOptions) -> AnyEnv:
    kwargs, name = options.env_kwargs, registry.spoken_name(function)
    env = with_kwargs(kwargs, name, lambda: function(**kwargs))
    if not isinstance(env, Env):
        advice = ": pass the vector environment itself" if isinstance(env, VectorEnv) else ""
        raise TypeError(f"The function must return a gymnasium.Env, it returned a {type(env).__name__}{advice}.")
    require_spaces(env)
    return env


def _from_instance(env: AnyEnv, options: EnvironmentOptions) -> Environment:
    if options.num_envs is not None and options.num_envs > 1:
        raise ValueError(
            f"One environment cannot fill num_envs={options.num_envs} slots: pass a function that makes one."
        )
    require_spaces(env)
    if options.vectorization_mode not in ("auto", "sync"):
        raise ValueError(f"An instance runs in sync only: pass a function for {options.vectorization_mode!r}.")
    return _from_environments([env], options.max_episode_steps)._replace(owned=False)


def _from_function(
    function: Callable[[], AnyEnv], max_episode_steps: int | None, options: EnvironmentOptions
) -> Environment:
    """Make environments by a function.

    Args:
        function: makes one, without wrappers.
        max_episode_steps: a time limit that the function does not set itself.
        options: how they are wrapped and stepped.
    """
    wrap = wrap_all(options.wrappers)

    def wrapped() -> AnyEnv:
        return wrap(function())

    create = wrapped if options.wrappers else function
    if options.vectorization_mode == "sync":
        envs = [create() for _ in range(options.slots)]
        made = _from_environments(envs, max_episode_steps)
        width = _mask_width_of_another(create, envs) if can_be_masked(envs[0]) else None
    else:
        probe = create()
        specs, limits, width = [probe.spec], [limit_of(probe)], mask_width(probe)
        convert = converts(probe.observation_space)
        probe.close()
        vector: AnyVectorEnv = Processes(
            lambda: _finish(create(), max_episode_steps, convert), options.slots, width, options.step_timeout
        )
        made = _reset_by_mask(vector, specs, [*limits, max_episode_steps])._replace(vectorization_mode="async")
    if width is None:
        return made
    for guard in guards_of(made.vector):
        guard.mask_width = width
    if isinstance(made.vector, InTurn):
        made.vector.merges_infos = True  # the mask is there
    return made._replace(vector=MaskInObservation(made.vector, width))


def _mask_width_of_another(create: Callable[[], AnyEnv], envs: list[AnyEnv]) -> int | None:
    # To reset one of the environments that are to be played could change its later episodes.
    probe = create()
    if any(env.unwrapped is probe.unwrapped for env in envs):  # a function that returns its only environment each time
        return None
    width = mask_width(probe)
    probe.close()
    return width


def _from_environments(envs: list[AnyEnv], max_episode_steps: int | None) -> Environment:
    if len({id(env.unwrapped) for env in envs}) < len(envs):
        raise ValueError("The function returned the same environment twice: it must make a new one at each call.")
    # The others have the spaces of the first, or the vector environment refuses them.
    convert = converts(envs[0].observation_space)
    vector: AnyVectorEnv = InTurn(
        [partial(Guarded, _finish(env, max_episode_steps, convert), slot) for slot, env in enumerate(envs)],
        copy=False,
        autoreset_mode=AutoresetMode.DISABLED,
    )
    limits = [common_limit([limit_of(env) for env in envs]), max_episode_steps]
    return _reset_by_mask(vector, [env.spec for env in envs], limits)


def _reset_by_mask(vector: AnyVectorEnv, specs: list[EnvSpec | None], limits: list[int | None]) -> Environment:
    return Environment(
        vector,
        AutoresetMode.DISABLED,
        True,
        min((limit for limit in limits if limit is not None), default=None),
        True,
        threshold(specs),
        owned=True,
        vectorization_mode="sync",
    )


def _finish(env: AnyEnv, max_episode_steps: int | None, convert: bool) -> AnyEnv:
    """Add what an environment needs before it is guarded: a time limit if one is given, and arrays as observations."""
    limited = env if max_episode_steps is None else TimeLimit(env, max_episode_steps)
    return ArrayObservations(limited) if convert else limited
