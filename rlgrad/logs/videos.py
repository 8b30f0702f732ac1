"""A greedy episode as an animated GIF, drawn without a display."""

import copy
import inspect
import io
import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium.experimental.functional import FuncEnv

from rlgrad.config import Config
from rlgrad.core import registry
from rlgrad.environments.drawing import RATE, Picture, registered
from rlgrad.environments.wrapping import wrap_all
from rlgrad.playback.films import gif
from rlgrad.playback.player import Drawn, drawn, play
from rlgrad.policies.policy import Policy

MOST_SECONDS = 10.0
MOST_PIXELS = 320  # along either side
TAG = "eval/episode_greedy"


def drawable(config: Config) -> Drawn:
    """An environment of its own, like those that are trained on, that draws what happens in it.

    One that is named draws in a process of its own (rlgrad/rollouts/drawing.py says why); what exists only in this process, an
    environment that was given as an object or registered by a script with a class of its own, draws here.

    Raises:
        ValueError: the environment cannot be drawn, or not made a second time; says why.
    """
    try:
        return drawn(config, "rgb_array") if _is_named(config.env) else _Here(config)
    except Exception as error:
        raise ValueError(f"videos cannot draw {config.env_name}: {error} Set videos to 0.") from error


def summary(config: Config, policy: Policy) -> Any:
    """A greedy episode at the present weights, the first ten seconds of it, as TensorBoard's protocol buffer."""
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    file, env = io.BytesIO(), drawable(config)
    try:
        with gif(file, env.rate, MOST_PIXELS) as write:
            play(policy, env, seed=config.seed, max_steps=round(MOST_SECONDS * env.rate), on_picture=write)
    finally:
        env.close()
    size = [str(side).encode() for side in Image.open(file).size]
    kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="images"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=3)])
    strings = [*size, file.getvalue()]
    return Summary.Value(
        tag=TAG, tensor=TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=strings), metadata=kind
    )


def _is_named(env: Any) -> bool:
    """Whether a process of its own can make it from what it is called."""
    if not isinstance(env, str):
        return False
    return env in registry.envs() or not callable(getattr(registered(env), "entry_point", None))


class _Here:
    """What `DrawnEnv` is, in this process."""

    def __init__(self, config: Config) -> None:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without looking for a screen
        self.name, self._env = config.env_name, _made(config)
        if self._env.render_mode != "rgb_array":
            self.close()
            raise ValueError(
                "it was made without the render mode rgb_array: let env be a function with an argument render_mode."
            )
        self.rate = float(self._env.metadata.get("render_fps") or RATE)

    def reset(self, *, seed: int) -> tuple[Any, dict[str, Any]]:
        return self._env.reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self._env.step(action)
        return observation, float(reward), terminated, truncated, info

    def render(self) -> Picture:
        return np.asarray(self._env.render())

    def close(self) -> None:
        self._env.close()


def _made(config: Config) -> gymnasium.Env[Any, Any]:
    """With the render mode rgb_array, where there is a way to ask for it."""
    env: Any = config.env
    asked: dict[str, Any] = {"render_mode": "rgb_array"}
    if isinstance(env, FuncEnv) or (isinstance(env, type) and issubclass(env, FuncEnv)):
        raise ValueError("environments written in TensorFlow have no pictures.")
    if isinstance(env, gymnasium.Env):
        return copy.deepcopy(env) if env.spec is None else gymnasium.make(env.spec, **asked)
    if not isinstance(env, str) and not callable(env):
        raise ValueError("a vector environment has no picture of one episode.")
    if isinstance(env, str):
        made = gymnasium.make(env, config.max_episode_steps, **{**config.env_kwargs, **asked})
    else:
        made = env(**{**config.env_kwargs, **(asked if "render_mode" in inspect.signature(env).parameters else {})})
    return wrap_all(config.wrappers)(made)
