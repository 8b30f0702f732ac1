"""The norm of each sample's gradient, and the inner products of gradients, without writing the gradients out."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from rlgrad.core.autograph import as_written
from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.closed_forms.segments import part
from rlgrad.gradients.dicts import by_layer
from rlgrad.gradients.matrices import matrix_of_blocks, matrix_of_pair, other_question, output_at_y, static
from rlgrad.gradients.programs.answers import Answer, answer
from rlgrad.gradients.programs.program import Computed
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import Question
from rlgrad.gradients.samples import MEMORY_LIMIT, SampleQuestion, ask_samples

PER = ("model", "layer", "variable")


@as_written
def per_sample_norm(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    target: Any = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
    per: str = "model",
    squared: bool = False,
    segments: Any = None,
    num_segments: int | None = None,
    method: str = "auto",
    chunk_size: int | None = None,
    memory_limit: float = MEMORY_LIMIT,
) -> Any:
    """‖c_n ∇θ f(x_n)‖ of each sample.

    No gradient of a layer with a closed form is written out: a dense layer's norm is ‖a‖ ‖b‖.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        output: see `gradient`.
        target: see `gradient`.
        layer: see `gradient`.
        weights: see `gradient`.
        sample_weight: see `gradient`.
        per: `"model"`: over all weights together; `"layer"`, `"variable"`: over the weights of each layer or variable.
        squared: return the square of the norm.
        segments: see `per_sample_gradient`; rows of one segment are summed before their norm is taken.
        num_segments: see `per_sample_gradient`.
        method: see `per_sample_gradient`.
        chunk_size: see `per_sample_gradient`.
        memory_limit: bytes that the layers' inputs and cotangents may take.

    Returns:
        Float (N,), or (S,) with segments; for `per="layer"` and `"variable"` a dict of them, by layer as in `by_layer` or
        by path.

    Raises:
        BatchCoupledError: the model mixes its samples.
        MemoryError: all rows together would take more than `memory_limit`.
        ValueError: another `per`; and as `per_sample_gradient`.
    """
    return answer(
        _per_sample_norm,
        model,
        x,
        Output.of(output, target=target),
        sample_weight,
        layer=layer,
        weights=weights,
        per=per,
        squared=squared,
        segments=segments,
        num_segments=num_segments,
        method=method,
        chunk_size=chunk_size,
        memory_limit=memory_limit,
    )


@as_written
def gram(
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
    segments: Any = None,
    num_segments: int | None = None,
    method: str = "auto",
    chunk_size: int | None = None,
    memory_limit: float = MEMORY_LIMIT,
) -> Any:
    """c_n ∇θ f(x_n) · c_m ∇θ f(x_m) for each pair of samples: J Jᵀ, the empirical neural tangent kernel, without J.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        y: another input, (M, …), whose gradients are the columns; default x itself.
        output: see `gradient`.
        output_y: with `y`, the output there, if it holds an array with one row per sample; default `output`.
        target: see `gradient`.
        target_y: with `y` and `target`, the targets there.
        layer: see `gradient`.
        weights: see `gradient`.
        sample_weight: c, float (N,); not together with `y`.
        segments: see `per_sample_gradient`; not together with `y`.
        num_segments: see `per_sample_gradient`.
        method: see `per_sample_gradient`.
        chunk_size: see `per_sample_gradient`; for rows and for columns.
        memory_limit: bytes that the result, and the layers' inputs and cotangents, may take.

    Returns:
        Float (N, N), symmetric and positive semi-definite; (S, S) with segments; (N, M) with `y`.

    Raises:
        BatchCoupledError: the model mixes its samples.
        MemoryError: more than `memory_limit`.
        ValueError: options that contradict each other; and as `per_sample_gradient`.
    """
    return answer(
        _gram,
        model,
        x,
        Output.of(output, target=target),
        sample_weight,
        y=y,
        output_y=output_at_y(y, output, output_y, target, target_y),
        layer=layer,
        weights=weights,
        segments=segments,
        num_segments=num_segments,
        method=method,
        chunk_size=chunk_size,
        memory_limit=memory_limit,
    )


def _per_sample_norm(model: Any, x: Any, *, per: str, squared: bool, **options: Any) -> Answer[Any]:
    require_per(per)
    asked = ask_samples(model, x, **options)
    keys = asked.question.weights.keys

    def contract(question: Question, factors: dict[int, Factor]) -> list[Any]:
        return list(norms({keys[i]: factor for i, factor in factors.items()}, per, squared).values())

    def pack(keys: list[str], results: list[Any]) -> Any:
        return results[0] if per == "model" else dict(zip(groups(keys, per), results, strict=True))

    return asked.answer(["norm", per, squared], contract, pack)


def _gram(
    model: Any,
    x: Any,
    *,
    output: Any,
    sample_weight: Any,
    y: Any,
    output_y: Any,
    segments: Any,
    num_segments: Any,
    **options: Any,
) -> Answer[Any]:
    asked = ask_samples(
        model,
        x,
        output=output,
        sample_weight=sample_weight,
        segments=segments,
        num_segments=num_segments,
        **options,
    )
    other = other_question(asked, y, output_y, output, options)
    _require_memory_of_matrix(asked, other)
    chunks = list(asked.chunks)
    if other is None and asked.packing is None and len(chunks) == 1:
        return Answer(_square(asked, chunks[0]), lambda results: results[0])
    return Answer(Computed([matrix_of_blocks(asked, chunks, other, _square, _pair)]), lambda results: results[0])


def norms_of(per: str, squared: bool) -> Callable[[dict[str, Factor]], Any]:
    """Return a function from factors to the norms that `per` and `squared` mean.

    Raises:
        ValueError: `per` is none of `PER`.
    """
    require_per(per)

    def contract(factors: dict[str, Factor]) -> Any:
        by_name = norms(factors, per, squared)
        return by_name[""] if per == "model" else by_name

    return contract


def norms(factors: dict[str, Factor], per: str, squared: bool) -> dict[str, Any]:
    """Return the norms by variable or layer, or for `per="model"` under `""`."""
    squares = dict(zip(factors, in_widest_dtype([factor.squared_norm() for factor in factors.values()]), strict=True))
    result = {name: tf.add_n([squares[key] for key in members]) for name, members in groups(squares, per).items()}
    return result if squared else {name: tf.sqrt(tf.maximum(total, 0.0)) for name, total in result.items()}


def groups(keys: Any, per: str) -> dict[str, list[str]]:
    """Return the variables that each norm is over, by the norm's name."""
    if per == "model":
        return {"": list(keys)}
    if per == "variable":
        return {key: [key] for key in keys}
    return {name: list(members.values()) for name, members in by_layer({key: key for key in keys}).items()}


