"""Products of second derivatives with a direction of the weights: of the Hessian, and of a loss's Gauss-Newton matrix.

Neither matrix is written out. Source: Pearlmutter (1994), "Fast exact multiplication by the Hessian"; Schraudolph (2002), "Fast
curvature matrix-vector products for second-order gradient descent".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import tensorflow as tf

from rlgrad.gradients.programs.backward import dense, require_connected, tangents_for, weight_for
from rlgrad.gradients.programs.products import JacobianProducts, second_derivatives
from rlgrad.gradients.programs.program import Computed, compute
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.heads import require_floating, shape_text
from rlgrad.gradients.questions.inputs import as_tensor
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import SINGLE, Question

_CREDIT = "credit of "  # and the output's name; no variable's path begins so


def hessian_vector_product(
    model: Any,
    x: Any,
    v: Mapping[str, Any],
    *,
    output: OutputLike = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
) -> dict[str, Any]:
    """Σ_n c_n ∇²θ f(x_n) v: how the gradient changes along v.

    Costs one forward pass and some four backward passes, whatever the number of weights: the gradient is differentiated
    once more, backwards.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        v: a direction, as `gradient` returns one: a tensor of its shape for each variable that f depends on.
        output: see `gradient`.
        layer: see `gradient`.
        weights: see `gradient`; v and the result are about these, and the other blocks of the Hessian are left out.
        sample_weight: see `gradient`.

    Returns:
        A dict like v, in units of f per weight² times those of v. Zeros where the gradient does not change, as along the
        weights of a linear model.

    Raises:
        NotImplementedError: TensorFlow has no second derivative of an operation.
        ValueError: v has other keys or shapes; and as `gradient`.

    Example:
        >>> g = gradient(model, x)
        >>> curvature = dot(g, hessian_vector_product(model, x, g)) / dot(g, g)  # along the gradient
    """
    question = ask(model, x, outputs=Output.of(output), layer=layer, weights=weights, sample_weight=sample_weight)
    return hessian_product(question, v)


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


def hessian_product(question: Question, v: Any, credits: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the product of the Hessian of a question's outputs with v.

    Args:
        question: the question.
        v: see `hessian_vector_product`.
        credits: of each output that counts a tensor of its shape, by name; `None`: the question's sample weights.
    """
    question, given = _with_direction(question, v)
    if credits is not None:
        named = {f"{_CREDIT}{name}": credit for name, credit in credits.items()}
        question = replace(question, extra={**question.extra, **named}, extra_batched=frozenset(named))

    def computation(question: Question) -> Computed:
        def summed() -> tuple[list[Any], list[Any], Any]:
            forward = question.forward()
            if credits is None:
                value = forward.values[SINGLE]
                return [value], [weight_for(question, value)], forward.ranges
            values = [forward.values[name] for name in credits]
            return values, [question.extra[f"{_CREDIT}{name}"] for name in credits], forward.ranges

        with second_derivatives():
            return _differentiated_twice(question, given, summed)

    kind = ("hessian", None if credits is None else tuple(credits))
    computed = compute(kind, question, computation, without_rows=_zeros, traced=True)
    return _by_key(question, computed)


def gauss_newton_product(question: Question, v: Any, loss: Any, target: Any) -> dict[str, Any]:
    """Return the product of a Gauss-Newton matrix with v; see `gauss_newton_vector_product`.

    The model's part is compiled and kept. The loss, which is not, sees nothing of the model but its outputs.
    """
    if not callable(loss):
        raise TypeError(f"loss= is a function from what the model returns to one number per sample; got {loss!r}.")
    arguments = () if target is None else (_checked_target(question, target),)
    weight, question = question.sample_weight, replace(question, sample_weight=None)
    with_v, given = _with_direction(question, v)
    if question.batch_size == 0:
        return _by_key(question, compute("push", with_v, partial(_push, given=given), without_rows=lambda _: None), v)
    if not tf.executing_eagerly():  # one run of the model serves both
        outputs = _outputs(with_v)
        moved = outputs.jacobian.push(_direction(with_v, given, outputs.positions))
        bent = _bent(question, loss, arguments, outputs.returned, moved, weight)
        return _by_key(question, Computed(outputs.jacobian.pull(bent), outputs.positions))
    pushed = compute("push", with_v, partial(_push, given=given))
    returned, moved = pushed.results
    bent = _bent(question, loss, arguments, returned, moved, weight)
    cotangents = {f"cotangent {k}": part for k, part in enumerate(bent)}
    batched = frozenset(name for name, part in cotangents.items() if part.shape.rank)
    back = compute("pull", replace(question, extra=cotangents, extra_batched=batched), _pull)
    return _by_key(question, back)


def _with_direction(question: Question, v: Any) -> tuple[Question, list[str]]:
    """Return the question with the parts of v as arrays of its own, and their keys."""
    keys = question.weights.keys
    given = [key for key in keys if isinstance(v, Mapping) and key in v]
    if not isinstance(v, Mapping) or len(given) != len(v):
        tangents_for(question, v, list(keys))  # says what is wrong
    extra = dict(zip(given, tangents_for(question, {key: v[key] for key in given}, given), strict=True))
    return replace(question, extra=extra), given


