"""How long each sample's gradient is, and how alike two are, without writing the gradients out."""

from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.closed_forms.segments import part
from rlgrad.gradients.dicts import by_layer
from rlgrad.gradients.programs.repeated import repeatable
from rlgrad.gradients.questions.outputs import OutputLike
from rlgrad.gradients.questions.problem import Notes, Problem
from rlgrad.gradients.samples import MEMORY_LIMIT, Asked, answer, ask

PER = ("model", "layer", "variable")


@repeatable
def per_sample_norm(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
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

    A dense layer's is ‖a‖ ‖b‖: no gradient is written out where a closed form exists.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        output: see `gradient`.
        layer: see `gradient`.
        weights: see `gradient`.
        sample_weight: see `gradient`.
        per: `"model"`: over all weights together; `"layer"`, `"variable"`: over each layer's, each variable's.
        squared: the square of the norm.
        segments: see `per_sample_gradient`: rows with one number are summed before their norm is taken.
        num_segments: see `per_sample_gradient`.
        method: see `per_sample_gradient`.
        chunk_size: see `per_sample_gradient`.
        memory_limit: bytes that the layers' inputs and cotangents may take.

    Returns:
        Float (N,), or (S,) with segments; for `per="layer"` and `"variable"` a dict of them, by layer as in `by_layer` or
        by path.

    Raises:
        MemoryError: all rows together would take more than `memory_limit`.
        ValueError: another `per`; and what `per_sample_gradient` raises.
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
    require_per(per)
    keys = asked.problem.weights.keys

    def use(symbolic: Problem, factors: dict[int, Factor]) -> list[Any]:
        return list(norms({keys[i]: factor for i, factor in factors.items()}, per, squared).values())

    parts = []
    for chunk in asked.chunks:
        results, listed = answer(("norm", per, squared), asked, chunk, use, _fits(asked, chunk))
        parts.append([result[:0] for result in results] if chunk.batch_size == 0 else results)
    joined = [asked.joined(list(rows)) for rows in zip(*parts, strict=True)]
    return joined[0] if per == "model" else dict(zip(groups(listed, per), joined, strict=True))


@repeatable
def gram(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    output: OutputLike = None,
    output_y: OutputLike = None,
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
        y: other input, (M, …), against which the gradients at x are compared; default x itself.
        output: see `gradient`.
        output_y: with `y`, what f is there, where it holds an array with one row per sample; default `output`.
        layer: see `gradient`.
        weights: see `gradient`.
        sample_weight: c, float (N,); not together with `y`.
        segments: see `per_sample_gradient`; not together with `y`.
        num_segments: see `per_sample_gradient`.
        method: see `per_sample_gradient`.
        chunk_size: see `per_sample_gradient`; of rows, and of columns.
        memory_limit: bytes that the result, and the layers' inputs and cotangents, may take.

    Returns:
        Float (N, N), symmetric and positive semi-definite; (S, S) with segments; (N, M) with `y`.

    Raises:
        MemoryError: more than `memory_limit`.
        ValueError: options that contradict each other; and what `per_sample_gradient` raises.
    """
    common = {"layer": layer, "weights": weights, "method": method, "chunk_size": chunk_size}
    asked = ask(
        model,
        x,
        output=output,
        sample_weight=sample_weight,
        segments=segments,
        num_segments=num_segments,
        memory_limit=memory_limit,
        **common,
    )
    if y is None:
        if output_y is not None:
            raise ValueError("output_y= is what f is at y, but y is missing.")
        return _gram_of(asked, None)
    if sample_weight is not None or segments is not None:
        raise ValueError("sample_weight= and segments= belong to x; gram(model, x, y) takes neither.")
    other = ask(
        model,
        y,
        output=output if output_y is None else output_y,
        sample_weight=None,
        memory_limit=memory_limit,
        **common,
    )
    if not _alike(asked.problem, other.problem):
        raise ValueError("output_y= must be the same kind of output as output=, only with other rows.")
    return _gram_of(asked, other)


def norms(factors: dict[str, Factor], per: str, squared: bool) -> dict[str, Any]:
    """Norms by variable, layer, or for `per="model"` under `""`."""
    squares = dict(zip(factors, alike([factor.squared_norm() for factor in factors.values()]), strict=True))
    result = {name: tf.add_n([squares[key] for key in members]) for name, members in groups(squares, per).items()}
    return result if squared else {name: tf.sqrt(tf.maximum(total, 0.0)) for name, total in result.items()}


def groups(keys: Any, per: str) -> dict[str, list[str]]:
    """Which variables each norm is over, by its name."""
    if per == "model":
        return {"": list(keys)}
    if per == "variable":
        return {key: [key] for key in keys}
    return {name: list(members.values()) for name, members in by_layer({key: key for key in keys}).items()}


def gram_of(factors: Any, others: Any) -> Any:
    """Σ over variables of their Gram matrices."""
    return tf.add_n(alike([factor.gram(other) for factor, other in zip(factors, others, strict=True)]))


def alike(parts: list[Any]) -> list[Any]:
    """Tensors in the widest of their dtypes: variables of one model may differ in theirs."""
    dtype = max((part.dtype for part in parts), key=lambda dtype: dtype.size)
    return [tf.cast(part, dtype) for part in parts]


def require_per(per: str) -> None:
    """Raises where `per` is none of `PER`."""
    if per not in PER:
        raise ValueError(f"per= is one of {', '.join(map(repr, PER))}; got {per!r}.")


def _alike(a: Problem, b: Problem) -> bool:
    """Whether two questions differ only in what has a batch axis."""
    numbers = zip(a.numbers(), b.numbers(), strict=False)
    same = all(
        p is q or batched or np.array_equal(tf.get_static_value(p), tf.get_static_value(q))
        for (p, batched), (q, _) in numbers
    )
    return a.recipes == b.recipes and len(a.numbers()) == len(b.numbers()) and same


def _gram_of(asked: Asked, other: Asked | None) -> Any:
    problem = asked.problem
    count = problem.batch_size if asked.packing is None else asked.packing.count
    columns = count if other is None else other.problem.batch_size
    if count is not None and columns is not None:
        asked.require_memory(
            4 * count * columns,
            f"A Gram matrix of {count} by {columns} {'samples' if asked.packing is None else 'segments'}",
            "Ask for fewer rows at a time with gram(model, x[a:b], x), or raise the limit.",
        )
    if other is None and asked.chunk_size is None:
        return _square(asked, problem)
    rows = list(asked.chunks)
    if other is not None:
        return tf.concat([tf.concat([_pair(asked, a, b) for b in other.chunks], axis=1) for a in rows], axis=0)
    blocks: list[list[Any]] = []
    for i, a in enumerate(rows):  # symmetric: what lies left of the diagonal is already there
        left = [tf.transpose(blocks[j][i]) for j in range(i)]
        blocks.append([*left, _square(asked, a), *(_pair(asked, a, b) for b in rows[i + 1 :])])
    return asked.joined([asked.joined(row, axis=1) for row in blocks])


def _square(asked: Asked, problem: Problem) -> Any:
    def use(symbolic: Problem, factors: dict[int, Factor]) -> list[Any]:
        return [gram_of(factors.values(), factors.values())]

    (matrix,), _ = answer(("gram",), asked, problem, use, _fits(asked, problem))
    return matrix[:0, :0] if problem.batch_size == 0 else matrix


def _pair(asked: Asked, a: Problem, b: Problem) -> Any:
    """Both batches in one pass, then the rows of one against the rows of the other."""
    if a.batch_size == 0 or b.batch_size == 0:
        return tf.zeros([a.batch_size or 0, b.batch_size or 0])
    both = a.with_numbers(
        [
            tf.concat([p, q], axis=0) if batched else p
            for (p, batched), (q, _) in zip(a.numbers(), b.numbers(), strict=True)
        ]
    )
    rows = None if a.batch_size is None or b.batch_size is None else a.batch_size + b.batch_size
    split = tf.shape(a.leaves[0])[0] if a.batch_size is None else tf.constant(a.batch_size)
    sizes = {"split": split} | ({"num_below": b.extra["num_segments"]} if "num_segments" in b.extra else {})
    both = replace(both, batch_size=rows, extra={**both.extra, **sizes})

    def use(symbolic: Problem, factors: dict[int, Factor]) -> list[Any]:
        border, count, num_below = (
            _static(symbolic.extra.get(name)) for name in ("split", "num_segments", "num_below")
        )
        above = [part(factor, slice(border), count) for factor in factors.values()]
        below = [part(factor, slice(border, None), num_below) for factor in factors.values()]
        return [gram_of(above, below)]

    (matrix,), _ = answer(("gram", "pair"), asked, both, use, _fits(asked, both))
    return matrix


def _static(number: Any) -> Any:
    """A number as an int where it is known when tracing."""
    known = None if number is None else tf.get_static_value(number)
    return number if known is None else int(known)


def _fits(asked: Asked, problem: Problem) -> Any:
    def check(notes: Notes) -> None:
        if problem.batch_size is not None:
            asked.require_memory(
                problem.batch_size * notes.bytes_per_sample,
                f"What {problem.batch_size} samples send through the layers",
                f"Give chunk_size={max(1, int(asked.memory_limit / 2 / max(1, notes.bytes_per_sample)))}.",
            )

    return check
