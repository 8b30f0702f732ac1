"""Products of the Hessian with a direction of the weights. The matrix is not written out.

Source: Pearlmutter (1994), "Fast exact multiplication by the Hessian".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from rlgrad.core.autograph import as_written
from rlgrad.core.keras_internals import computes_in_half
from rlgrad.gradients.programs.answers import Answer, Beside, answer
from rlgrad.gradients.programs.backward import (
    dense,
    require_connected,
    require_repeatable,
    tangents_for,
    weight_for,
    wide,
)
from rlgrad.gradients.programs.coupling import require_separate_samples
from rlgrad.gradients.programs.half_precision import in_ranges, near_one, without_weights
from rlgrad.gradients.programs.products import JacobianProducts, second_derivatives
from rlgrad.gradients.programs.program import Computed, compute
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.inputs import as_tensor
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import SINGLE, Question

_CREDIT = "credit of "  # and the output's name; no variable's path begins so


@as_written
def hessian_vector_product(
    model: Any,
    x: Any,
    v: Mapping[str, Any],
    *,
    output: OutputLike = None,
    target: Any = None,
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
        target: see `gradient`.
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
    return answer(
        _hessian_vector_product,
        model,
        x,
        Output.of(output, target=target),
        sample_weight,
        beside=Beside("v", v),
        layer=layer,
        weights=weights,
    )


def _hessian_vector_product(
    model: Any, x: Any, *, v: Any, output: Any, layer: Any, weights: Any, sample_weight: Any
) -> Answer[dict[str, Any]]:
    question = ask(model, x, outputs=output, layer=layer, weights=weights, sample_weight=sample_weight)
    return hessian_product(question, v)


def hessian_product(question: Question, v: Any, credits: Mapping[str, Any] | None = None) -> Answer[dict[str, Any]]:
    """Return the product of the Hessian of a question's outputs with v.

    Args:
        question: the question.
        v: see `hessian_vector_product`.
        credits: of each output that counts a tensor of its shape, by name; `None`: the question's sample weights.
    """
    require_repeatable(question, "hessian_vector_product")
    question, given = with_direction(question, v)
    names = None if credits is None else tuple(credits)
    if credits is not None:
        named = {f"{_CREDIT}{name}": credit for name, credit in credits.items()}
        question = replace(question, extra={**question.extra, **named}, extra_batched=frozenset(named))

    def computation(question: Question) -> Computed:
        bare, weights = without_weights(question) if names is None else (question, None)

        def summed() -> tuple[list[Any], list[Any], Any]:
            forward = bare.forward()
            if names is not None:
                values = [forward.values[name] for name in names]
                return values, [question.extra[f"{_CREDIT}{name}"] for name in names], forward.ranges
            value = forward.values[SINGLE]
            units = forward.units[SINGLE]
            c = weight_for(question, value, units) if weights is None else weights.weight(value, units)
            return [value], [c], forward.ranges

        with second_derivatives():
            return _differentiated_twice(question, given, summed)

    kind = ("hessian", names)
    computed = compute(kind, question, computation, without_rows=_zeros, traced=True)
    keys = [question.weights.keys[i] for i in computed.positions]
    return Answer(computed, lambda results: dict(zip(keys, results, strict=True)))


def push_weights(question: Question, v: Any) -> Any:
    """Return J v, float (N, …), for a question about one output: how each unit of each sample moves with the weights.

    Raises:
        BatchCoupledError: the model mixes its samples.
        NotImplementedError: TensorFlow has no second derivative of an operation.
        ValueError: v has other keys or shapes than the weights that the output depends on.
    """
    require_repeatable(question, "jvp of a vector")
    question, given = with_direction(question, v)

    def computation(question: Question) -> Computed:
        require_separate_samples(question)
        sources, half = question.sources, computes_in_half(question.model)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(sources)
            forward = question.forward()
        y = forward.values[SINGLE]
        positions = tuple(i for i, gradient in enumerate(tape.gradient(y, sources)) if gradient is not None)
        require_connected(question, positions)
        targets = [sources[i] for i in positions]
        direction = direction_for(question, given, positions)
        direction, size = near_one(direction) if half else (direction, None)
        (moved,) = JacobianProducts(tape, [y], targets).push(like(targets, direction))
        moved = moved if size is None else wide(moved) * tf.cast(size, wide(moved).dtype)
        return Computed([moved], positions, forward.ranges)

    return compute("jvp", question, computation, traced=True).results[0]


def with_direction(question: Question, v: Any) -> tuple[Question, list[str]]:
    """Return the question with the parts of v as arrays of its own, and their keys."""
    keys = question.weights.keys
    given = [key for key in keys if isinstance(v, Mapping) and key in v]
    if not isinstance(v, Mapping) or len(given) != len(v):
        tangents_for(question, v, list(keys))  # says what is wrong
    tensors = tangents_for(question, {key: v[key] for key in given}, given)
    return replace(question, extra=dict(zip(map(_name, given), tensors, strict=True))), given


def _name(key: str) -> str:
    """Return the name of a part of v among a question's arrays; see `named_leaves`."""
    return f"v[{key!r}]"


