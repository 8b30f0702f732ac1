"""A matrix of pairs of samples: the question about its columns, and the blocks that chunks of rows and columns make of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad.gradients.programs.backward import wide
from rlgrad.gradients.programs.cache import cache_of
from rlgrad.gradients.programs.program import Computed
from rlgrad.gradients.programs.whole_batch import runs_on
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import Question
from rlgrad.gradients.samples import SampleQuestion, ask_samples


def output_at_y(y: Any, output: OutputLike, output_y: OutputLike, target: Any, target_y: Any) -> OutputLike:
    """Return f at y, with its targets there.

    Raises:
        ValueError: there are targets of x, and none of y.
    """
    if target_y is not None:
        return Output.of(output if output_y is None else output_y, target=target_y)
    if target is not None and y is not None and output_y is None:
        raise ValueError("target= belongs to x; the targets of y are missing: target_y=.")
    return output_y


def other_question(
    asked: SampleQuestion, y: Any, output_y: Any, output: Any, options: Mapping[str, Any]
) -> SampleQuestion | None:
    """Return the question about the columns of a Gram matrix; `None` if they are the rows.

    Args:
        asked: that about the rows.
        y: the input of the columns, or `None`.
        output_y: the output there; `None`: as for the rows.
        output: that of the rows.
        options: the other arguments of `ask_samples`.

    Raises:
        ValueError: options that contradict each other.
    """
    if y is None:
        if output_y is not None:
            raise ValueError("output_y= and target_y= are about y, but y is missing.")
        return None
    if asked.question.sample_weight is not None or "segments" in asked.question.extra:
        raise ValueError("sample_weight= and segments= belong to x; a Gram matrix of x and y takes neither.")
    if output_y is None and any(output.batched):
        raise ValueError("output= has a row for each sample of x; say what it is at y: output_y= (or target_y=).")
    output_y = output if output_y is None else Output.of(output_y)
    other = ask_samples(asked.question.model, y, output=output_y, sample_weight=None, **options)
    if not _differ_only_in_rows(asked.question, other.question):
        raise ValueError("output_y= must be the same kind of output as output=, only with other rows.")
    return other


def matrix_of_blocks(
    asked: SampleQuestion,
    rows: list[Question],
    other: SampleQuestion | None,
    square: Callable[[SampleQuestion, Question], Computed],
    pair: Callable[[SampleQuestion, Question, Question], Any],
) -> Any:
    """Return a matrix from its blocks: `square` gives those on the diagonal, `pair` those of two chunks of rows."""
    if other is not None:
        return tf.concat([tf.concat([pair(asked, a, b) for b in other.chunks], axis=1) for a in rows], axis=0)
    blocks: list[list[Any]] = []
    for i, a in enumerate(rows):  # symmetric: the blocks left of the diagonal are those above it
        left = [tf.transpose(blocks[j][i]) for j in range(i)]
        right = [pair(asked, a, b) for b in rows[i + 1 :]]
        blocks.append([*left, square(asked, a).results[0], *right])
    return asked.join([asked.join(row, axis=1) for row in blocks])


def matrix_of_pair(
    a: Question, b: Question, together: Callable[[Question], Any], written_out: Callable[[Question], Sequence[Any]]
) -> Any:
    """Return the inner products of the rows of `a` with those of `b`: of one pass of both if the model takes both at once.

    A model that runs at its own batch size only takes one after the other.

    Args:
        a: the question about the rows.
        b: that about the columns.
        together: makes the matrix of the question about both.
        written_out: gradients with a row for each row or column, (R, …), by variable.
    """
    cache, m, n = cache_of(a.model), a.batch_size, b.batch_size
    apart = (cache.state(a.model), "apart", m, n)
    if apart not in cache.surveys:
        try:
            return together(both_chunks(a, b))
        except Exception:
            if m is None or n is None or runs_on(a, m + n) or not (runs_on(a, m) and runs_on(b, n)):
                raise
            cache.surveys[apart] = True
    rows, columns = ([tf.reshape(wide(g), [tf.shape(g)[0], -1]) for g in written_out(each)] for each in (a, b))
    return tf.add_n([tf.matmul(p, q, transpose_b=True) for p, q in zip(rows, columns, strict=True)])


def both_chunks(a: Question, b: Question) -> Question:
    """Return the question about the rows of `a` and then those of `b`; `extra["split"]` is the number of the former."""
    both = a.with_numbers(
        [tf.concat([p, q], axis=0) if batched else p for (p, batched), (q, _) in zip(a.numbers, b.numbers, strict=True)]
    )
    rows = None if a.batch_size is None or b.batch_size is None else a.batch_size + b.batch_size
    split = tf.shape(a.leaves[0])[0] if a.batch_size is None else tf.constant(a.batch_size)
    sizes = {"split": split} | ({"num_below": b.extra["num_segments"]} if "num_segments" in b.extra else {})
    return replace(both, batch_size=rows, extra={**both.extra, **sizes})


def static(number: Any) -> Any:
    """Return a number as an int, if it is known when tracing."""
    known = None if number is None else tf.get_static_value(number)
    return number if known is None else int(known)


def _differ_only_in_rows(a: Question, b: Question) -> bool:
    """Return `True` if two questions differ only in tensors that have a batch axis."""
    same = all(
        p is q or batched or np.array_equal(tf.get_static_value(p), tf.get_static_value(q))
        for (p, batched), (q, _) in zip(a.numbers, b.numbers, strict=False)
    )
    return a.recipes == b.recipes and len(a.numbers) == len(b.numbers) and same
