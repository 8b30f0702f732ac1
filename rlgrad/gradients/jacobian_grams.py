"""Inner products of the gradients of all units: J Jᵀ, with one row and one column for each sample and unit."""

from dataclasses import replace
from functools import partial
from typing import Any

import tensorflow as tf

from rlgrad.core.autograph import as_written
from rlgrad.gradients.closed_forms.segments import part
from rlgrad.gradients.jacobians import require_memory_now
from rlgrad.gradients.matrices import matrix_of_blocks, matrix_of_pair, other_question, output_at_y, static
from rlgrad.gradients.norms import gram_of
from rlgrad.gradients.programs.answers import Answer, answer
from rlgrad.gradients.programs.program import Computed, compute
from rlgrad.gradients.programs.taps import Recording
from rlgrad.gradients.programs.unit_factors import MAX_UNITS, UnitFactors, require_weight_per_sample, unit_factors
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import Question, one_row_of_zeros
from rlgrad.gradients.samples import MEMORY_LIMIT, SampleQuestion, ask_samples, require_memory


@as_written
def jacobian_gram(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    output: OutputLike = None,
    output_y: OutputLike = None,
    target: Any = None,
    target_y: Any = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
    chunk_size: int | None = None,
    memory_limit: float = MEMORY_LIMIT,
) -> Any:
    """c_n ∇θ f_k(x_n) · c_m ∇θ f_l(x_m) for each pair of samples and of units: the whole empirical neural tangent kernel.

    `gram` is that of one number per sample. As there, no gradient of a layer with a closed form is written out: one forward
    pass, and for each unit a backward pass that stops short of the weights, as for `jacobian`. Other variables are written
    out: their part of the Jacobian takes N · K times their size, and all of it if there are more than 64 units.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        y: another input, (M, …), whose gradients are the columns; default x itself.
        output: see `jacobian`: an output with units keeps them.
        output_y: see `gram`.
        target: see `gradient`.
        target_y: see `gram`.
        layer: see `gradient`.
        weights: see `gradient`.
        sample_weight: c, float (N,); not together with `y`.
        chunk_size: the number of samples to compute at once; default all. For rows and for columns.
        memory_limit: bytes that the result, and the layers' inputs and cotangents, may take.

    Returns:
        Float (N · K, N · K), symmetric and positive semi-definite, or (N · K, M · K) with `y`: row n · K + k is unit k of
        sample n. Reshaped to (N, K, M, K), the trace over the units is what `gram` would be of the units one by one, added.

    Raises:
        BatchCoupledError: the model mixes its samples.
        MemoryError: more than `memory_limit`.
        ValueError: options that contradict each other; and as `jacobian`.

    Example:
        >>> kernel = jacobian_gram(model, x)
        >>> mean = jacobian_gram(model, x_new, x) @ tf.linalg.solve(kernel + ridge, residuals)  # NTK regression
    """
    return answer(
        _jacobian_gram,
        model,
        x,
        Output.of(output, target=target),
        sample_weight,
        y=y,
        output_y=output_at_y(y, output, output_y, target, target_y),
        layer=layer,
        weights=weights,
        chunk_size=chunk_size,
        memory_limit=memory_limit,
    )