def direction_for(question: Question, given: list[str], positions: Sequence[int]) -> list[Any]:
    """Return v in the order of the connected variables, and require that it has no others."""
    keys = [question.weights.keys[i] for i in positions]
    return tangents_for(question, {key: question.extra[_name(key)] for key in given}, keys)


def by_key(question: Question, computed: Computed, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return results by the keys of their variables; zeros for all of them if there are no rows."""
    keys = [question.weights.keys[i] for i in computed.positions]
    if like is not None:
        return {key: tf.zeros_like(as_tensor(like[key])) for key in keys}
    return dict(zip(keys, computed.results, strict=True))


def _zeros(results: list[Any]) -> list[Any]:
    return list(map(tf.zeros_like, results))


def _differentiated_twice(question: Question, given: list[str], run: Callable[[], Any]) -> Computed:
    """Compute the derivative of a gradient along v; `run` gives values, their cotangents, and ranges."""
    sources, half = question.sources, computes_in_half(question.model)
    with tf.GradientTape(persistent=half, watch_accessed_variables=False) as outer:
        outer.watch(sources)
        with tf.GradientTape(persistent=half, watch_accessed_variables=False) as inner:
            inner.watch(sources)
            values, cotangents, ranges = run()
        # One pass, but in half precision one for each range of sizes: small credits would be 0.
        scales, parts = zip(*(in_ranges(cotangents) if half else [(1.0, cotangents)]), strict=True)
        gradients = [inner.gradient(values, sources, output_gradients=like(values, part)) for part in parts]
        positions = tuple(i for i, gradient in enumerate(gradients[0]) if gradient is not None)
        require_connected(question, positions)
        connected = [[dense(some[i], sources[i]) for i in positions] for some in gradients]
    targets, v = [sources[i] for i in positions], direction_for(question, given, positions)
    v, size = near_one(v) if half else (v, None)
    zero = tf.UnconnectedGradients.ZERO
    products = [
        outer.gradient(some, targets, output_gradients=like(some, v), unconnected_gradients=zero) for some in connected
    ]
    if not half:
        return Computed(list(map(dense, products[0], targets)), positions, ranges)
    results = []
    for target, *of_one in zip(targets, *products, strict=True):
        total = tf.add_n([scale * wide(dense(p, target)) for scale, p in zip(scales, of_one, strict=True)])
        results.append(tf.cast(total * size, target.dtype))
    return Computed(results, positions, ranges)


def like(values: Sequence[Any], tensors: Sequence[Any]) -> list[Any]:
    """Return tensors in the dtypes of values."""
    return [tf.cast(tensor, value.dtype) for tensor, value in zip(tensors, values, strict=True)]