def _direction(question: Question, given: list[str], positions: Sequence[int]) -> list[Any]:
    """Return v in the order of the connected variables, and require that it has no others."""
    keys = [question.weights.keys[i] for i in positions]
    return tangents_for(question, {key: question.extra[key] for key in given}, keys)


def _by_key(question: Question, computed: Computed, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return results by the keys of their variables; zeros for all of them if there are no rows."""
    keys = [question.weights.keys[i] for i in computed.positions]
    if like is not None:
        return {key: tf.zeros_like(as_tensor(like[key])) for key in keys}
    return dict(zip(keys, computed.results, strict=True))


def _zeros(results: list[Any]) -> list[Any]:
    return list(map(tf.zeros_like, results))


def _differentiated_twice(question: Question, given: list[str], run: Callable[[], Any]) -> Computed:
    """Compute the derivative of a gradient along v; `run` gives values, their cotangents, and ranges."""
    sources = question.sources
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch(sources)
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(sources)
            values, cotangents, ranges = run()
        gradients = inner.gradient(values, sources, output_gradients=cotangents)
        positions = tuple(i for i, gradient in enumerate(gradients) if gradient is not None)
        require_connected(question, positions)
        connected = [dense(gradients[i], sources[i]) for i in positions]
    products = outer.gradient(
        connected,
        [sources[i] for i in positions],
        output_gradients=_direction(question, given, positions),
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    results = [dense(product, sources[i]) for i, product in zip(positions, products, strict=True)]
    return Computed(results, positions, ranges)


@dataclass(frozen=True)
class _Outputs:
    """What one run of the model returned, and the Jacobian of its floating-point tensors by the weights at `positions`."""

    returned: Any
    jacobian: JacobianProducts
    positions: tuple[int, ...]


def _outputs(question: Question) -> _Outputs:
    sources = question.sources
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        returned = question.run_model()
    floating = [leaf for leaf in tf.nest.flatten(returned) if _is_floating(leaf)]
    gradients = tape.gradient(floating, sources) if floating else [None] * len(sources)
    positions = tuple(i for i, gradient in enumerate(gradients) if gradient is not None)
    require_connected(question, positions)
    return _Outputs(returned, JacobianProducts(tape, floating, [sources[i] for i in positions]), positions)


def _push(question: Question, given: list[str]) -> Computed:
    """Compute what the model returns, and J v for each of its floating-point tensors."""
    outputs = _outputs(question)
    moved = outputs.jacobian.push(_direction(question, given, outputs.positions))
    return Computed([outputs.returned, moved], outputs.positions)


def _pull(question: Question) -> Computed:
    outputs = _outputs(question)
    return Computed(outputs.jacobian.pull(list(question.extra.values())), outputs.positions)


def _bent(question: Question, loss: Any, arguments: Any, returned: Any, moved: list[Any], weight: Any) -> list[Any]:
    """Return ∇²y Σ_n c_n ℓ(y_n) u, for each floating-point tensor of what the model returned; u is `moved`."""
    # For the tapes below the loss begins at these; a caller's tape sees the model behind them.
    leaves = [tf.identity(leaf) if _is_floating(leaf) else leaf for leaf in tf.nest.flatten(returned)]
    outputs = [leaf for leaf in leaves if _is_floating(leaf)]
    with second_derivatives():
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(outputs)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(outputs)
                value = loss(tf.nest.pack_sequence_as(returned, leaves), *arguments)
            _require_loss_per_sample(question, value, outputs[0])
            c = weight_for(replace(question, sample_weight=weight), value)
            slopes = inner.gradient(
                value, outputs, output_gradients=c, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
        bent: list[Any] = outer.gradient(
            slopes, outputs, output_gradients=moved, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
    return bent


def _is_floating(leaf: Any) -> bool:
    return bool(tf.is_tensor(leaf) and leaf.dtype.is_floating)


def _checked_target(question: Question, target: Any) -> Any:
    """Return the target as tensors.

    Raises:
        ValueError: an array has not one row per sample.
    """
    rows, tensors = question.batch_size, tf.nest.map_structure(as_tensor, target)
    for leaf in tf.nest.flatten(tensors):
        if leaf.shape.rank == 0 or (rows is not None and leaf.shape[0] not in (None, rows)):
            raise ValueError(f"target= has one row for each of {rows} samples, got shape {shape_text(leaf.shape)}.")
    return tensors


def _require_loss_per_sample(question: Question, value: Any, output: Any) -> None:
    require_floating(value, "What loss= returned")
    rows = output.shape[:1]
    if value.shape.rank != 1 or not value.shape.is_compatible_with(rows):
        raise ValueError(
            f"loss= returns one number per sample, shape {shape_text(rows, question.batch_size)}, got "
            f"{shape_text(value.shape, question.batch_size)}. A Keras loss needs reduction=None; sums and means over "
            "samples are what sample_weight= is for."
        )
