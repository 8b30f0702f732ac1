"""Derivatives of all units of a model's output with respect to its input: the Jacobian, and its product with a direction."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.core.autograph import as_written
from rlgrad.core.rowwise_layers import is_made_of_rowwise_layers
from rlgrad.core.tensorflow_internals import trace_facts
from rlgrad.gradients.closed_forms.factors import sum_after
from rlgrad.gradients.programs.answers import Answer, Beside, answer
from rlgrad.gradients.programs.backward import require_inputs, wide, with_own_inputs
from rlgrad.gradients.programs.coupling import require_separate_function, require_separate_samples
from rlgrad.gradients.programs.half_precision import rows_near_one, weigh_results, weigh_rows
from rlgrad.gradients.programs.products import JacobianProducts
from rlgrad.gradients.programs.program import Computed, compute
from rlgrad.gradients.programs.surveys import PROBE_ROWS, rows_per_sample
from rlgrad.gradients.programs.unit_factors import (
    MAX_UNITS,
    require_one_batch_axis,
    require_weight_per_sample,
    unit_cotangents,
)
from rlgrad.gradients.questions.arrays import dense_tensor
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.heads import shape_text
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import SINGLE, ForwardPass, Question
from rlgrad.gradients.samples import MEMORY_LIMIT, require_memory


@as_written
def input_jacobian(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    target: Any = None,
    inputs: Any = None,
    layer: Any = None,
    sample_weight: Any = None,
    memory_limit: float = MEMORY_LIMIT,
) -> Any:
    """c_n ∂y_k(x_n)/∂x_n, for each sample n and each unit k by itself.

    One forward pass, and for each unit a backward pass of the whole batch, which ends at the input.

    Args:
        model: see `gradient`.
        x: float (N, …), or a dict or list of arrays.
        output: see `jacobian`: an output with units keeps them.
        target: see `gradient`.
        inputs: see `input_gradient`.
        layer: see `gradient`.
        sample_weight: c, float (N,); default 1.
        memory_limit: bytes that the result may take.

    Returns:
        A tree as `input_gradient` returns it; for each array (N, *output.shape[1:], *array.shape[1:]), in units of the
        output per unit of x.

    Raises:
        BatchCoupledError, DisconnectedGradientError, TypeError: as `input_gradient`.
        MemoryError: the result would be larger than `memory_limit`.
        ValueError: the input has several leading batch axes; and as `gradient`.

    Example:
        >>> stiffness = input_jacobian(dynamics, states)  # (N, K, D): ∂ next state / ∂ state
    """
    return answer(
        _input_jacobian,
        model,
        x,
        Output.of(output, target=target),
        sample_weight,
        inputs=inputs,
        layer=layer,
        memory_limit=memory_limit,
    )


@as_written
def input_jvp(
    model: Any,
    x: Any,
    tangent: Any,
    *,
    output: OutputLike = None,
    target: Any = None,
    inputs: Any = None,
    layer: Any = None,
    sample_weight: Any = None,
) -> Any:
    """c_n Σ_j ∂y_k(x_n)/∂x_nj v_nj: how all units of each sample move when its input moves along v.

    Costs one forward and two backward passes, however many units and inputs there are.

    Args:
        model: see `gradient`.
        x: float (N, …), or a dict or list of arrays.
        tangent: v, a tree as `input_gradient` returns it: of the structure and the shapes of x, or of its part `inputs`.
        output: see `jacobian`: an output with units keeps them.
        target: see `gradient`.
        inputs: see `input_gradient`; the others do not move.
        layer: see `gradient`.
        sample_weight: c, float (N,); default 1.

    Returns:
        Float (N, *output.shape[1:]), in units of the output.

    Raises:
        BatchCoupledError, DisconnectedGradientError, TypeError: as `input_gradient`.
        ValueError: v has another structure or other shapes; and as `input_jacobian`.

    Example:
        >>> velocity = input_jvp(encoder, x, x_next - x)
    """
    return answer(
        _input_jvp,
        model,
        x,
        Output.of(output, target=target),
        sample_weight,
        beside=Beside("tangent", tangent, batched=True),
        inputs=inputs,
        layer=layer,
    )


def _input_jvp(
    model: Any, x: Any, *, tangent: Any, output: Any, inputs: Any, layer: Any, sample_weight: Any
) -> Answer[Any]:
    question = ask(
        model, x, outputs=output, layer=layer, sample_weight=sample_weight, differentiate_x=True, inputs=inputs
    )
    require_weight_per_sample(question)
    v = _direction(question, tangent)
    question = replace(question, extra=v, extra_batched=frozenset(v))
    computed = compute("input_jvp", question, weigh_results(_along_direction), traced=True)
    return Answer(computed, lambda results: results[0])


def _input_jacobian(
    model: Any, x: Any, *, output: Any, inputs: Any, layer: Any, sample_weight: Any, memory_limit: float
) -> Answer[Any]:
    question = ask(
        model, x, outputs=output, layer=layer, sample_weight=sample_weight, differentiate_x=True, inputs=inputs
    )
    require_weight_per_sample(question)
    rows = question.batch_size

    def check(computed: Computed) -> None:
        if rows is not None:
            require_memory(
                rows * computed.bytes_per_sample,
                memory_limit,
                f"The Jacobian of {rows} samples by their inputs",
                "Give fewer rows at a time, or raise the limit; input_jvp() does not write it out.",
            )

    computed = compute("input_jacobian", question, weigh_results(_by_unit), check=check)
    return Answer(computed, question.inputs.packed)


def _by_unit(question: Question) -> Computed:
    """Compute for each chosen leaf of the input (N, *units, *shape)."""
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
    y, v, size = recorded.y, list(question.extra.values()), None
    if keras_internals.computes_in_half(question.model):  # where small directions would be 0
        v, size = rows_near_one(v)
    moved = _pushed(recorded, v) if not recorded.once else None
    if moved is None:
        (parts,) = recorded.each_unit(lambda gradients: [_inner_products(gradients, v)])
        moved = tf.reshape(parts, tf.shape(y))
    elif question.sample_weight is not None:
        moved = weigh_rows(moved, question.sample_weight)
    return Computed([moved if size is None else weigh_rows(wide(moved), size)], ranges=recorded.ranges)


def _pushed(recorded: "_Recorded", v: list[Any]) -> Any:
    """Return J v; `None` if TensorFlow has no derivative of an operation's derivative, as of a resize."""
    try:
        return recorded.jacobian.push(v)[0]
    except NotImplementedError:
        return None


