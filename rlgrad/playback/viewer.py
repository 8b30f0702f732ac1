"""Episodes of a policy in one environment that draws itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from rlgrad.core import registry
from rlgrad.environments.drawing import DrawnEnv, Picture
from rlgrad.environments.types import EnvironmentSettings
from rlgrad.policies.policy import Policy
from rlgrad.spaces.masks import observed


class Drawn(Protocol):
    """One environment that draws itself. See `rlgrad.environments.drawing.DrawnEnv`."""

    name: str
    rate: float

    def reset(self, *, seed: int) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        ...

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Make one transition."""
        ...

    def render(self) -> Picture:
        """Return the current picture, uint8 (height, width, 3)."""
        ...

    def close(self) -> None:
        """Stop drawing."""
        ...


class PlayedEpisode(NamedTuple):
    """An episode that was played to be seen.

    Attributes:
        steps: its length.
        total: its return, undiscounted.
        cut: True if it was left before its end, at `max_steps`.
    """

    steps: int
    total: float
    cut: bool


class Transition(NamedTuple):
    """A step of a played episode, with observations as arrays of the policy's own kind.

    Attributes:
        observation: before the action.
        action: as the environment got it.
        reward: in the environment's units.
        terminated: True if the task ended.
        after: the next observation.
    """

    observation: Any
    action: Any
    reward: float
    terminated: bool
    after: Any


def drawn(
    settings: EnvironmentSettings,
    render_mode: Literal["human", "rgb_array"],
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[str] | None = None,
    max_episode_steps: int | None = None,
    calls: Sequence[tuple[str, list[Any], dict[str, Any], bool]] = (),
) -> DrawnEnv:
    """Make one environment like a run's, that draws itself.

    Args:
        settings: of the run.
        render_mode: `"human"` draws into a window, `"rgb_array"` returns arrays.
        env_kwargs: added to the run's.
        wrappers: in place of the run's. `None`: the run's.
        max_episode_steps: likewise.
        calls: made in it, one after the other: `Run.env_calls`, and more of the kind.

    Raises:
        ValueError: it cannot draw itself, lacks what is called, or cannot be made from the settings; says what is missing.
    """
    env = settings.env if isinstance(settings.env, str) else registry.place_of(settings.env)
    if env is None:
        raise ValueError(
            "This run's environment was given as an object: there is no id to make another from that draws. Name one: --env."
        )
    made = DrawnEnv(
        env,
        render_mode,
        env_kwargs={**settings.env_kwargs, **(env_kwargs or {})},
        wrappers=settings.wrappers if wrappers is None else wrappers,
        max_episode_steps=max_episode_steps or settings.max_episode_steps,
    )
    try:
        for call in calls:
            made.call(*call)
    except BaseException:
        made.close()
        raise
    return made


def play(
    policy: Policy,
    env: Drawn,
    *,
    episodes: int = 1,
    greedy: bool = True,
    seed: int = 0,
    max_steps: int | None = None,
    on_picture: Callable[[Picture], None] | None = None,
    on_step: Callable[[Transition], None] | None = None,
) -> list[PlayedEpisode]:
    """Play whole episodes.

    Args:
        policy: acts.
        env: what `drawn` returns.
        episodes: how many; the k-th is reset with `seed + k`.
        greedy: take the most likely action, instead of a sample.
        seed: of the first episode.
        max_steps: leave an episode after this many steps. `None`: play to its end.
        on_picture: called with each picture, uint8 (height, width, 3), the last one of an episode included. `None`: no
            picture is rendered; in the mode `"human"` the environment draws into its window.
        on_step: called with each step, before the picture of what came of it.

    Returns:
        The episodes.

    Raises:
        ValueError: the observations are not those that the policy was trained on, or drawing fails; says what is missing.
    """
    _check_observations(policy, env)
    return [_episode(policy, env, greedy, seed + k, max_steps, on_picture, on_step) for k in range(episodes)]


def _check_observations(policy: Policy, env: Drawn) -> None:
    # A vector environment that was trained on may wrap its observations where a single one does not.
    observation, info = env.reset(seed=0)
    ordered = policy.as_arrays(observed(policy.masked, observation, info))
    given = [np.shape(leaf) for leaf in tf.nest.flatten(ordered)]  # a Dict's by their keys, as those that are expected
    expected = [tuple(spec.shape[1:]) for spec in tf.nest.flatten(policy.observation_spec)]
    if given != expected:
        raise ValueError(
            f"The policy was trained on observations of shape {_listed(expected)}, and {env.name} made by itself gives "
            f"{_listed(given)}: name the wrappers and arguments with which it gives the same (--wrappers, --env-kwargs)."
        )


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))


def _episode(
    policy: Policy,
    env: Drawn,
    greedy: bool,
    seed: int,
    max_steps: int | None,
    on_picture: Callable[[Picture], None] | None,
    on_step: Callable[[Transition], None] | None,
) -> PlayedEpisode:
    observation, info = env.reset(seed=seed)
    act, total, steps, over = policy.player(greedy=greedy), 0.0, 0, False
    while not over and steps != max_steps:
        if on_picture is not None:
            on_picture(env.render())
        seen = observed(policy.masked, observation, info)
        action = act(seen)
        observation, reward, terminated, truncated, info = env.step(action)
        if on_step is not None:
            arrays = [policy.as_arrays(each) for each in (seen, observed(policy.masked, observation, info))]
            on_step(Transition(arrays[0], action, float(reward), bool(terminated), arrays[1]))
        total, steps, over = total + float(reward), steps + 1, terminated or truncated
    if on_picture is not None:
        on_picture(env.render())
    return PlayedEpisode(steps, total, not over)
