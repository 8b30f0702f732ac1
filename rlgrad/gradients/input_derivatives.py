"""Derivatives of all units of a model's output with respect to its input: the Jacobian, and its product with a direction."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.gradients.closed_forms.factors import sum_after
from rlgrad.gradients.jacobians import (
    MAX_UNITS,
    require_one_batch_axis,
    require_weight_per_sample,
    unit_cotangents,
)
from rlgrad.gradients.programs.answers import Answer, answer
from rlgrad.gradients.programs.backward import require_inputs, with_own_inputs
from rlgrad.gradients.programs.products import JacobianProducts
from rlgrad.gradients.programs.program import Computed, compute
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.heads import shape_text
from rlgrad.gradients.questions.inputs import leaf_names, prepare
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import SINGLE, Question
from rlgrad.gradients.samples import MEMORY_LIMIT, require_memory


def input_jacobian(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    layer: Any = None,
    sample_weight: Any = None,
    memory_limit: float = MEMORY_LIMIT,
) -> Any:
    """c_n ∂y_k(x_n)/∂x_n, for each sample n and each unit k by itself.

    One forward pass, and for each unit a backward pass of the whole batch, which ends at the input.

    Args:
        model: see `gradient`.
        x: float (N, …), or a dict or list of such arrays.
        output: see `jacobian`: an output with units keeps them.
        layer: see `gradient`.
        sample_weight: c, float (N,); default 1.
        memory_limit: bytes that the result may take.

    Returns:
        A tree with the structure of x; for each of its arrays (N, *output.shape[1:], *array.shape[1:]), in units of the
        output per unit of x.

    Raises:
        DisconnectedGradientError: the output does not depend on an input.
        MemoryError: the result would be larger than `memory_limit`.
        TypeError: x holds integers, which have no gradient; and as `gradient`.
        ValueError: the input has several leading batch axes; and as `gradient`.

    Example:
        >>> stiffness = input_jacobian(dynamics, states)  # (N, K, D): ∂ next state / ∂ state
    """
    return answer(_input_jacobian, model, x, Output.of(output), sample_weight, layer=layer, memory_limit=memory_limit)


def input_jvp(
    model: Any, x: Any, tangent: Any, *, output: OutputLike = None, layer: Any = None, sample_weight: Any = None
) -> Any:
    """c_n Σ_j ∂y_k(x_n)/∂x_nj v_nj: how all units of each sample move when its input moves along v.

    Costs one forward and two backward passes, however many units and inputs there are.

    Args:
        model: see `gradient`.
        x: float (N, …), or a dict or list of such arrays.
        tangent: v, of the structure and the shapes of x.
        output: see `jacobian`: an output with units keeps them.
        layer: see `gradient`.
        sample_weight: c, float (N,); default 1.

    Returns:
        Float (N, *output.shape[1:]), in units of the output.

    Raises:
        DisconnectedGradientError: the output does not depend on an input.
        TypeError: x holds integers, which have no gradient; and as `gradient`.
        ValueError: v has another structure or other shapes than x; and as `input_jacobian`.

    Example:
        >>> velocity = input_jvp(encoder, x, x_next - x)
    """
    question = ask(model, x, outputs=Output.of(output), layer=layer, sample_weight=sample_weight, differentiate_x=True)
    require_weight_per_sample(question)
    v = _direction(question, tangent)
    question = replace(question, extra=v, extra_batched=frozenset(v))
    return compute("input_jvp", question, _along_direction, traced=True).results[0]


def _input_jacobian(
    model: Any, x: Any, *, output: Any, layer: Any, sample_weight: Any, memory_limit: float
) -> Answer[Any]:
    question = ask(model, x, outputs=output, layer=layer, sample_weight=sample_weight, differentiate_x=True)
    require_weight_per_sample(question)
    rows, structure = question.batch_size, question.structure

    def check(computed: Computed) -> None:
        if rows is not None:
            require_memory(
                rows * computed.bytes_per_sample,
                memory_limit,
                f"The Jacobian of {rows} samples by their inputs",
                "Give fewer rows at a time, or raise the limit; input_jvp() does not write it out.",
            )

    computed = compute("input_jacobian", question, _by_unit, check=check)
    return Answer(computed, lambda results: tf.nest.pack_sequence_as(structure, results))


def _by_unit(question: Question) -> Computed:
    """Compute for each leaf of the input (N, *units, *shape)."""
    recorded = _record(question)
    y, leaves = recorded.y, recorded.jacobian.sources
    count = y.shape[1:].num_elements()
    units = tf.shape(y)[1:] if count is None else y.shape[1:].as_list()
    results, size = [], 0
    for part, leaf in zip(recorded.each_unit(lambda gradients: gradients), leaves, strict=True):
        results.append(tf.reshape(part, tf.concat([tf.shape(leaf)[:1], units, tf.shape(leaf)[1:]], axis=0)))
        size += (count or 1) * (leaf.shape[1:].num_elements() or 0) * leaf.dtype.size
    return Computed(results, ranges=recorded.ranges, bytes_per_sample=size)


def _along_direction(question: Question) -> Computed:
    """Compute J v, (N, *units)."""
    recorded = _record(question)
    y, v = recorded.y, list(question.extra.values())
    try:
        moved = recorded.jacobian.push(v)[0]
    except NotImplementedError:  # TensorFlow has no derivative of an operation's derivative, as of a resize
        parts = recorded.each_unit(lambda gradients: [_inner_products(gradients, v)])
        return Computed([tf.reshape(parts[0], tf.shape(y))], ranges=recorded.ranges)
    if question.sample_weight is not None:
        ones = tf.ones_like(tf.shape(y)[1:])
        moved *= tf.cast(tf.reshape(question.sample_weight, tf.concat([tf.shape(y)[:1], ones], axis=0)), moved.dtype)
    return Computed([moved], ranges=recorded.ranges)


@dataclass(frozen=True)
class _Recorded:
    """The units y of one run of the model, float (N, *units), and their Jacobian by the input."""

    y: Any
    jacobian: JacobianProducts
    ranges: Any
    sample_weight: Any

    def each_unit(self, use: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """Return, (N, K, …), what `use` makes of the gradient of each unit, which it gets as a list by leaf of the input."""
        y, c = self.y, self.sample_weight
        count = y.shape[1:].num_elements()
        if count is not None and count <= MAX_UNITS:
            by_unit = [use(self.jacobian.pull([u])) for u in unit_cotangents(y, count, c)]
            return [tf.stack(parts, axis=1) for parts in zip(*by_unit, strict=True)]
        # So many backward passes would be a large program, so they are a loop.
        count = tf.reduce_prod(tf.shape(y)[1:]) if count is None else count
        c = tf.ones(tf.shape(y)[:1], y.dtype) if c is None else tf.cast(c, y.dtype)

        def of_unit(k: Any) -> list[Any]:
            cotangent = c[:, None] * tf.one_hot(k, count, dtype=y.dtype)
            return use(self.jacobian.pull([tf.reshape(cotangent, tf.shape(y))]))

        specs = [tf.TensorSpec(g.shape, g.dtype) for g in of_unit(tf.constant(0))]
        stacked = tf.map_fn(of_unit, tf.range(count), fn_output_signature=specs)
        return [tf.transpose(part, [1, 0, *range(2, part.shape.rank)]) for part in stacked]


def _record(question: Question) -> _Recorded:
    question = with_own_inputs(question)
    leaves = list(question.leaves)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(leaves)
        forward = question.forward(per_unit=True)
    require_one_batch_axis(forward)
    y = forward.values[SINGLE]
    require_inputs(question, tape.gradient(y, leaves))
    return _Recorded(y, JacobianProducts(tape, [y], leaves), forward.ranges, question.sample_weight)


def _inner_products(gradients: list[Any], v: list[Any]) -> Any:
    """Σ over all leaves and all their axes but the batch."""
    return tf.add_n([sum_after(g * tf.cast(part, g.dtype), 1) for g, part in zip(gradients, v, strict=True)])


def _direction(question: Question, tangent: Any) -> dict[str, Any]:
    """Return a direction of the input as tensors, by the names of the input's arrays.

    Raises:
        ValueError: another structure or other shapes than the input's.
    """
    given = prepare(question.model, tangent, keras_internals.expected_inputs(question.model))
    names = leaf_names(question.structure)
    if names != leaf_names(given.structure):
        raise ValueError(
            f"tangent= has the structure of x: {', '.join(names)}; got {', '.join(leaf_names(given.structure))}."
        )
    for name, leaf, v in zip(names, question.leaves, given.leaves, strict=True):
        if not v.shape.is_compatible_with(leaf.shape):
            raise ValueError(
                f"tangent= has the shapes of x: {shape_text(leaf.shape)} for {name}; got {shape_text(v.shape)}."
            )
    return {name: tf.cast(v, leaf.dtype) for name, leaf, v in zip(names, question.leaves, given.leaves, strict=True)}
