"""One gradient per sample, and per sample and unit."""

from typing import Any

import tensorflow as tf

from rlgrad.gradients import compiled
from rlgrad.gradients.asking import MEMORY_LIMIT, Asked, answer, ask, written_out_bytes
from rlgrad.gradients.backward import dense, require_connected
from rlgrad.gradients.factors import Factor
from rlgrad.gradients.heads import shape_text
from rlgrad.gradients.outputs import Output, OutputLike
from rlgrad.gradients.posing import pose
from rlgrad.gradients.problem import SINGLE, Notes, Problem, one_of_zeros
from rlgrad.gradients.repeated import repeatable
from rlgrad.gradients.vectorized import map_samples, vectorized


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
        chunk_size: how many rows to compute at once; default all.
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
        if asked.problem.batch_size is not None:
            asked.require_memory(
                asked.problem.batch_size * written_out_bytes(asked, notes),
                f"A gradient for each of {asked.problem.batch_size} samples",
                "per_sample_norm() and gram() do not write them out; or give fewer rows at a time, or raise the limit.",
            )

    parts = []
    for chunk in asked.chunks:
        results, keys = answer(("per_sample",), asked, chunk, use, check)
        parts.append([result[:0] for result in results] if chunk.batch_size == 0 else results)
    joined = parts[0] if len(parts) == 1 else [tf.concat(rows, axis=0) for rows in zip(*parts, strict=True)]
    return dict(zip(keys, joined, strict=True))


@repeatable
def jacobian(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
) -> dict[str, Any]:
    """c_n ∇θ y_k(x_n), for each sample n and each unit k by itself.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        output: see `gradient`, except that an output with units keeps them: `None` and a head's name are not summed,
            and a function may return (N, K).
        layer: see `gradient`.
        weights: see `gradient`.
        sample_weight: c, float (N,); default 1.

    Returns:
        For each variable (N, *output.shape[1:], *variable.shape), under its path.

    Raises:
        ValueError: the input has several leading batch axes; and what `gradient` raises.
    """
    problem = pose(
        model, x, outputs={SINGLE: Output.of(output)}, layer=layer, weights=weights, sample_weight=sample_weight
    )
    if problem.sample_weight is not None and problem.sample_weight.shape.rank != 1:
        shape = shape_text(problem.sample_weight.shape)
        raise ValueError(f"sample_weight of a Jacobian is one number per sample, shape (N,), got {shape}.")

    def body(symbolic: Problem, notes: Notes) -> list[Any]:
        return map_samples(symbolic, notes, _jacobian_of_one)

    # Shapes and connections of no samples come from one sample of zeros, of which nothing is kept.
    empty = problem.batch_size == 0
    results, notes = compiled.answer("jacobian", one_of_zeros(problem) if empty else problem, body)
    keys = [problem.weights.keys[i] for i in notes.listed]
    return {key: result[:0] if empty else result for key, result in zip(keys, results, strict=True)}


def _jacobian_of_one(problem: Problem, notes: Notes) -> list[Any]:
    sources = problem.sources
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        y = problem.forward(notes, per_unit=True)[SINGLE]
    if notes.batch_rank != 1:
        raise ValueError(
            f"A Jacobian needs one leading batch axis, got {notes.batch_rank}. Flatten the time and environment axes "
            "first."
        )
    positions = tuple(i for i, gradient in enumerate(tape.gradient(y, sources)) if gradient is not None)
    require_connected(problem, positions)
    notes.listed = positions

    def of_unit(cotangent: Any) -> list[Any]:
        gradients = tape.gradient(y, sources, output_gradients=tf.reshape(cotangent, tf.shape(y)))
        return [dense(gradients[i], sources[i]) for i in positions]

    units = tf.eye(tf.size(y), dtype=y.dtype)
    if problem.sample_weight is not None:
        units *= tf.cast(problem.sample_weight, y.dtype)
    if problem.loop:
        if y.shape.num_elements() is None:
            raise ValueError(f"The output's shape must be known for a Jacobian of a recurrent model, got {y.shape}.")
        per_unit = [of_unit(cotangent) for cotangent in tf.unstack(units, y.shape.num_elements())]
        stacked = [tf.stack(parts) for parts in zip(*per_unit, strict=True)]
    else:
        stacked = vectorized(of_unit, units)
    shape = tf.shape(y)[1:]
    return [tf.reshape(s, tf.concat([shape, tf.shape(s)[1:]], axis=0)) for s in stacked]
