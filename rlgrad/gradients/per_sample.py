"""One gradient per sample."""

from typing import Any

import tensorflow as tf

from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.programs.repeated import repeatable
from rlgrad.gradients.questions.outputs import OutputLike
from rlgrad.gradients.questions.problem import Notes, Problem
from rlgrad.gradients.samples import MEMORY_LIMIT, Asked, answer, ask, written_out_bytes


@repeatable
def per_sample_gradient(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
    segments: Any = None,
    num_segments: int | None = None,
    method: str = "auto",
    chunk_size: int | None = None,
    memory_limit: float = MEMORY_LIMIT,
) -> dict[str, Any]:
    """c_n ∇θ f(x_n), for each sample by itself.

    Takes N · P numbers of memory, P being the number of weights. One forward and one backward pass give what goes in and
    out of each layer, and each layer's gradients are products of the two. Variables without such a closed form are
    vectorized over the samples; what cannot be vectorized (recurrent layers that are not unrolled) runs one sample after
    the other. `plan` says which is which.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        output: see `gradient`.
        layer: see `gradient`.
        weights: see `gradient`.
        sample_weight: see `gradient`.
        segments: int (N,), from 0: rows with the same number are summed (the steps of one trajectory), and the result
            has one row per segment.
        num_segments: S; default the largest number in `segments`, plus one. Needed where XLA compiles the caller.
        method: `"auto"`; `"factors"`: closed forms or an error; `"vmap"`: vectorized; `"loop"`: one after the other.
        chunk_size: how many rows to compute at once; default all. With segments, as many whole segments as fit (a larger
            one by itself), and the numbers in `segments` must be known when tracing.
        memory_limit: bytes that the result may take.

    Returns:
        For each variable (N, *variable.shape), or (S, *variable.shape), under its path.

    Raises:
        MemoryError: the result would be larger than `memory_limit`.
        NotImplementedError: `method="factors"` and a variable has no closed form.
        ValueError: f has not exactly one number per sample (several leading axes must be flattened into one first);
            options that contradict each other; and what `gradient` raises.
    """
    asked = ask(
        model,
        x,
        output=output,
        layer=layer,
        weights=weights,
        sample_weight=sample_weight,
        segments=segments,
        num_segments=num_segments,
        method=method,
        chunk_size=chunk_size,
        memory_limit=memory_limit,
    )
    return per_sample_of(asked)


def per_sample_of(asked: Asked) -> dict[str, Any]:
    """`per_sample_gradient` of a question that was already posed."""
    dtypes = [tf.as_dtype(variable.dtype) for variable in asked.problem.weights.variables]

    def use(symbolic: Problem, factors: dict[int, Factor]) -> list[Any]:
        return [tf.cast(factor.per_sample(), dtypes[i]) for i, factor in factors.items()]

    def check(notes: Notes) -> None:
        rows, packing = asked.problem.batch_size, asked.packing
        if packing is not None:  # the segments' gradients, and at any time those of one chunk's rows
            rows = packing.count + packing.largest
        if rows is not None:
            asked.require_memory(
                rows * written_out_bytes(asked, notes),
                f"A gradient for each of {rows} {'samples' if packing is None else 'segments and rows of a chunk'}",
                "per_sample_norm() and gram() do not write them out; or give fewer rows at a time, or raise the limit.",
            )

    parts = []
    for chunk in asked.chunks:
        results, keys = answer(("per_sample",), asked, chunk, use, check)
        parts.append([result[:0] for result in results] if chunk.batch_size == 0 else results)
    return {key: asked.joined(list(rows)) for key, rows in zip(keys, zip(*parts, strict=True), strict=True)}
