"""The part that the per-sample functions share: a question about each sample, answered in chunks within a memory limit."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import tensorflow as tf

from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.closed_forms.segments import Packing, Segmented, pack_segments, prepare_segments
from rlgrad.gradients.programs.answers import Answer
from rlgrad.gradients.programs.factorization import METHODS, factorize
from rlgrad.gradients.programs.program import Computation, Computed, compute, cut_rows
from rlgrad.gradients.programs.whole_batch import runs_on
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.question import Question

MEMORY_LIMIT = 2e9

R = TypeVar("R")
# From a question with symbols, and the factors of its variables by position, to tensors.
Contraction = Callable[[Question, dict[int, Factor]], list[Any]]


@dataclass(frozen=True)
class SampleQuestion:
    """A question about each sample.

    Args:
        question: the question; segments, if any, are in its `extra`.
        method: see `factorize`.
        chunk_size: the largest number of rows to compute at once; `None`: all.
        memory_limit: bytes.
        packing: the chunks of whole segments, if there are both segments and chunks.
    """

    question: Question
    method: str
    chunk_size: int | None
    memory_limit: float
    packing: Packing | None = None

    @property
    def chunks(self) -> Iterator[Question]:
        """The question about at most `chunk_size` rows at a time, or about more if one segment has more."""
        if self.packing is not None:
            yield from (_question_about_segments(self.question, rows, ids) for rows, ids in self.packing.chunks)
            return
        rows, size = self.question.batch_size, self.chunk_size
        if size is None or (rows is not None and rows <= size):
            yield self.question
            return
        if rows is None:
            raise ValueError(
                "chunk_size= needs a batch size that is known when tracing; give the input a static shape."
            )
        for start in range(0, rows, size):
            yield slice_rows(self.question, start, min(rows, start + size))

    def answer(
        self,
        kind: Sequence[Hashable],
        contract: Contraction,
        pack: Callable[[list[str], list[Any]], R],
        check: Callable[[Computed], None] | None = None,
    ) -> Answer[R]:
        """Answer the question, chunk by chunk.

        Args:
            kind: see `compute`.
            contract: see `compute`.
            pack: makes the caller's result of the keys of the variables and the joined results.
            check: see `compute`.
        """
        parts = [self.compute(kind, chunk, contract, check) for chunk in self.chunks]
        keys = [self.question.weights.keys[i] for i in parts[0].positions]
        results = [self.join(rows) for rows in zip(*(part.results for part in parts), strict=True)]
        program = parts[0].program if len(parts) == 1 and not self.question.extra else None
        return Answer(Computed(results, program=program), lambda results: pack(keys, results))

    def compute(
        self,
        kind: Sequence[Hashable],
        chunk: Question,
        contract: Contraction,
        check: Callable[[Computed], None] | None = None,
        without_rows: Callable[[Any], Any] = cut_rows,
    ) -> Computed:
        """Compute the tensors that `contract` makes of the factors of one chunk.

        Args:
            kind: the name of the computation.
            chunk: one of `chunks`.
            contract: from factors to tensors.
            check: looks at the facts before a program runs. Default: the factors fit into memory.
            without_rows: see `program.compute`.
        """
        method = self.method

        def computation(question: Question) -> Computed:
            factorization = factorize(question, method)
            return factorization.computed(contract(question, _segment(question, factorization.factors)))

        def require_memory_of_factors(computed: Computed) -> None:
            if chunk.batch_size is not None:
                self.require_memory(
                    chunk.batch_size * computed.bytes_per_sample,
                    f"The inputs and cotangents of the layers for {chunk.batch_size} samples",
                    f"Give chunk_size={max(1, int(self.memory_limit / 2 / max(1, computed.bytes_per_sample)))}.",
                )

        check = require_memory_of_factors if check is None else check
        return self.compute_as((*kind, method), chunk, computation, check=check, without_rows=without_rows)

    def compute_as(self, kind: Hashable, chunk: Question, computation: Computation, **options: Any) -> Computed:
        """Compute the results for one chunk, as `program.compute` does.

        Raises:
            ValueError: the model runs on the whole batch, but not on a chunk of it.
        """
        try:
            return compute(kind, chunk, computation, **options)
        except Exception as error:
            whole, rows = self.question.batch_size, chunk.batch_size
            if self.chunk_size is None or not rows or not whole or rows == whole:
                raise
            if runs_on(chunk, rows) or not runs_on(chunk, whole):
                raise
            raise ValueError(
                f"Model {chunk.model.name!r} runs on its whole batch of {whole} rows, but not on {rows}, so that "
                f"chunk_size={self.chunk_size} is not possible. Leave chunk_size= out."
            ) from error

    def join(self, parts: Sequence[Any], axis: int = 0) -> Any:
        """Return the results of the chunks as one, with a row for each sample or segment."""
        whole = parts[0] if len(parts) == 1 else tf.concat(parts, axis=axis)
        return whole if self.packing is None else self.packing.spread(whole, axis)

    def require_memory(self, size: float, what: str, advice: str) -> None:
        """Raise if `size` bytes are more than the limit."""
        require_memory(size, self.memory_limit, what, advice)


def require_memory(size: float, limit: float, what: str, advice: str) -> None:
    """Raise if `size` bytes are more than the limit.

    Raises:
        MemoryError: with the size, and advice what to ask instead.
    """
    if size > limit:
        raise MemoryError(f"{what} would take {_text(size)}, more than memory_limit={_text(limit)}. {advice}")


def ask_samples(
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
) -> SampleQuestion:
    """Check the arguments that all per-sample functions have, and return the question that they ask."""
    if method not in METHODS:
        raise ValueError(f"method= is one of {', '.join(map(repr, METHODS))}; got {method!r}.")
    if chunk_size is not None and (isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1):
        raise ValueError(f"chunk_size= is a positive number of rows, got {chunk_size!r}.")
    question = ask(model, x, outputs=output, layer=layer, weights=weights, sample_weight=sample_weight)
    packing = None
    if segments is not None or num_segments is not None:
        rows = question.batch_size
        extra = prepare_segments(segments, num_segments, rows)
        question = replace(question, extra=extra, extra_batched=frozenset({"segments"}))
        if chunk_size is not None and (rows is None or rows > chunk_size):
            packing = pack_segments(extra, chunk_size)
    return SampleQuestion(question, method, chunk_size, memory_limit, packing)


def slice_rows(question: Question, start: int, stop: int) -> Question:
    """Return the question about rows `start … stop − 1`."""
    return question.with_rows(lambda array: array[start:stop], batch_size=stop - start)


def _question_about_segments(question: Question, rows: Any, ids: Any) -> Question:
    """Return the question about these rows, which are whole segments with these ids."""
    some = question.with_rows(lambda array: tf.gather(array, rows), batch_size=len(rows))
    count = tf.constant(int(ids[-1]) + 1, tf.int32)
    return replace(some, extra={**some.extra, "segments": tf.constant(ids), "num_segments": count})


def _segment(question: Question, factors: Any) -> dict[int, Factor]:
    """Return the factors; if the question has segments, those of segments."""
    if "segments" not in question.extra:
        return dict(factors)
    ids, count = question.extra["segments"], question.extra["num_segments"]
    known = tf.get_static_value(count)
    count = count if known is None else int(known)
    return {i: Segmented(factor, ids, count) for i, factor in factors.items()}


def _text(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"
