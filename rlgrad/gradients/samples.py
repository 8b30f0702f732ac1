"""What the per-sample functions share: how a question is asked of each sample, in how much memory, in which chunks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.closed_forms.segments import Packing, Segmented, packed, prepared
from rlgrad.gradients.programs import compiled
from rlgrad.gradients.programs.capture import METHODS, Captured, capture_factors
from rlgrad.gradients.questions.outputs import Output
from rlgrad.gradients.questions.posing import pose
from rlgrad.gradients.questions.problem import SINGLE, Notes, Problem, one_of_zeros, with_rows

MEMORY_LIMIT = 2e9

# From a question with symbols, and the factors of each variable by position, to tensors.
Use = Callable[[Problem, dict[int, Factor]], list[Any]]


@dataclass(frozen=True)
class Asked:
    """A question about each sample.

    Args:
        problem: the question; with segments in its `extra`.
        method: see `capture_factors`.
        chunk_size: at most so many rows at once; `None`: all.
        memory_limit: bytes.
        packing: how segments fall into chunks, where there are both.
    """

    problem: Problem
    method: str
    chunk_size: int | None
    memory_limit: float
    packing: Packing | None = None

    @property
    def chunks(self) -> Iterator[Problem]:
        """The question about at most `chunk_size` rows at a time, or more where one segment has more."""
        if self.packing is not None:
            yield from (_of_segments(self.problem, chosen, numbers) for chosen, numbers in self.packing.chunks)
            return
        rows, size = self.problem.batch_size, self.chunk_size
        if size is None or (rows is not None and rows <= size):
            yield self.problem
            return
        if rows is None:
            raise ValueError(
                "chunk_size= needs a batch size that is known when tracing; give the input a static shape."
            )
        for start in range(0, rows, size):
            stop = min(rows, start + size)
            yield slice_rows(self.problem, start, stop)

    def joined(self, parts: list[Any], axis: int = 0) -> Any:
        """What the chunks gave, as one: a row for each sample, or for each segment."""
        whole = parts[0] if len(parts) == 1 else tf.concat(parts, axis=axis)
        return whole if self.packing is None else self.packing.in_place(whole, axis)

    def require_memory(self, size: float, what: str, advice: str) -> None:
        """Raises where `size` bytes are more than the limit."""
        require_memory(size, self.memory_limit, what, advice)


def require_memory(size: float, limit: float, what: str, advice: str) -> None:
    """Raises where `size` bytes are more than the limit.

    Raises:
        MemoryError: with the size and what to ask instead.
    """
    if size > limit:
        raise MemoryError(f"{what} would take {_text(size)}, more than memory_limit={_text(limit)}. {advice}")


def ask(
    model: Any,
    x: Any,
    *,
    output: Any,
    layer: Any,
    weights: Any,
    sample_weight: Any,
    segments: Any = None,
    num_segments: Any = None,
    method: str = "auto",
    chunk_size: int | None = None,
    memory_limit: float = MEMORY_LIMIT,
) -> Asked:
    """Checks the arguments that all per-sample functions have."""
    if method not in METHODS:
        raise ValueError(f"method= is one of {', '.join(map(repr, METHODS))}; got {method!r}.")
    if chunk_size is not None and (isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1):
        raise ValueError(f"chunk_size= is a positive number of rows, got {chunk_size!r}.")
    problem = pose(
        model, x, outputs={SINGLE: Output.of(output)}, layer=layer, weights=weights, sample_weight=sample_weight
    )
    extra = prepared(segments, num_segments, problem.batch_size)
    problem = replace(problem, extra=extra, extra_batched=frozenset({"segments"} & set(extra)))
    packing = None
    if extra and chunk_size is not None and (problem.batch_size is None or problem.batch_size > chunk_size):
        packing = packed(extra, chunk_size)
    return Asked(problem, method, chunk_size, memory_limit, packing)


def answer(
    kind: tuple[Any, ...], asked: Asked, problem: Problem, use: Use, check: Callable[[Notes], None] | None = None
) -> tuple[list[Any], list[str]]:
    """What `use` makes of the factors of one chunk, compiled where that is worthwhile, and the keys of the variables.

    Args:
        kind: says what `use` computes; can be hashed.
        asked: what this is a chunk of.
        problem: the chunk.
        use: from factors to tensors.
        check: looks at what tracing told, before anything runs.
    """

    def body(symbolic: Problem, notes: Notes) -> list[Any]:
        captured = capture_factors(symbolic, notes, asked.method)
        notes.listed = tuple(captured.factors)
        notes.bytes_per_sample = bytes_per_sample(captured)
        return use(symbolic, segmented(symbolic, captured))

    # Shapes and connections of no samples come from one sample of zeros, of which the caller keeps nothing.
    whole = one_of_zeros(problem) if problem.batch_size == 0 else problem
    results, notes = compiled.answer((*kind, asked.method), whole, body, check)
    return results, [problem.weights.keys[i] for i in notes.listed]


def slice_rows(problem: Problem, start: int, stop: int) -> Problem:
    """The question about rows `start … stop − 1`."""
    return replace(with_rows(problem, lambda array: array[start:stop]), batch_size=stop - start)


def _of_segments(problem: Problem, rows: Any, numbers: Any) -> Problem:
    """The question about these rows, which belong to whole segments."""
    some = replace(with_rows(problem, lambda array: tf.gather(array, rows)), batch_size=len(rows))
    count = tf.constant(int(numbers[-1]) + 1, tf.int32)
    return replace(some, extra={"segments": tf.constant(numbers), "num_segments": count})


def segmented(problem: Problem, captured: Captured) -> dict[int, Factor]:
    """The factors, of segments where there are any."""
    if "segments" not in problem.extra:
        return dict(captured.factors)
    ids, count = problem.extra["segments"], problem.extra["num_segments"]
    known = tf.get_static_value(count)
    count = count if known is None else int(known)
    return {i: Segmented(factor, ids, count) for i, factor in captured.factors.items()}


def bytes_per_sample(captured: Captured) -> int:
    """Memory that the factors take for each sample, where their sizes are known."""
    tensors = [tensor for factor in captured.factors.values() for tensor in factor.tensors]
    return sum((tensor.shape[1:].num_elements() or 0) * tensor.dtype.size for tensor in tensors)


def written_out_bytes(asked: Asked, notes: Notes) -> int:
    """Bytes for each sample of gradients that are written out."""
    variables = [asked.problem.weights.variables[i] for i in notes.listed]
    return sum(tf.TensorShape(v.shape).num_elements() * tf.as_dtype(v.dtype).size for v in variables)


def _text(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"
