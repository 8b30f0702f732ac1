"""Actions of several parts: those of Tuple and Dict spaces."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlgrad import random
from rlgrad.core.importing import lazy
from rlgrad.distributions.protocol import rank_of, refuse_reparameterization, require_noise

if TYPE_CHECKING:
    import tensorflow as tf
else:  # acting needs none
    tf = lazy("tensorflow")


@dataclass(frozen=True)
class Part:
    """One leaf of a composite action.

    Args:
        path: its keys and positions in the action that the environment gets.
        distribution: over it.
        raw_shape: of the network's output for it: logits, or a mean.
        shape: of one action of it.
        dtype: of its stored actions.
    """

    path: tuple[Any, ...]
    distribution: Any
    raw_shape: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: Any


@dataclass(frozen=True)
class Joint:
    """Independent parts. Log-probability, entropy and divergence are sums over them; the Fisher matrix has a block for each.

    Parameters: `{"heads": (…, U), "log_std": (…, C)}`, the parts' logits and means side by side, and the log standard
    deviations of the continuous ones; no `"log_std"` where there are none. Actions: float (…, D), the parts side by side,
    whole numbers for discrete ones.

    Args:
        parts: in the order of the environment's space.
        structure: `dict` or `tuple`, for each composite level by its path; the root's path is ().
    """

    parts: tuple[Part, ...]
    structure: tuple[tuple[tuple[Any, ...], type], ...]

    @property
    def raw_size(self) -> int:
        """U."""
        return sum(math.prod(part.raw_shape) for part in self.parts)

    @property
    def action_size(self) -> int:
        """D."""
        return sum(math.prod(part.shape) for part in self.parts)

    def assemble(self, raw: Any, log_std: Any) -> Any:
        """Return the network's output, and the log standard deviations."""
        return {"heads": raw} if log_std is None else {"heads": raw, "log_std": log_std}

    def log_std_shape(self, raw_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return (C,), the number of continuous actions."""
        count = sum(math.prod(part.raw_shape) for part in self.parts if _continuous(part))
        return (count,) if count else None

    def log_prob(self, parameters: Any, actions: Any) -> tf.Tensor:
        """Return the sum over the parts, shape (…)."""
        each = zip(self.parts, self._parameters(parameters), self._actions(actions), strict=True)
        return tf.add_n([part.distribution.log_prob(p, a) for part, p, a in each])

    def batch_rank(self, parameters: Any) -> int:
        """Return the number of axes before that of the parts."""
        return rank_of(parameters["heads"]) - 1

    def entropy(self, parameters: Any) -> tf.Tensor:
        """Return the sum over the parts in nats, shape (…)."""
        each = zip(self.parts, self._parameters(parameters), strict=True)
        return tf.add_n([part.distribution.entropy(p) for part, p in each])

    def kl_divergence(self, parameters: Any, other: Any) -> tf.Tensor:
        """Return the sum over the parts in nats, shape (…)."""
        each = zip(self.parts, self._parameters(parameters), self._parameters(other), strict=True)
        return tf.add_n([part.distribution.kl_divergence(p, q) for part, p, q in each])

    def fisher_product(self, parameters: Any, tangents: Any) -> Any:
        """Return the products of the parts' blocks, side by side."""
        heads, scales = [], []
        each = zip(self.parts, self._parameters(parameters), self._parameters(tangents), strict=True)
        for part, p, v in each:
            moved = part.distribution.fisher_product(p, v)
            mean, log_std = (moved["mean"], moved["log_std"]) if isinstance(moved, dict) else (moved, None)
            heads.append(_flat(mean, len(part.raw_shape)))
            if log_std is not None:
                scales.append(_flat(log_std, len(part.raw_shape)))
        result = {"heads": tf.concat(heads, axis=-1)}
        return result | {"log_std": tf.concat(scales, axis=-1)} if scales else result

    def reparameterized(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Return the parts' actions, side by side. Raise a TypeError if one of them is one of several."""
        return self._concatenated(
            part.distribution.reparameterized(p, own) for part, p, own in self._moved(parameters, noise)
        )

    def reparameterized_log_prob(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Return the sum over the parts, shape (…). Raise a TypeError as `reparameterized`."""
        each = self._moved(parameters, noise)
        return tf.add_n([part.distribution.reparameterized_log_prob(p, own) for part, p, own in each])

    def check_actions(self, actions: Any) -> tf.Tensor:
        """Return float (…, D), the parts side by side. Each distribution checks its own."""
        actions = tf.convert_to_tensor(actions)
        if not actions.dtype.is_floating or actions.shape[-1] != self.action_size:
            raise TypeError(
                f"Composite actions are float (…, {self.action_size}), the parts side by side as the collector stores them; "
                f"got {actions.dtype.name} of shape {tuple(actions.shape)}."
            )
        for part, own in zip(self.parts, self._actions(actions), strict=True):
            part.distribution.check_actions(own)
        return actions

    def noise(self, parameters: Any, generator: np.random.Generator, count: int) -> list[tuple[Any, ...]]:
        """Return, for each sample, the random numbers of each part."""
        each = zip(self.parts, self._parameters(parameters), strict=True)
        return list(zip(*(part.distribution.noise(p, generator, count) for part, p in each), strict=True))

    def pick(self, parameters: Any, noise: Any) -> np.ndarray:
        """Return the parts' actions, side by side."""
        each = zip(self.parts, self._parameters(parameters), noise, strict=True)
        return self._side_by_side(part.distribution.pick(p, own) for part, p, own in each)

    def numpy_log_prob(self, parameters: Any, actions: np.ndarray) -> np.ndarray:
        """Return the sum over the parts, shape (…)."""
        each = zip(self.parts, self._parameters(parameters), self._actions(actions), strict=True)
        log_probs: np.ndarray = np.sum([part.distribution.numpy_log_prob(p, a) for part, p, a in each], axis=0)
        return log_probs

    def sample(self, parameters: Any, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Sample each part in turn."""
        actions = self.pick(parameters, self.noise(parameters, generator, 1)[0])
        return actions, self.numpy_log_prob(parameters, actions)

    def mode(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return each part's most likely actions, side by side."""
        each = zip(self.parts, self._parameters(parameters), strict=True)
        actions = self._side_by_side(part.distribution.mode(p)[0] for part, p in each)
        return actions, self.numpy_log_prob(parameters, actions)

    def to_environment(self, actions: np.ndarray) -> Any:
        """Return the space's own tree of arrays (…, *part shape)."""
        each = zip(self.parts, self._actions(actions), strict=True)
        leaves = {part.path: part.distribution.to_environment(own) for part, own in each}
        return self._tree((), leaves)

    def draw(self, parameters: Any, seeds: Any) -> tf.Tensor:
        """Sample each part with a seed of its own."""
        each = zip(self.parts, self._parameters(parameters), strict=True)
        own = random.split(seeds, len(self.parts))
        return self._concatenated(part.distribution.draw(p, own[..., i, :]) for i, (part, p) in enumerate(each))

    def most_likely(self, parameters: Any) -> tf.Tensor:
        """Return each part's most likely actions, side by side."""
        each = zip(self.parts, self._parameters(parameters), strict=True)
        return self._concatenated(part.distribution.most_likely(p) for part, p in each)

    def for_environment(self, actions: tf.Tensor) -> Any:
        """Return the space's own tree of tensors (…, *part shape)."""
        each = zip(self.parts, self._actions(actions), strict=True)
        return self._tree((), {part.path: part.distribution.for_environment(own) for part, own in each})

    def keras_actions(self, parameters: Any, name: str) -> dict[str, Any]:
        """Keras: each part's, with its path behind the name."""
        from keras import ops

        actions: dict[str, Any] = {}
        at = at_scale = 0
        for part in self.parts:
            size = math.prod(part.raw_shape)
            own: Any = ops.reshape(parameters["heads"][:, at : at + size], (-1, *part.raw_shape))
            at += size
            if _continuous(part):
                log_std = parameters["log_std"][:, at_scale : at_scale + size]
                own, at_scale = {"mean": own, "log_std": ops.reshape(log_std, (-1, *part.raw_shape))}, at_scale + size
            path = re.sub(r"\W", "_", "_".join(map(str, part.path)))
            actions |= part.distribution.keras_actions(own, f"{name}_{path}")
        return actions

    def _moved(self, parameters: Any, noise: Any) -> list[tuple[Part, Any, Any]]:
        """Return each part with its parameters and its noise."""
        for part in self.parts:
            if not _continuous(part):
                raise refuse_reparameterization(part.distribution)
        noise = require_noise(noise, parameters["heads"])  # all heads are means, so they have an action's shape
        return list(zip(self.parts, self._parameters(parameters), self._actions(noise), strict=True))

    def _tree(self, path: tuple[Any, ...], leaves: dict[tuple[Any, ...], Any]) -> Any:
        if path in leaves:
            return leaves[path]
        kind = dict(self.structure)[path]
        below = dict.fromkeys(p[: len(path) + 1] for p in leaves if p[: len(path)] == path)
        parts = {p[-1]: self._tree(p, leaves) for p in below}
        return parts if kind is dict else tuple(parts.values())

    def _parameters(self, parameters: Any) -> Iterator[Any]:
        """Yield each part's parameters."""
        at, at_scale = 0, 0
        for part in self.parts:
            size = math.prod(part.raw_shape)
            raw = _shaped(parameters["heads"][..., at : at + size], part.raw_shape)
            at += size
            if not _continuous(part):
                yield raw
                continue
            log_std = _shaped(parameters["log_std"][..., at_scale : at_scale + size], part.raw_shape)
            at_scale += size
            yield {"mean": raw, "log_std": log_std}

    def _actions(self, actions: Any) -> Iterator[Any]:
        """Yield each part's actions, in its dtype."""
        at = 0
        for part in self.parts:
            size = math.prod(part.shape)
            own = _shaped(actions[..., at : at + size], part.shape)
            at += size
            yield own.astype(part.dtype) if isinstance(own, np.ndarray) else tf.cast(own, part.dtype)

    def _concatenated(self, actions: Iterator[tf.Tensor]) -> tf.Tensor:
        flat = [_flat(own, len(part.shape)) for part, own in zip(self.parts, actions, strict=True)]
        return tf.concat([tf.cast(own, tf.float32) for own in flat], axis=-1)

    def _side_by_side(self, drawn: Iterator[np.ndarray]) -> np.ndarray:
        pairs = zip(self.parts, drawn, strict=True)
        flat = [own.reshape(*own.shape[: own.ndim - len(part.shape)], -1) for part, own in pairs]
        return np.concatenate([own.astype(np.float32) for own in flat], axis=-1)


def _continuous(part: Part) -> bool:
    return part.distribution.log_std_shape(part.raw_shape) is not None


def _shaped(x: Any, shape: tuple[int, ...]) -> Any:
    """Reshape the last axis to `shape`."""
    if len(shape) == 1:
        return x
    if isinstance(x, np.ndarray):
        return x.reshape((*x.shape[:-1], *shape))
    return tf.reshape(x, tf.concat([tf.shape(x)[:-1], tf.constant(shape, tf.int32)], axis=0))


def _flat(x: Any, rank: int) -> Any:
    """Merge the last `rank` axes into one."""
    kept = x.shape.rank - rank
    return tf.reshape(x, tf.concat([tf.shape(x)[:kept], [math.prod(x.shape[kept:])]], axis=0))
