"""Products of a loss's Gauss-Newton matrix with a direction of the weights. The matrix is not written out.

Source: Schraudolph (2002), "Fast curvature matrix-vector products for second-order gradient descent".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import tensorflow as tf

from rlgrad.core.autograph import as_written
from rlgrad.core.keras_internals import computes_in_half
from rlgrad.gradients.curvature import by_key, direction_for, like, with_direction
from rlgrad.gradients.programs.backward import (
    require_connected,
    require_repeatable,
    weight_for,
    wide,
)
from rlgrad.gradients.programs.coupling import require_separate_function, require_separate_samples
from rlgrad.gradients.programs.half_precision import near_one, pull_back_wide, weigh_rows
from rlgrad.gradients.programs.products import JacobianProducts, second_derivatives
from rlgrad.gradients.programs.program import Computed, compute
from rlgrad.gradients.questions.ask import about, ask
from rlgrad.gradients.questions.heads import require_floating, shape_text
from rlgrad.gradients.questions.outputs import Output
from rlgrad.gradients.questions.question import SINGLE, ForwardPass, Question


@as_written
def gauss_newton_vector_product(
    model: Any,
    x: Any,
    v: Mapping[str, Any],
    *,
    loss: Callable[..., Any],
    target: Any = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
) -> dict[str, Any]:
    """G v, G = Σ_n c_n J_nᵀ ∇²y ℓ(y_n) J_n: the Hessian of a loss without the curvature of the model itself.

    J_n is the Jacobian of what the model returns for x_n. If ℓ is convex in y (squared error, cross-entropy of logits), G is
    positive semi-definite. For cross-entropy it is the Fisher matrix (see `Linearization.fisher_vector_product`).

    Costs one forward and three backward passes of the model, and two of ℓ.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        v: a direction: for each variable that the model's outputs depend on a tensor of its shape.
        loss: ℓ, a function from what the model returns, and from `target` if that is given, to one number per sample, (N,).
            It is not compiled, since it may capture anything.
        target: arrays with a row for each sample, which `loss` gets as its second argument; a tree of arrays.
        layer: a layer, whose output then takes the place of the model's.
        weights: see `gradient`; v and the result are about these.
        sample_weight: c, float (N,); default 1.

    Returns:
        A dict like v, in units of ℓ per weight² times those of v.

    Raises:
        BatchCoupledError: the model mixes its samples, so that there is no J_n.
        DisconnectedGradientError: the outputs do not depend on a variable that was named, or on any variable.
        NotImplementedError: TensorFlow has no second derivative of an operation.
        TypeError: what `loss` returns is not floating-point.
        ValueError: `loss` does not return one number per sample; v has other keys or shapes; and as `gradient`.

    Example:
        >>> def squared_error(y, target):
        ...     return tf.reduce_sum((y - target) ** 2, axis=-1)
        >>> gv = gauss_newton_vector_product(model, x, v, loss=squared_error, target=labels, sample_weight=c)
    """
    question = ask(model, x, outputs=Output.of(None), layer=layer, weights=weights, sample_weight=sample_weight)
    return gauss_newton_product(question, v, loss, target)


def gauss_newton_product(question: Question, v: Any, loss: Any, target: Any) -> dict[str, Any]:
    """Return the product of a Gauss-Newton matrix with v; see `gauss_newton_vector_product`.

    The model's part is compiled and kept. The loss, which is not, sees nothing of the model but its outputs.
    """
    if not callable(loss):
        raise TypeError(f"loss= is a function from what the model returns to one number per sample; got {loss!r}.")
    require_repeatable(question, "gauss_newton_vector_product")
    require_separate_samples(replace(question, recipes={}, arrays={}, batched={}))
    of_loss = about(question, Output.of(loss, target=target))
    weight, question = question.sample_weight, replace(question, sample_weight=None)
    with_v, given = with_direction(question, v)
    if question.batch_size == 0:
        return by_key(question, compute("push", with_v, partial(_push, given=given), without_rows=lambda _: None), v)
    if not tf.executing_eagerly():  # one run of the model serves both
        outputs = _outputs(with_v)
        moved, size = outputs.push(direction_for(with_v, given, outputs.positions))
        bent = _bent(of_loss, outputs.returned, moved, weight)
        return by_key(question, Computed(outputs.pull(bent, size), outputs.positions))
    pushed = compute("push", with_v, partial(_push, given=given))
    returned, moved, size = pushed.results
    bent = _bent(of_loss, returned, moved, weight)
    cotangents = {f"cotangent {k}": part for k, part in enumerate(bent)}
    batched = frozenset(name for name, part in cotangents.items() if part.shape.rank)
    back = compute("pull", replace(question, extra=cotangents | {"size": size}, extra_batched=batched), _pull)
    return by_key(question, back)


@dataclass(frozen=True)
class _Outputs:
    """The outputs of one run of the model, and the Jacobian of its floating-point tensors by the weights at `positions`."""

    returned: Any
    jacobian: JacobianProducts
    positions: tuple[int, ...]
    half: bool

    def push(self, v: list[Any]) -> tuple[list[Any], Any]:
        """Return J v, and a number to multiply it with: in half precision small directions would be 0."""
        if not self.half:
            return self.jacobian.push(v), tf.ones([])
        v, size = near_one(v)
        return self.jacobian.push(like(self.jacobian.sources, v)), size

    def pull(self, cotangents: list[Any], size: Any) -> list[Any]:
        """Return Jᵀ u, multiplied with the number that `push` returned."""
        if not self.half:
            return self.jacobian.pull(cotangents)
        sources = self.jacobian.sources
        values, weights = ({str(k): part for k, part in enumerate(p)} for p in (self.jacobian.targets, cotangents))
        found = pull_back_wide(values, weights, sources, self.jacobian.tape)
        return [tf.cast(g * tf.cast(size, g.dtype), source.dtype) for g, source in zip(found, sources, strict=True)]


def _outputs(question: Question) -> _Outputs:
    sources = question.sources
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        returned = question.run_model()
    floating = [leaf for leaf in tf.nest.flatten(returned) if _is_floating(leaf)]
    gradients = tape.gradient(floating, sources) if floating else [None] * len(sources)
    positions = tuple(i for i, gradient in enumerate(gradients) if gradient is not None)
    require_connected(question, positions)
    products = JacobianProducts(tape, floating, [sources[i] for i in positions])
    return _Outputs(returned, products, positions, computes_in_half(question.model))


def _push(question: Question, given: list[str]) -> Computed:
    """Compute what the model returns, and what `_Outputs.push` returns."""
    outputs = _outputs(question)
    moved, size = outputs.push(direction_for(question, given, outputs.positions))
    return Computed([outputs.returned, moved, size], outputs.positions)


def _pull(question: Question) -> Computed:
    outputs, (*cotangents, size) = _outputs(question), question.extra.values()
    return Computed(outputs.pull(cotangents, size), outputs.positions)


def _bent(question: Question, returned: Any, moved: list[Any], weight: Any) -> list[Any]:
    """Return c_n ∇²y ℓ(y_n) u_n, for each floating-point tensor of what the model returned; u is `moved`."""
    require_separate_function(question, ForwardPass({}, 1, (), returned))
    # For the tapes below the loss begins at these; a caller's tape sees the model behind them.
    leaves = [tf.identity(leaf) if _is_floating(leaf) else leaf for leaf in tf.nest.flatten(returned)]
    outputs = [leaf for leaf in leaves if _is_floating(leaf)]
    loss: Any = question.recipes[SINGLE]
    half, zero = computes_in_half(question.model), tf.UnconnectedGradients.ZERO
    with second_derivatives():
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(outputs)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(outputs)
                value = loss.call(tf.nest.pack_sequence_as(returned, leaves), enumerate(question.arrays[SINGLE]))
            _require_loss_per_sample(question, value, outputs[0])
            c = weight_for(replace(question, sample_weight=None if half else weight), value)
            slopes = inner.gradient(value, outputs, output_gradients=c, unconnected_gradients=zero)
        bent: list[Any] = outer.gradient(slopes, outputs, output_gradients=moved, unconnected_gradients=zero)
    if not half:
        return bent
    c = weight_for(replace(question, sample_weight=weight), wide(value))
    return [weigh_rows(wide(part), c) for part in bent]


def _is_floating(leaf: Any) -> bool:
    return bool(tf.is_tensor(leaf) and leaf.dtype.is_floating)


def _require_loss_per_sample(question: Question, value: Any, output: Any) -> None:
    require_floating(value, "What loss= returned")
    rows = output.shape[:1]
    if value.shape.rank != 1 or not value.shape.is_compatible_with(rows):
        raise ValueError(
            f"loss= returns one number per sample, shape {shape_text(rows, question.batch_size)}, got "
            f"{shape_text(value.shape, question.batch_size)}. A Keras loss needs reduction=None; sums and means over "
            "samples are what sample_weight= is for."
        )