def gram_of(factors: Any, others: Any) -> Any:
    """Return the sum of the variables' Gram matrices."""
    return tf.add_n(in_widest_dtype([factor.gram(other) for factor, other in zip(factors, others, strict=True)]))


def in_widest_dtype(parts: list[Any]) -> list[Any]:
    """Return tensors in the widest of their dtypes: variables of one model may have several."""
    dtype = max((part.dtype for part in parts), key=lambda dtype: dtype.size)
    return [tf.cast(part, dtype) for part in parts]


def require_per(per: str) -> None:
    """Raise if `per` is none of `PER`."""
    if per not in PER:
        raise ValueError(f"per= is one of {', '.join(map(repr, PER))}; got {per!r}.")


def _require_memory_of_matrix(asked: SampleQuestion, other: SampleQuestion | None) -> None:
    count = asked.question.batch_size if asked.packing is None else asked.packing.count
    columns = count if other is None else other.question.batch_size
    if count is not None and columns is not None:
        asked.require_memory(
            4 * count * columns,
            f"A Gram matrix of {count} by {columns} {'samples' if asked.packing is None else 'segments'}",
            "Ask for fewer rows at a time with gram(model, x[a:b], x), or raise the limit.",
        )


def _square(asked: SampleQuestion, chunk: Question) -> Computed:
    def contract(question: Question, factors: dict[int, Factor]) -> list[Any]:
        return [gram_of(factors.values(), factors.values())]

    return asked.compute(["gram"], chunk, contract, without_rows=lambda results: [results[0][:0, :0]])


def _pair(asked: SampleQuestion, a: Question, b: Question) -> Any:
    """Return the Gram matrix of the rows of `a` and of `b`, from one pass of both."""
    if a.batch_size == 0 or b.batch_size == 0:
        return tf.zeros([a.batch_size or 0, b.batch_size or 0])

    def contract(question: Question, factors: dict[int, Factor]) -> list[Any]:
        border, count, num_below = (static(question.extra.get(name)) for name in ("split", "num_segments", "num_below"))
        above = [part(factor, slice(border), count) for factor in factors.values()]
        below = [part(factor, slice(border, None), num_below) for factor in factors.values()]
        return [gram_of(above, below)]

    def together(both: Question) -> Any:
        return asked.compute(["gram", "pair"], both, contract).results[0]

    def written_out(question: Question) -> list[Any]:
        def gradients(question: Question, factors: dict[int, Factor]) -> list[Any]:
            return [factor.per_sample() for factor in factors.values()]

        written: list[Any] = asked.compute(["gram", "written out"], question, gradients).results
        return written

    return matrix_of_pair(a, b, together, written_out)
