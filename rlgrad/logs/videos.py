"""A greedy episode as an animated GIF, drawn without a display."""

import copy
import inspect
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.experimental.functional import FuncEnv

from rlgrad import registry
from rlgrad.config import Config
from rlgrad.policies.policy import Policy
from rlgrad.rollouts.masks import observed
from rlgrad.rollouts.specs import find_spec, installed
from rlgrad.rollouts.wrapping import wrap_all

FRAMES_PER_SECOND = 25  # GIF players do not go beyond 50
MOST_FRAMES = 250
MOST_PIXELS = 320  # along either side
TAG = "eval/episode_greedy"


def drawable(config: Config) -> gymnasium.Env[Any, Any]:
    """An environment of its own, like those that are trained on, that draws what happens in it.

    Raises:
        ValueError: the environment cannot be drawn, or not made a second time; says why.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without looking for a screen
    try:
        env = _made(config)
    except Exception as error:
        raise ValueError(f"videos cannot draw {config.env_name}: {error}. Set videos to 0.") from error
    if env.render_mode != "rgb_array":
        env.close()
        raise ValueError(
            f"videos cannot draw {config.env_name}: it was made without the render mode rgb_array. Set videos to 0, or let "
            "env be a function with an argument render_mode."
        )
    return env


def film(env: gymnasium.Env[Any, Any], policy: Policy, seed: int, steps: int) -> list[np.ndarray[Any, Any]]:
    """The frames of a greedy episode, of its first `steps` steps if it is longer; each uint8 (height, width, 3)."""
    observation, info = env.reset(seed=seed)
    act, over = policy.player(greedy=True), False
    frames: list[np.ndarray[Any, Any]] = []
    while not over and len(frames) < steps:
        frames.append(np.asarray(env.render()))
        observation, _, terminated, truncated, info = env.step(act(observed(policy.masked, observation, info)))
        over = terminated or truncated
    return frames


def gif(frames: Sequence[np.ndarray[Any, Any]], rate: float) -> tuple[bytes, int, int]:
    """Frames as an animated GIF, no larger than `MOST_PIXELS` and not much faster than `FRAMES_PER_SECOND`.

    Args:
        frames: each uint8 (height, width, 3).
        rate: frames a second that they were drawn for; of a faster one some are left out.

    Returns:
        The file's bytes, its width and its height.
    """
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames[:: _every(rate)]]
    for image in images:
        image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    first, *others = [image.quantize(64) for image in images]
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=1000 * _every(rate) / rate, loop=0)
    return file.getvalue(), first.width, first.height


def summary(config: Config, policy: Policy) -> Any:
    """A greedy episode at the present weights, the first 250 frames of it, as TensorBoard's protocol buffer."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    env = drawable(config)
    try:
        rate = float(env.metadata.get("render_fps", FRAMES_PER_SECOND))
        frames = film(env, policy, config.seed, min(MOST_FRAMES * _every(rate), config.max_episode_steps or 1 << 31))
    finally:
        env.close()
    data, width, height = gif(frames, rate)
    kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="images"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=3)])
    strings = [str(width).encode(), str(height).encode(), data]
    return Summary.Value(
        tag=TAG, tensor=TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=strings), metadata=kind
    )


def _every(rate: float) -> int:
    return max(1, round(rate / FRAMES_PER_SECOND))


def _made(config: Config) -> gymnasium.Env[Any, Any]:
    """With the render mode rgb_array, where there is a way to ask for it."""
    env: Any = config.env
    kwargs: dict[str, Any] = dict(config.env_kwargs)
    asked: dict[str, Any] = {"render_mode": "rgb_array"}
    if isinstance(env, str) and env.rpartition(":")[0].endswith(".py"):
        file, _, name = env.rpartition(":")
        env = registry.from_file(Path(file), name)
    if isinstance(env, FuncEnv) or _is_functional_class(env) or (isinstance(env, str) and env in registry.envs()):
        raise ValueError("environments written in TensorFlow have no pictures")
    if isinstance(env, gymnasium.Env):
        return copy.deepcopy(env) if env.spec is None else gymnasium.make(env.spec, **asked)
    if isinstance(env, str):
        spec = find_spec(env)
        made = installed(spec, lambda: gymnasium.make(spec, config.max_episode_steps, **{**kwargs, **asked}))
    elif callable(env):
        made = env(**{**kwargs, **(asked if "render_mode" in inspect.signature(env).parameters else {})})
    else:
        raise ValueError("a vector environment has no picture of one episode")
    return wrap_all(config.wrappers)(made)


def _is_functional_class(env: Any) -> bool:
    return isinstance(env, type) and issubclass(env, FuncEnv)