def _jacobian_gram(
    model: Any, x: Any, *, output: Any, sample_weight: Any, y: Any, output_y: Any, **options: Any
) -> Answer[Any]:
    asked = ask_samples(model, x, output=output, sample_weight=sample_weight, **options)
    require_weight_per_sample(asked.question)
    other = other_question(asked, y, output_y, output, options)
    chunks, rows = list(asked.chunks), asked.question.batch_size
    size = rows, rows if other is None else other.question.batch_size
    # A program must not keep the question alive, so that these take its numbers.
    square_of, pair_of, written_out = (
        partial(f, size=size, limit=asked.memory_limit) for f in (_square, _pair, _written_out)
    )

    def check(computed: Computed, chunk: Question) -> None:
        _require_memory_of_matrix(size, computed.detail, asked.memory_limit)
        if chunk.batch_size is not None:
            asked.require_memory(
                chunk.batch_size * computed.bytes_per_sample,
                f"The inputs of the layers, and the cotangents of all units, for {chunk.batch_size} samples",
                f"Give chunk_size={max(1, int(asked.memory_limit / 2 / max(1, computed.bytes_per_sample)))}.",
            )

    def square(asked: SampleQuestion, chunk: Question) -> Computed:
        return asked.compute_as(
            "jacobian_gram",
            chunk,
            square_of,
            check=lambda computed: check(computed, chunk),
            without_rows=lambda results: [results[0][:0, :0]],
        )

    def pair(asked: SampleQuestion, a: Question, b: Question) -> Any:
        if 0 in (a.batch_size, b.batch_size):
            units = tf.shape(compute("jacobian_gram", one_row_of_zeros(a), square_of).results[0])[0]
            return tf.zeros([(a.batch_size or 0) * units, (b.batch_size or 0) * units])

        def answered(kind: str, question: Question, computation: Any) -> Any:
            return asked.compute_as(
                kind, question, computation, check=lambda computed: check(computed, question)
            ).results

        return matrix_of_pair(
            a,
            b,
            lambda both: answered("jacobian_gram_of_two", both, pair_of)[0],
            lambda one: answered("jacobian_gram_written_out", one, written_out),
        )

    if other is None and len(chunks) == 1:
        return Answer(square(asked, chunks[0]), lambda results: results[0])
    return Answer(Computed([matrix_of_blocks(asked, chunks, other, square, pair)]), lambda results: results[0])


Size = tuple[int | None, int | None]


def _require_memory_of_matrix(size: Size, units: int | None, limit: float) -> None:
    """Raise if the matrix of so many rows and columns of samples takes more than the limit; `None` is not known."""
    rows, columns = size
    if rows is not None and columns is not None and units is not None:
        require_memory(
            4 * rows * columns * units**2,
            limit,
            f"A Gram matrix of {rows} by {columns} samples with {units} units each",
            "Ask for fewer rows at a time with jacobian_gram(model, x[a:b], x), or raise the limit.",
        )


def _factors(question: Question, size: Size, limit: float) -> UnitFactors:
    def check_now(recording: Recording, y: Any) -> None:
        units = y.shape[1:].num_elements()
        _require_memory_of_matrix(size, units, limit)
        if not recording.calls or units > MAX_UNITS:  # then everything is written out
            require_memory_now(question, recording, y, limit)

    return unit_factors(question, check_now)


def _square(question: Question, size: Size, limit: float) -> Computed:
    found = _factors(question, size, limit)
    return _computed(found, gram_of(found.factors.values(), found.factors.values()))


def _pair(question: Question, size: Size, limit: float) -> Computed:
    found = _factors(question, size, limit)
    border = static(question.extra["split"]) * found.count
    above = [part(factor, slice(border), None) for factor in found.factors.values()]
    below = [part(factor, slice(border, None), None) for factor in found.factors.values()]
    return _computed(found, gram_of(above, below))


def _written_out(question: Question, size: Size, limit: float) -> Computed:
    found = _factors(question, size, limit)
    gradients = [factor.per_sample() for factor in found.factors.values()]
    return replace(_computed(found, None), results=gradients)


def _computed(found: UnitFactors, matrix: Any) -> Computed:
    """Return the matrix, with the bytes that the factors take for each sample; the detail is K, if it is known."""
    count = found.count
    units = count if isinstance(count, int) else None
    tensors = [tensor for factor in found.factors.values() for tensor in factor.tensors]
    size = sum((tensor.shape[1:].num_elements() or 0) * tensor.dtype.size for tensor in tensors)
    return replace(found.facts, results=[matrix], bytes_per_sample=(units or 1) * size, detail=units)