@dataclass(frozen=True)
class _Recorded:
    """The units y of one run of the model, float (N, *units), and their Jacobian by the chosen inputs.

    With `once` TensorFlow differentiates such a run only once, so that there is one for each unit.
    """

    y: Any
    jacobian: JacobianProducts
    ranges: Any
    sample_weight: Any
    once: bool

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
    require_separate_samples(question)
    question = with_own_inputs(question)
    once, floating = keras_internals.has_saved_loops(question.model), question.floating_leaves

    def run() -> tuple[Any, ForwardPass]:
        with tf.GradientTape(persistent=not once, watch_accessed_variables=False) as tape:
            tape.watch(list(floating.values()))
            forward = question.forward(per_unit=True)
        return tape, forward

    def run_again() -> tuple[Any, list[Any]]:
        tape, forward = run()
        return tape, [forward.values[SINGLE]]

    tape, forward = run()
    require_one_batch_axis(forward)
    require_separate_function(question, forward)
    y = forward.values[SINGLE]
    _require_one_row_per_sample(question, y)
    found = zip(floating, tape.gradient(y, list(floating.values())), strict=True)
    require_inputs(question.inputs, [i for i, gradient in found if gradient is not None])
    leaves = [question.leaves[i] for i in question.inputs.positions]
    products = JacobianProducts(tape, [y], leaves, run_again if once else None)
    return _Recorded(y, products, forward.ranges, question.sample_weight, once)


def _require_one_row_per_sample(question: Question, y: Any) -> None:
    """Raise if y has several rows for each sample: which of them are whose is not known."""
    known = (question.leaves[0].shape[0], y.shape[0])
    if (known[0] != known[1]) if None not in known else (_output_rows(question) != 1):
        raise ValueError(
            f"Model {question.model.name!r} does not return one row for each row of its input, and which rows are whose "
            "is not known. Let it return the rows of a sample along an axis after the first, (N, R, …)."
        )


def _output_rows(question: Question) -> int | None:
    """Return the number of rows that the model returns for each row of its input; see `Survey.rows`."""
    if is_made_of_rowwise_layers(question.model):
        return 1

    def count_rows(rows: int) -> int | None:
        def traced(leaves: list[Any]) -> tuple[list[Any], int | None]:
            return [], rows_per_sample(replace(question, leaves=tuple(leaves)).run_model(), rows)

        specs = [tf.TensorSpec([rows, *spec.shape[1:]], spec.dtype) for spec in question.signature]
        return trace_facts(traced, specs)[1]

    try:
        return count_rows(PROBE_ROWS)
    except Exception:  # the model runs at its own batch size only
        if question.batch_size is None:
            raise
        return count_rows(question.batch_size)


def _inner_products(gradients: list[Any], v: list[Any]) -> Any:
    """Σ over all leaves and all their axes but the batch."""
    return tf.add_n([sum_after(g * tf.cast(part, g.dtype), 1) for g, part in zip(gradients, v, strict=True)])


def _direction(question: Question, tangent: Any) -> dict[str, Any]:
    """Return a direction of the chosen inputs as tensors, by the caller's names and in the order of their positions.

    Raises:
        ValueError: another structure or other shapes than theirs.
    """
    direction = {}
    for position, (name, part) in zip(
        question.inputs.positions, question.inputs.unpacked(tangent, "tangent"), strict=True
    ):
        leaf, written = question.leaves[position], question.inputs.names[position]
        v = dense_tensor(part, name, leaf.dtype)
        if not v.shape.is_compatible_with(leaf.shape):
            raise ValueError(
                f"tangent= has the shapes of x: {shape_text(leaf.shape)} for {written}; got {shape_text(v.shape)}."
            )
        direction[name] = v
    return direction
