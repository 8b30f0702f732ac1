"""What a policy needs of a distribution over actions."""

from typing import Any, Protocol

import numpy as np
import tensorflow as tf

IMPOSSIBLE = (
    -1e9
)  # the logit of an action that is masked: its probability is exactly 0, and nothing becomes not-a-number


class Distribution(Protocol):
    """A family of distributions over actions, of which parameters pick one. `…` is any number of batch axes."""

    def assemble(self, raw: Any, log_std: Any) -> Any:
        """The parameters, from what a network gives and from the policy's log standard deviations, if it has any."""

    def log_std_shape(self, raw_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape of the log standard deviations that go with a network's output of `raw_shape`; none: there are none."""

    def log_prob(self, parameters: Any, actions: Any) -> tf.Tensor:
        """Log π(a|s), shape (…)."""

    def entropy(self, parameters: Any) -> tf.Tensor:
        """H(π(·|s)) in nats, shape (…)."""

    def kl_divergence(self, parameters: Any, other: Any) -> tf.Tensor:
        """KL(π ‖ π′) in nats, shape (…), π of `parameters` and π′ of `other`."""

    def fisher_product(self, parameters: Any, tangents: Any) -> Any:
        """The Fisher matrix of each row's parameters times a tangent, a tree like the parameters."""

    def check_actions(self, actions: Any) -> tf.Tensor:
        """`actions` as a tensor of the right dtype; raises where they cannot be actions of this distribution."""

    def noise(self, parameters: Any, generator: np.random.Generator, count: int) -> Any:
        """NumPy: the random numbers of `count` samples, indexed by the sample, for parameters of these shapes."""

    def pick(self, parameters: Any, noise: Any) -> np.ndarray:
        """NumPy: the actions (…, event) that the random numbers of one sample stand for."""

    def numpy_log_prob(self, parameters: Any, actions: np.ndarray) -> np.ndarray:
        """NumPy: log π(a|s), shape (…)."""

    def sample(self, parameters: Any, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """NumPy: sampled actions (…, event) and their log-probabilities (…)."""

    def mode(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """NumPy: the most likely actions (…, event) and their log-probabilities (…)."""

    def to_environment(self, actions: np.ndarray) -> Any:
        """NumPy: what `env.step` gets for these actions."""

    def draw(self, parameters: Any, seeds: Any) -> tf.Tensor:
        """TensorFlow: sampled actions (…, event), as they are stored, one for each of the seeds, int32 (…, 2)."""

    def most_likely(self, parameters: Any) -> tf.Tensor:
        """TensorFlow: the actions of `mode`."""

    def for_environment(self, actions: tf.Tensor) -> Any:
        """TensorFlow: the actions of `to_environment`."""


def integers(actions: Any, name: str) -> tf.Tensor:
    """`actions` as an integer tensor.

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
    """NumPy: log softmax over the last axis."""
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    log_probs: np.ndarray = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    return log_probs
