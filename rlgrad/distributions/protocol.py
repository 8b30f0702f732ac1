"""The `Distribution` protocol: the functions of a distribution over actions that policies and updates call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rlgrad.core.importing import lazy

if TYPE_CHECKING:
    import tensorflow as tf
else:  # acting needs none
    tf = lazy("tensorflow")

IMPOSSIBLE = -1e9
"""The logit of a masked action: its probability is exactly 0, and nothing becomes not-a-number."""


class Distribution(Protocol):
    """A family of distributions over actions; parameters pick one of it. `…` is any number of batch axes."""

    def assemble(self, raw: Any, log_std: Any) -> Any:
        """Return the parameters from a network's output and the policy's log standard deviations, `None` if it has none."""

    def log_std_shape(self, raw_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the shape of the log standard deviations for a network's output of `raw_shape`, `None` if there are none."""

    def log_prob(self, parameters: Any, actions: Any) -> tf.Tensor:
        """Return log π(a|s), shape (…)."""

    def batch_rank(self, parameters: Any) -> int:
        """Return the number of batch axes that these parameters have, the … of all shapes here."""

    def entropy(self, parameters: Any) -> tf.Tensor:
        """Return H(π(·|s)) in nats, shape (…)."""

    def kl_divergence(self, parameters: Any, other: Any) -> tf.Tensor:
        """Return KL(π ‖ π′) in nats, shape (…), π of `parameters` and π′ of `other`."""

    def fisher_product(self, parameters: Any, tangents: Any) -> Any:
        """Return the Fisher matrix of each row's parameters times a tangent, a tree like the parameters."""

    def reparameterized(self, parameters: Any, noise: Any) -> tf.Tensor:
        """TensorFlow: return the actions a(s; ε) (…, event), as they are stored, as a function of parameters and noise.

        Args:
            parameters: the distribution's.
            noise: ε, float (…, event): standard normal numbers make a sample of them, zeros the most likely action.

        Raises:
            TypeError: an action is one of several, and does not move when the parameters do.
        """

    def reparameterized_log_prob(self, parameters: Any, noise: Any) -> tf.Tensor:
        """Return log π(a(s; ε)|s), shape (…): of `reparameterized` actions, as a function of parameters and noise alone."""

    def check_actions(self, actions: Any) -> tf.Tensor:
        """Return `actions` as a tensor of the right dtype. Raise if they cannot be actions of this distribution."""

    def noise(self, parameters: Any, generator: Any, count: int) -> Any:
        """NumPy: return the random numbers of `count` samples, indexed by the sample, for parameters of these shapes.

        Args:
            parameters: (N, …), of N slots.
            generator: a `numpy.random.Generator`, or one that draws each slot's numbers from a stream of its own: it is asked
                for arrays whose second axis is the slots.
            count: samples of each slot.
        """

    def pick(self, parameters: Any, noise: Any) -> np.ndarray:
        """NumPy: return the actions (…, event) of one sample from its random numbers."""

    def numpy_log_prob(self, parameters: Any, actions: np.ndarray) -> np.ndarray:
        """NumPy: return log π(a|s), shape (…)."""

    def sample(self, parameters: Any, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """NumPy: return sampled actions (…, event) and their log-probabilities (…)."""

    def mode(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """NumPy: return the most likely actions (…, event) and their log-probabilities (…)."""

    def to_environment(self, actions: np.ndarray) -> Any:
        """NumPy: return these actions as `env.step` takes them."""

    def draw(self, parameters: Any, seeds: Any) -> tf.Tensor:
        """TensorFlow: return sampled actions (…, event), as they are stored, one for each of the seeds, int32 (…, 2)."""

    def most_likely(self, parameters: Any) -> tf.Tensor:
        """TensorFlow: return the actions of `mode`."""

    def for_environment(self, actions: tf.Tensor) -> Any:
        """TensorFlow: return the actions of `to_environment`."""

    def keras_actions(self, parameters: Any, name: str) -> dict[str, Any]:
        """Keras: `for_environment(most_likely(parameters))` (N, …) by name, for exported models.

        Args:
            parameters: Keras tensors.
            name: of the action; its parts append theirs.
        """


def rank_of(tensor: Any) -> int:
    """Return the number of axes of a distribution's parameters.

    Raises:
        ValueError: it is not known.
    """
    rank = tensor.shape.rank if tf.is_tensor(tensor) else len(tensor.shape)
    if rank is None:
        raise ValueError("The policy's output has an unknown number of axes; give it a shape (tf.ensure_shape).")
    return int(rank)


def require_noise(noise: Any, like: Any) -> tf.Tensor:
    """Return noise as a tensor of the dtype of `like`.

    Raises:
        TypeError: it is not floating-point.
        ValueError: it has not exactly the shape of `like`: broadcasting would give several actions the same noise.
    """
    noise = tf.convert_to_tensor(noise)
    if not noise.dtype.is_floating:
        raise TypeError(f"The noise of actions is made of floating-point numbers, got {noise.dtype.name}.")
    if not noise.shape.is_compatible_with(like.shape):
        raise ValueError(f"The noise has the shape of the actions, {tuple(like.shape)}; got {tuple(noise.shape)}.")
    return tf.cast(noise, like.dtype)


def refuse_reparameterization(distribution: Any) -> TypeError:
    """Return the error of a distribution over actions that cannot be moved."""
    return TypeError(
        f"An action of {type(distribution).__name__} is one of several, which cannot be reparameterized: it does not move "
        "when the parameters do. Credit LogProb(actions), or the log-probabilities of all actions (Each)."
    )


def integers(actions: Any, name: str) -> tf.Tensor:
    """Return `actions` as an integer tensor.

    Raises:
        TypeError: they are of another kind.
    """
    actions = tf.convert_to_tensor(actions)
    if not actions.dtype.is_integer:
        raise TypeError(f"A {name} distribution takes integer actions, got {actions.dtype.name}.")
    return actions


def require_within(actions: tf.Tensor, counts: Any) -> None:
    """Raise a ValueError for actions outside of `0 … counts − 1`, where they are known when called."""
    known = tf.get_static_value(actions)
    if known is None or not known.size:
        return
    if (known < 0).any() or (known >= np.asarray(counts)).any():
        top = np.max(np.asarray(counts)) - 1
        raise ValueError(f"Actions are 0 … {top}, got values from {int(known.min())} to {int(known.max())}.")


def log_softmax(logits: Any) -> np.ndarray:
    """Return the log softmax over the last axis, in NumPy."""
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    log_probs: np.ndarray = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    return log_probs


def keras_argmax(logits: Any) -> Any:
    """Keras: the index of the largest logit; of equal ones, the first. Int64.

    Keras' own argmax looks for −0 by bits, which LiteRT cannot do.
    """
    from keras import ops

    return ops.cast(ops.top_k(logits, 1)[1][..., 0], "int64")
