"""Vector environments with the facts that collecting needs, and environments that are vectorized already."""

from typing import Any, NamedTuple

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit

from rlgrad.environments.environment_options import EnvironmentOptions
from rlgrad.environments.ids import ATARI_LIMIT, explain_missing, frame_limit

AnyVectorEnv = VectorEnv[Any, Any, Any]


class Environment(NamedTuple):
    """A vector environment with the facts that collecting needs.

    Attributes:
        vector: the vector environment.
        autoreset_mode: how it resets an environment whose episode ended.
        seeds_each_episode: True if a masked reset takes one seed per environment.
        time_limit: the most steps of an episode. `None`: unknown.
        limits_itself: True if the environment itself ends episodes at `time_limit`.
        reward_threshold: the mean return from which its specification calls the task solved, or `None`.
        owned: True if it was made here, and must be closed here.
        vectorization_mode: how it is stepped: never `"auto"`, but the mode that this became; `"given"` for a vector environment
            of the user's.
    """

    vector: AnyVectorEnv
    autoreset_mode: AutoresetMode
    seeds_each_episode: bool
    time_limit: int | None
    limits_itself: bool
    reward_threshold: float | None
    owned: bool
    vectorization_mode: str


def from_vector_entry_point(spec: EnvSpec, options: EnvironmentOptions) -> Environment:
    """Make environments by the vector entry point that an id brings.

    Args:
        spec: the id's.
        options: how they are made. A time limit replaces the specification's.

    Raises:
        ValueError: the id has none, or it does not say how it resets.
    """
    if spec.vector_entry_point is None:
        raise ValueError(f'{spec.id} has no vector entry point: use vectorization_mode="sync" or "async".')
    # Gymnasium passes a specification's limit to its vector entry point, so an entry point takes it if there is one.
    kwargs, max_episode_steps = options.env_kwargs, options.max_episode_steps
    own_limit, takes_limit = spec.max_episode_steps, spec.max_episode_steps is not None
    if takes_limit and max_episode_steps is not None:
        kwargs = {**kwargs, "max_episode_steps": max_episode_steps}
    elif ATARI_LIMIT in spec.kwargs:
        own_limit, takes_limit = frame_limit(spec, kwargs), True
        skip = {**spec.kwargs, **kwargs}["frameskip"]
        kwargs = kwargs if max_episode_steps is None else {**kwargs, ATARI_LIMIT: max_episode_steps * skip}
    vector = explain_missing(
        spec, lambda: gymnasium.make_vec(spec, options.slots, vectorization_mode="vector_entry_point", **kwargs)
    )
    limit = max_episode_steps or own_limit
    mode = _autoreset_mode(vector)
    return Environment(
        vector,
        mode,
        False,
        limit,
        takes_limit,
        spec.reward_threshold,
        owned=True,
        vectorization_mode="vector_entry_point",
    )


def from_vector(vector: AnyVectorEnv, options: EnvironmentOptions) -> Environment:
    """Describe a vector environment that the user made.

    Args:
        vector: the user's, who closes it.
        options: must agree with it. A time limit counts where the environment has none, or a longer one.

    Raises:
        ValueError: the options disagree, or the environment does not say how it resets.
    """
    num_envs, max_episode_steps = options.num_envs, options.max_episode_steps
    if num_envs is not None and num_envs != vector.num_envs:
        raise ValueError(f"num_envs={num_envs}, but the vector environment has {vector.num_envs}: leave num_envs out.")
    if options.vectorization_mode not in ("auto", "sync"):
        raise ValueError("A vector environment is vectorized already: leave vectorization_mode out.")
    mode, base = _autoreset_mode(vector), vector.unwrapped
    specs = [env.spec for env in base.envs] if isinstance(base, SyncVectorEnv) else [base.spec]
    specs = [spec if isinstance(spec, EnvSpec) else None for spec in specs]  # EnvPool has specifications of its own
    limits = [limit_of(env) for env in base.envs] if isinstance(base, SyncVectorEnv) else list(map(_limit_in, specs))
    own_limit = common_limit(limits)
    limit = min(max_episode_steps or own_limit, own_limit) if own_limit else max_episode_steps
    # Gymnasium's own two take a list of seeds with the mask; of others, only the one-seed reset is promised.
    seeds_each_episode = mode is AutoresetMode.DISABLED and isinstance(base, SyncVectorEnv | AsyncVectorEnv)
    return Environment(
        vector,
        mode,
        seeds_each_episode,
        limit,
        limit == own_limit,
        threshold(specs),
        owned=False,
        vectorization_mode="given",
    )


def limit_of(env: Any) -> int | None:
    """Return the most steps of an episode of one environment: its lowest `TimeLimit`'s, else its specification's, or `None`."""
    limits, layer = [], env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, TimeLimit):
            limits.append(int(layer.get_wrapper_attr("_max_episode_steps")))
        layer = layer.env
    return min(limits) if limits else _limit_in(env.spec)


def _limit_in(spec: EnvSpec | None) -> int | None:
    if spec is None:
        return None
    # make_vec keeps a limit that its caller chose in the keyword arguments of the specification.
    limit = spec.kwargs.get("max_episode_steps") or spec.max_episode_steps or frame_limit(spec)
    return None if limit is None else int(limit)


def common_limit(limits: list[int | None]) -> int | None:
    """Return the longest time limit of environments that all have one, else `None`."""
    known = [limit for limit in limits if limit is not None]
    return max(known) if len(known) == len(limits) else None


def threshold(specs: list[EnvSpec | None]) -> float | None:
    """Return the mean return from which the first specification calls its task solved, or `None`."""
    return specs[0].reward_threshold if specs[0] is not None else None


def _autoreset_mode(vector: AnyVectorEnv) -> AutoresetMode:
    try:
        return AutoresetMode(vector.metadata["autoreset_mode"])
    except (KeyError, ValueError):
        raise ValueError(
            f"{vector} does not say in metadata['autoreset_mode'] how it resets finished environments: "
            "set it to the gymnasium.vector.AutoresetMode that it follows."
        ) from None
