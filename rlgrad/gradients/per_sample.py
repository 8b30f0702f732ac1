"""One gradient per sample."""

from typing import Any

import tensorflow as tf

from rlgrad.core.autograph import as_written
from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.programs.answers import Answer, answer
from rlgrad.gradients.programs.program import Computed
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import Question
from rlgrad.gradients.samples import MEMORY_LIMIT, ask_samples


@as_written
def per_sample_gradient(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    target: Any = None,
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

    Takes N · P numbers of memory, P being the number of weights. One forward and one backward pass give the input and
    the cotangent of each layer, and the layer's gradients are products of the two. Variables without such a closed form
    are vectorized over the samples; models that cannot be vectorized (recurrent layers that are not unrolled) run one
    sample after the other. `plan` shows the route of each layer.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        output: see `gradient`.
        target: see `gradient`.
        layer: see `gradient`.
        weights: see `gradient`.
        sample_weight: see `gradient`.
        segments: int (N,), from 0: rows with the same number are summed (the steps of one trajectory), and the result
            has one row per segment.
        num_segments: S; default the largest number in `segments`, plus one. Required if XLA compiles the caller.
        method: `"auto"`; `"factors"`: closed forms or an error; `"vmap"`: vectorized; `"loop"`: one after the other.
        chunk_size: the number of rows to compute at once; default all. With segments, as many whole segments as fit (a
            larger one by itself), and the numbers in `segments` must be known when tracing.
        memory_limit: bytes that the result may take.

    Returns:
        For each variable (N, *variable.shape), or (S, *variable.shape), under its path.

    Raises:
        BatchCoupledError: the model mixes its samples.
        MemoryError: the result would be larger than `memory_limit`.
        NotImplementedError: `method="factors"` and a variable has no closed form.
        ValueError: f is neither one number per sample nor a vector, whose units are added up (several leading axes must be
            flattened into one first); options that contradict each other; and as `gradient`.
    """
    return answer(
        _per_sample_gradient,
        model,
        x,
        Output.of(output, target=target),
        sample_weight,
        layer=layer,
        weights=weights,
        segments=segments,
        num_segments=num_segments,
        method=method,
        chunk_size=chunk_size,
        memory_limit=memory_limit,
    )


def _per_sample_gradient(model: Any, x: Any, **options: Any) -> Answer[dict[str, Any]]:
    asked = ask_samples(model, x, **options)
    rows, packing, variables = asked.question.batch_size, asked.packing, asked.question.weights.variables
    if packing is not None:  # the segments' gradients, and at any time those of one chunk's rows
        rows = packing.count + packing.largest
    dtypes = [tf.as_dtype(variable.dtype) for variable in variables]

    def contract(question: Question, factors: dict[int, Factor]) -> list[Any]:
        return [tf.cast(factor.per_sample(), dtypes[i]) for i, factor in factors.items()]

    def check(computed: Computed) -> None:
        if rows is not None:
            size = sum(tf.TensorShape(variables[i].shape).num_elements() * dtypes[i].size for i in computed.positions)
            asked.require_memory(
                rows * size,
                f"A gradient for each of {rows} {'samples' if packing is None else 'segments and rows of a chunk'}",
                "per_sample_norm() and gram() do not write them out; or give fewer rows at a time, or raise the limit.",
            )

    return asked.answer(["per_sample"], contract, lambda keys, results: dict(zip(keys, results, strict=True)), check)
