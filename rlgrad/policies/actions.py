"""From an action space to the distribution over it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from rlgrad.distributions import Bernoulli, Categorical, DiagonalGaussian, Distribution, Joint, MultiCategorical, Part

_ADVICE = {
    spaces.Text: "map each text to a number, with gymnasium.wrappers.TransformAction",
    spaces.Sequence: "give it a fixed length, with gymnasium.wrappers.TransformAction",
    spaces.Graph: "give it a fixed shape, with gymnasium.wrappers.TransformAction",
    spaces.OneOf: "make it a Tuple of a choice and its parts, with gymnasium.wrappers.TransformAction",
}


@dataclass(frozen=True)
class ActionModel:
    """What a policy needs to know of an action space.

    Attributes:
        distribution: over it.
        raw_shape: of what a network gives for one observation: logits, or means.
        spec: of a batch of stored actions, (None, …).
    """

    distribution: Distribution
    raw_shape: tuple[int, ...]
    spec: tf.TensorSpec


def action_model(space: spaces.Space[Any], squash: bool = False) -> ActionModel:
    """The distribution over an action space.

    Args:
        space: Discrete, Box, MultiDiscrete, MultiBinary, or a Tuple or Dict of these.
        squash: bring continuous actions into their bounds by a tanh, instead of clipping them.

    Raises:
        ValueError: another space, with what to wrap it in; one action alone; or `squash` without a Box that has finite bounds.
    """
    if _single(space):
        raise ValueError(f"{space} has a single action: there is nothing to choose, and nothing to learn.")
    parts = list(_leaves(space, (), squash))
    if squash and not any(isinstance(part.distribution, DiagonalGaussian) for part in parts):
        raise ValueError(f"squash_actions speaks of continuous actions, and there are none in {space}: leave it out.")
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        (only,) = parts
        return ActionModel(only.distribution, only.raw_shape, tf.TensorSpec((None, *only.shape), only.dtype))
    joint = Joint(tuple(parts), tuple(_levels(space, ())))
    return ActionModel(joint, (joint.raw_size,), tf.TensorSpec((None, joint.action_size), tf.float32))


def _single(space: spaces.Space[Any]) -> bool:
    """Whether there is one action alone."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return all(_single(inner) for _, inner in _items(space))
    if isinstance(space, spaces.Discrete):
        return int(space.n) == 1
    if isinstance(space, spaces.MultiDiscrete):
        return bool(np.all(space.nvec == 1))
    return isinstance(space, spaces.Box) and 0 in space.shape


def _leaves(space: spaces.Space[Any], path: tuple[Any, ...], squash: bool) -> Iterator[Part]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for key, inner in _items(space):
            yield from _leaves(inner, (*path, key), squash)
        return
    yield Part(path, *_leaf(space, squash))


def _leaf(space: spaces.Space[Any], squash: bool) -> tuple[Distribution, tuple[int, ...], tuple[int, ...], Any]:
    """Distribution, shape of a network's output for it, shape and dtype of a stored action."""
    if isinstance(space, spaces.Discrete):
        count = int(space.n)
        return Categorical(count, start=int(space.start)), (count,), (), np.int64
    if isinstance(space, spaces.MultiDiscrete):
        counts = tuple(int(n) for n in space.nvec.reshape(-1))
        start = tuple(int(s) for s in space.start.reshape(-1))
        shape = tuple(space.shape)
        return MultiCategorical(counts, shape, start if any(start) else ()), (sum(counts),), shape, np.int64
    if isinstance(space, spaces.MultiBinary):
        shape = tuple(space.shape)
        return Bernoulli(rank=len(shape)), shape, shape, np.int64
    if isinstance(space, spaces.Box):
        bounded = bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
        if squash and not bounded:
            raise ValueError(
                f"squash_actions needs finite bounds, and these are {space}: leave it out, and actions are clipped."
            )
        shape = tuple(space.shape)
        gaussian = DiagonalGaussian(low=space.low, high=space.high, rank=len(shape), squash=squash, dtype=space.dtype)
        return gaussian, shape, shape, np.float32
    advice = next((text for kind, text in _ADVICE.items() if isinstance(space, kind)), "wrap it into one of these")
    raise ValueError(
        f"Actions are Discrete, Box, MultiDiscrete, MultiBinary, or a Tuple or Dict of these; got {space}: {advice}."
    )


def _levels(space: spaces.Space[Any], path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], type]]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        yield path, dict if isinstance(space, spaces.Dict) else tuple
        for key, inner in _items(space):
            yield from _levels(inner, (*path, key))


def _items(space: Any) -> list[tuple[Any, spaces.Space[Any]]]:
    return list(space.items()) if isinstance(space, spaces.Dict) else list(enumerate(space))
