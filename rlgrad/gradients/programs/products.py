"""Products with a Jacobian and with its transpose, from one recorded run of the model; the Jacobian is not written out."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from rlgrad.core.tensorflow_internals import undifferentiable
from rlgrad.gradients.programs.backward import dense


@contextlib.contextmanager
def second_derivatives() -> Iterator[None]:
    """A context in which gradients are differentiated once more, and in which TensorFlow must have all derivatives for that.

    Raises:
        NotImplementedError: it has not, or would leave out a part of the result. Of operations that run eagerly this cannot
            be seen, so they are traced: see `program.compute`.
    """
    before = undifferentiable()
    try:
        yield
    except LookupError as error:
        if type(error) is not LookupError:  # a KeyError of the model's own
            raise
        raise NotImplementedError(f"TensorFlow cannot differentiate the gradient of this model: {error}.") from error
    missing = undifferentiable() - before
    if missing:
        raise NotImplementedError(
            f"TensorFlow cannot differentiate the gradient of this model: it takes {', '.join(sorted(missing))} for a "
            "constant. (For a bilinear resize: use another interpolation, or a transposed convolution.)"
        )


@dataclass(frozen=True)
class JacobianProducts:
    """J = ∂y/∂s, as a tape recorded how y is computed from s.

    Args:
        tape: the tape, persistent.
        targets: y, a list of tensors.
        sources: s, what the tape watched; y depends on each of them.
        run_again: runs the model once more and returns another tape and other targets, if a tape serves only once.
    """

    tape: Any
    targets: list[Any]
    sources: list[Any]
    run_again: Callable[[], tuple[Any, list[Any]]] | None = None

    def push(self, tangents: Sequence[Any]) -> list[Any]:
        """Return J v, for each of `targets`; v has a tensor for each of `sources`."""
        # Jᵀ u is linear in u, so its derivative with respect to u along v is J v: no second pass of the model.
        zeros = [tf.zeros_like(target) for target in self.targets]
        with second_derivatives():
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch(zeros)
                pulled = self.pull(zeros)
            moved: list[Any] = outer.gradient(
                pulled, zeros, output_gradients=list(tangents), unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
        return moved

    def pull(self, cotangents: Sequence[Any]) -> list[Any]:
        """Return Jᵀ u, for each of `sources`; u has a tensor for each of `targets`."""
        tape, targets = (self.tape, self.targets) if self.run_again is None else self.run_again()
        gradients = tape.gradient(targets, self.sources, output_gradients=list(cotangents))
        return [dense(gradient, source) for gradient, source in zip(gradients, self.sources, strict=True)]
