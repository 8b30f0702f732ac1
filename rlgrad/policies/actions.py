"""From an action space to the distribution over it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from rlgrad.distributions import (
    Bernoulli,
    Categorical,
    Deterministic,
    DiagonalGaussian,
    Distribution,
    Greedy,
    Joint,
    MultiCategorical,
    Part,
    StateDependentNoise,
)
from rlgrad.policies.critic_options import PLAIN_CRITICS, CriticNetwork
from rlgrad.spaces.branches import branch, branches, leaves

_ADVICE = {
    spaces.Text: "map each text to a number, with gymnasium.wrappers.TransformAction",
    spaces.Sequence: "give it a fixed length, with gymnasium.wrappers.TransformAction",
    spaces.Graph: "give it a fixed shape, with gymnasium.wrappers.TransformAction",
    spaces.OneOf: "make it a Tuple of a choice and its parts, with gymnasium.wrappers.TransformAction",
}


@dataclass(frozen=True)
class ActionModel:
    """The properties of an action space that a policy depends on.

    Attributes:
        distribution: over it.
        raw_shape: of a network's output for one observation: logits, or means.
        spec: of a batch of stored actions, (None, …).
    """

    distribution: Distribution
    raw_shape: tuple[int, ...]
    spec: tf.TensorSpec


@dataclass(frozen=True)
class ActionValues:
    """The numbers that a network has for each Discrete action, where an agent learns how good each is.

    Attributes:
        width: numbers of each action: quantiles of its return, or logits of atoms; 0: one, the expected return.
        support: lowest and highest of the atoms; `None`: there are none.
        dueling: the network says a value of the state and an advantage of each action, which add up.
    """

    width: int = 0
    support: tuple[float, float] | None = None
    dueling: bool = False


@dataclass(frozen=True)
class ActorCritic:
    """The networks of an agent that learns how a critic's value grows with the numbers of a continuous action.

    Attributes:
        num_critics: critics of an observation and an action; 0: none.
        actor: how the policy says actions. `"gaussian"`: as other agents' policies do. `"reparameterized"`: a Gaussian whose
            mean and log σ the network says, squashed into the space, densities per half-width. `"deterministic"`: the action.
            `"categorical"`: logits of Discrete actions, of each of which the critics say a value.
        quantiles: of the return, that each critic says; 0: its expectation.
        critic: settings of the default critics.
        training: the critics are learned in training mode.
    """

    num_critics: int = 1
    actor: Literal["gaussian", "reparameterized", "deterministic", "categorical"] = "gaussian"
    quantiles: int = 0
    critic: CriticNetwork = PLAIN_CRITICS
    training: bool = False


def actor_model(space: spaces.Space[Any], actor: ActorCritic, squash: bool = False) -> ActionModel:
    """Return the distribution over actions of an agent whose policy follows critics.

    Args:
        space: of the actions.
        actor: how the policy says them.
        squash: of a Gaussian policy, as for `action_model`.

    Raises:
        ValueError: another space; or one without bounds, for a policy that is squashed into them.
    """
    if actor.actor == "categorical":
        if not isinstance(space, spaces.Discrete):
            raise ValueError(
                f"Critics of each action are of a Discrete space, and this is {space}: take an agent such as sac."
            )
        return action_model(space, squash)
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"Critics of actions are of a Box of numbers, and this is {space}: wrap it with "
            "gymnasium.wrappers.TransformAction, or take an agent that credits log_prob, such as ppo."
        )
    if actor.actor == "gaussian":
        return action_model(space, squash)
    if not bool(np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(
            f"This agent's policy is squashed into the bounds of the actions, which are to be finite, and these are {space}: "
            "give them bounds with gymnasium.wrappers.TransformAction."
        )
    shape = tuple(space.shape)
    bounds: dict[str, Any] = {"low": space.low, "high": space.high, "rank": len(shape), "dtype": space.dtype}
    spec = tf.TensorSpec((None, *shape), tf.float32)
    if actor.actor == "deterministic":
        return ActionModel(Deterministic(**bounds), shape, spec)
    gaussian = DiagonalGaussian(**bounds, squash=True, scale="network", unit="half-width")
    return ActionModel(gaussian, (2 * math.prod(shape),), spec)


def action_value_model(space: spaces.Space[Any], values: ActionValues) -> ActionModel:
    """Return the distribution that takes the action of the largest value, with its shapes.

    Raises:
        ValueError: the space is not Discrete, or has a single action.
    """
    if not isinstance(space, spaces.Discrete):
        raise ValueError(
            f"An agent that credits q learns a value of each action of a Discrete space, and this is {space}: wrap it with "
            "gymnasium.wrappers.TransformAction, or take an agent that credits log_prob, such as ppo."
        )
    count = int(space.n)
    if count == 1:
        raise ValueError(f"{space} has a single action: there is nothing to choose, and nothing to learn.")
    shape = (count, values.width) if values.width else (count,)
    greedy = Greedy(count, int(space.start), values.width, values.support)
    return ActionModel(greedy, shape, tf.TensorSpec((None,), tf.int64))


def with_state_dependent_std(model: ActionModel, space: spaces.Space[Any], initial_log_std: float) -> ActionModel:
    """Return the model of a Box whose log σ the network says beside the mean.

    Args:
        model: of the space.
        space: of the actions.
        initial_log_std: log σ where the network says 0.

    Raises:
        ValueError: another space than a Box.
    """
    if not isinstance(model.distribution, DiagonalGaussian):
        raise ValueError(
            f"state_dependent_std is of continuous actions that are one Box, and these are {space}: leave it out."
        )
    own = replace(model.distribution, scale="network", log_std_offset=initial_log_std)
    return ActionModel(own, (2 * math.prod(model.raw_shape),), model.spec)


def with_state_dependent_noise(model: ActionModel, space: spaces.Space[Any], hold: int) -> ActionModel:
    """Return the model of a Box whose noise is a function of the features that the network says after the mean.

    Args:
        model: of the space.
        space: of the actions.
        hold: steps for which this function stays.

    Raises:
        ValueError: another space than a Box.
    """
    own = model.distribution
    if not isinstance(own, DiagonalGaussian):
        raise ValueError(
            f"state_dependent_noise is of continuous actions that are one Box, and these are {space}: leave it out."
        )
    settings = {field.name: getattr(own, field.name) for field in fields(own)} | {"scale": "variable", "hold": hold}
    return ActionModel(StateDependentNoise(**settings), (math.prod(model.spec.shape[1:]),), model.spec)


def action_model(space: spaces.Space[Any], squash: bool = False) -> ActionModel:
    """Return the distribution over an action space, with its shapes.

    Args:
        space: Discrete, Box, MultiDiscrete, MultiBinary, or a Tuple or Dict of these.
        squash: bring continuous actions into their bounds by a tanh, instead of clipping them.

    Raises:
        ValueError: another space, with what to wrap it in; a space of a single action; or `squash` without a Box that has
            finite bounds.
    """
    kinds = [(path, leaf, _KINDS.get(_kind(leaf))) for path, leaf in leaves(space)]
    if all(kind is not None and kind.is_single(leaf) for _, leaf, kind in kinds):
        raise ValueError(f"{space} has a single action: there is nothing to choose, and nothing to learn.")
    parts = []
    for path, leaf, kind in kinds:
        if kind is None:
            advice = next(
                (text for other, text in _ADVICE.items() if isinstance(leaf, other)), "wrap it into one of these"
            )
            raise ValueError(
                "Actions are Discrete, Box, MultiDiscrete, MultiBinary, or a Tuple or Dict of these; "
                f"got {leaf}: {advice}."
            )
        parts.append(kind.part(path, leaf, squash))
    if squash and not any(isinstance(part.distribution, DiagonalGaussian) for part in parts):
        raise ValueError(f"squash_actions is for continuous actions, and there are none in {space}: leave it out.")
    if branch(space) is None:
        (only,) = parts
        return ActionModel(only.distribution, only.raw_shape, tf.TensorSpec((None, *only.shape), only.dtype))
    joint = Joint(tuple(parts), tuple((path, level.kind) for path, level in branches(space)))
    return ActionModel(joint, (joint.raw_size,), tf.TensorSpec((None, joint.action_size), tf.float32))


class _Kind(NamedTuple):
    """One kind of action space.

    Attributes:
        part: builds the distribution over a leaf, from its path, the leaf, and whether actions are squashed.
        is_single: tells whether a leaf has one action alone.
    """

    part: Callable[[tuple[Any, ...], Any, bool], Part]
    is_single: Callable[[Any], bool]


def _discrete(path: tuple[Any, ...], space: spaces.Discrete, squash: bool) -> Part:
    count = int(space.n)
    return Part(path, Categorical(count, start=int(space.start)), (count,), (), np.int64)


def _multi_discrete(path: tuple[Any, ...], space: spaces.MultiDiscrete, squash: bool) -> Part:
    counts = tuple(int(n) for n in space.nvec.reshape(-1))
    start = tuple(int(s) for s in space.start.reshape(-1))
    shape = tuple(space.shape)
    distribution = MultiCategorical(counts, shape, start if any(start) else ())
    return Part(path, distribution, (sum(counts),), shape, np.int64)


def _multi_binary(path: tuple[Any, ...], space: spaces.MultiBinary, squash: bool) -> Part:
    shape = tuple(space.shape)
    return Part(path, Bernoulli(rank=len(shape)), shape, shape, np.int64)


def _box(path: tuple[Any, ...], space: spaces.Box, squash: bool) -> Part:
    if squash and not bool(np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(
            f"squash_actions needs finite bounds, and these are {space}: leave it out, and actions are clipped."
        )
    shape = tuple(space.shape)
    gaussian = DiagonalGaussian(low=space.low, high=space.high, rank=len(shape), squash=squash, dtype=space.dtype)
    return Part(path, gaussian, shape, shape, np.float32)


_KINDS: dict[type[spaces.Space[Any]], _Kind] = {
    spaces.Discrete: _Kind(_discrete, lambda space: int(space.n) == 1),
    spaces.MultiDiscrete: _Kind(_multi_discrete, lambda space: bool(np.all(space.nvec == 1))),
    spaces.MultiBinary: _Kind(_multi_binary, lambda space: False),
    spaces.Box: _Kind(_box, lambda space: 0 in space.shape),
}


def _kind(space: spaces.Space[Any]) -> Any:
    return next((cls for cls in type(space).__mro__ if cls in _KINDS), None)
