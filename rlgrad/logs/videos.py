"""A greedy episode as an animated GIF, drawn without a display."""

import copy
import inspect
import io
import os
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from rlgrad.callbacks import RunSettings
from rlgrad.core import registry
from rlgrad.environments.drawing import RATE, Picture, registered
from rlgrad.environments.guarding import reach
from rlgrad.environments.ids import find_functional, make_stepwise
from rlgrad.environments.wrapping import wrap_all
from rlgrad.logs import events
from rlgrad.playback.films import gif
from rlgrad.playback.viewer import Drawn, drawn, play
from rlgrad.policies.policy import Policy

MOST_SECONDS = 10.0
MOST_PIXELS = 320  # along either side
TAG = "eval/episode_greedy"


def drawable(settings: RunSettings, calls: Sequence[Any] = ()) -> Drawn:
    """Make an environment like those of training, that can be drawn.

    One with an id is drawn in a process of its own (see rlgrad/environments/drawing.py). One that exists only in this process
    is drawn here: an object, or a class that a script registered.

    Raises:
        ValueError: the environment cannot be drawn, or not be made a second time; says why.
    """
    try:
        return drawn(settings, "rgb_array", calls=calls) if _is_named(settings.env) else _Here(settings, calls)
    except Exception as error:
        raise ValueError(f"videos cannot draw {settings.env_name}: {error} Set videos to 0.") from error


def summary(settings: RunSettings, policy: Policy, calls: Sequence[Any] = ()) -> bytes:
    """Play a greedy episode at the current weights, and return its first ten seconds as an encoded Summary.Value.

    Args:
        settings: of the run.
        policy: acts.
        calls: that its environments had so far.
    """
    from PIL import Image

    file, env = io.BytesIO(), drawable(settings, calls)
    try:
        with gif(file, env.rate, MOST_PIXELS) as write:
            play(policy, env, seed=settings.seed, max_steps=round(MOST_SECONDS * env.rate), on_picture=write)
    finally:
        env.close()
    size = [str(side).encode() for side in Image.open(file).size]
    return events.value(TAG, "images", events.strings([*size, file.getvalue()]))


def _is_named(env: Any) -> bool:
    """Return `True` if another process can make the environment from its id."""
    if not isinstance(env, str):
        return False
    return env in registry.envs() or not callable(getattr(registered(env), "entry_point", None))


class _Here:
    """The counterpart of `DrawnEnv` in this process."""

    def __init__(self, settings: RunSettings, calls: Sequence[Any]) -> None:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without looking for a screen
        self.name, self._env = settings.env_name, _made(settings)
        if self._env.render_mode != "rgb_array":
            self.close()
            raise ValueError(
                "it was made without the render mode rgb_array: let env be a function with an argument render_mode."
            )
        self.rate = float(self._env.metadata.get("render_fps") or RATE)
        for call in calls:
            _, wrong = reach(self._env, *call)
            if wrong is not None:
                self.close()
                raise ValueError(wrong)

    def reset(self, *, seed: int) -> tuple[Any, dict[str, Any]]:
        return self._env.reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self._env.step(action)
        return observation, float(reward), terminated, truncated, info

    def render(self) -> Picture:
        return np.asarray(self._env.render())

    def close(self) -> None:
        self._env.close()


def _made(settings: RunSettings) -> gymnasium.Env[Any, Any]:
    """Make the environment, with the render mode rgb_array if it takes one."""
    env: Any = settings.env
    asked: dict[str, Any] = {"render_mode": "rgb_array"}
    functional = None if isinstance(env, str) else find_functional(env, dict(settings.env_kwargs))
    if functional is not None:
        if not hasattr(functional, "render"):
            raise ValueError("its class has no render(self, state), as one written in TensorFlow needs for pictures.")
        return wrap_all(settings.wrappers)(make_stepwise(functional, settings.max_episode_steps, "rgb_array"))
    if isinstance(env, gymnasium.Env):
        return copy.deepcopy(env) if env.spec is None else gymnasium.make(env.spec, **asked)
    if not isinstance(env, str) and not callable(env):
        raise ValueError("a vector environment has no picture of one episode.")
    if isinstance(env, str):
        made = gymnasium.make(env, settings.max_episode_steps, **{**settings.env_kwargs, **asked})
    else:
        made = env(**{**settings.env_kwargs, **(asked if "render_mode" in inspect.signature(env).parameters else {})})
    wrapped = wrap_all(settings.wrappers)(made)
    limit = None if isinstance(env, str) else settings.max_episode_steps
    return wrapped if limit is None else gymnasium.wrappers.TimeLimit(wrapped, limit)
