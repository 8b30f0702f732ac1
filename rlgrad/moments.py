"""From a model to the sums that diagnostics are made of: norms, means and squares of per-sample gradients.

Where the model's layers have closed forms, none of these writes out the N · P numbers of all gradients. A sample is a row
of the input, or with `segments=` a group of rows, whose gradients are added before anything is squared: the steps of one
episode. A segment's gradient is one weighted gradient of its rows, so that all S of them cost as much as one backward pass
over all rows, where pairs of rows (the Gram matrix) would cost N times as much.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from rlgrad import gradients
from rlgrad.gradients import Output
from rlgrad.gradients.outputs import OutputLike

Sums = dict[str, Any]


class Moments(NamedTuple):
    """Of the gradients g_n of N samples.

    Attributes:
        squared_norms: ‖g_n‖² by layer (as `gradients.by_layer` names them), each float (N,).
        mean: ḡ = Σ_n g_n / N, by variable path, of each variable's shape.
    """

    squared_norms: dict[str, Any]
    mean: Sums

    @property
    def total(self) -> Any:
        """‖g_n‖² over all layers, float (N,)."""
        return sum(self.squared_norms.values())


class ScoreMoments(NamedTuple):
    """Of the scores s_n and of h_n = R_n s_n, for N samples. Squares are of each component by itself.

    Attributes:
        count: N.
        squares: Σ_n s_n².
        products: Σ_n s_n h_n, which is Σ_n R_n s_n².
        squared_returns: Σ_n h_n², which is Σ_n R_n² s_n².
        mean_score: Σ_n s_n / N.
        mean: Σ_n h_n / N.
    """

    count: Any
    squares: Sums
    products: Sums
    squared_returns: Sums
    mean_score: Sums
    mean: Sums


def moments(
    model: Any,
    x: Any,
    *,
    output: OutputLike = None,
    weights: Any = None,
    sample_weight: Any = None,
    mask: Any = None,
    segments: Any = None,
    num_segments: int | None = None,
) -> Moments:
    """Norms and mean of the gradients g_n = c_n ∇θ f(x_n).

    Args:
        model: see `gradients.gradient`.
        x: see `gradients.gradient`.
        output: see `gradients.gradient`.
        weights: see `gradients.gradient`.
        sample_weight: c, float (N,); default 1.
        mask: bool or float (N,): rows where it is 0 are padding and no samples; default: all count.
        segments: int (N,), from 0: rows with the same number are one sample.
        num_segments: how many segments there are; default: the largest number plus one.

    Returns:
        `Moments`.

    Raises:
        ValueError: what `gradients.per_sample_norm` raises.
    """
    credit, counted = _credit(x, sample_weight, mask)
    lin = gradients.linearize(model, x, output=output, weights=weights)
    total = lin.gradient(credit)
    if segments is None:
        of_layers = lin.norm(per="layer", squared=True)
        norms = {layer: tf.boolean_mask(credit * credit * norm, counted) for layer, norm in of_layers.items()}
        count = tf.math.count_nonzero(counted)
    else:
        ids, count = _segments(segments, num_segments, counted)
        layers = gradients.by_layer(total)

        def of_segment(number: Any) -> Sums:
            segment, rows = _rows_of(model, x, output, weights, ids, number)
            by_layer = gradients.by_layer(segment.gradient(_pick(credit, rows)))
            return {layer: sum(map(_square, by_layer[layer].values())) for layer in layers}

        signature = {layer: next(iter(of.values())).dtype for layer, of in layers.items()}
        norms = tf.map_fn(of_segment, tf.range(count), fn_output_signature=signature)
    return Moments(norms, _over(total, count))


def score_moments(
    model: Any,
    x: Any,
    returns: Any,
    *,
    output: OutputLike = None,
    weights: Any = None,
    mask: Any = None,
    segments: Any = None,
    num_segments: int | None = None,
) -> ScoreMoments:
    """What baselines are made of: sums over samples of the scores s_n = ∇θ f(x_n) and of R_n s_n, squared by component.

    Args:
        model: see `moments`.
        x: see `moments`.
        returns: R, float (N,), of each row. With segments, a segment's score is the sum of its rows', and the sum of its
            rows' R_n ∇f takes the place of R_n s_n.
        output: f, usually `LogProb(actions)`.
        weights: see `moments`.
        mask: see `moments`.
        segments: see `moments`.
        num_segments: see `moments`.

    Returns:
        `ScoreMoments`.

    Raises:
        ValueError: what `gradients.linearize` raises.
    """
    credit, counted = _credit(x, returns, mask)
    ones = tf.cast(counted, credit.dtype)
    lin = gradients.linearize(model, x, output=output, weights=weights)
    score, credited = lin.gradient(ones), lin.gradient(credit)
    if segments is None:
        count = tf.math.count_nonzero(counted)
        squares = [lin.sum_of_squares(c) for c in (ones, credit, credit * credit)]
    else:
        ids, count = _segments(segments, num_segments, counted)
        nothing = {key: tf.zeros_like(g) for key, g in score.items()}

        def add(sums: list[Sums], number: Any) -> list[Sums]:
            segment, rows = _rows_of(model, x, output, weights, ids, number)
            s, h = segment.gradient(_pick(ones, rows)), segment.gradient(_pick(credit, rows))
            terms = [{k: a[k] * b[k] for k in a} for a, b in ((s, s), (s, h), (h, h))]
            return [{k: total[k] + term[k] for k in total} for total, term in zip(sums, terms, strict=True)]

        squares = tf.foldl(add, tf.range(count), initializer=[nothing, nothing, nothing])
    own, crossed, of_returns = squares
    return ScoreMoments(count, own, crossed, of_returns, _over(score, count), _over(credited, count))


def inner_products(
    model: Any,
    x: Any,
    direction: Mapping[str, Any],
    *,
    output: OutputLike = None,
    weights: Any = None,
    sample_weight: Any = None,
    mask: Any = None,
) -> Any:
    """g_n · v of each row's gradient g_n = c_n ∇θ f(x_n): how much it pulls along v. One forward-mode product.

    Args:
        model: see `moments`.
        x: see `moments`.
        direction: v, by variable path, as `gradients.gradient` returns it; usually the mean gradient.
        output: see `moments`.
        weights: see `moments`.
        sample_weight: see `moments`.
        mask: see `moments`; rows where it is 0 give 0.

    Returns:
        float (N,), one for each row, padding included.

    Raises:
        ValueError: `direction` is of other variables; what `gradients.linearize` raises.
    """
    credit, _ = _credit(x, sample_weight, mask)
    lin = gradients.linearize(model, x, output=output, weights=weights)
    return tf.where(credit != 0.0, credit * lin.jvp(direction), 0.0)


def _credit(x: Any, sample_weight: Any, mask: Any) -> tuple[Any, Any]:
    """The weights c with zeros where the mask is, and the mask as bool; both (N,)."""
    shape = tf.shape(tf.nest.flatten(x)[0])[:1]
    credit = tf.cast(tf.convert_to_tensor(1.0 if sample_weight is None else sample_weight), tf.float32)
    credit = tf.broadcast_to(credit, shape) if credit.shape.rank == 0 else credit
    counted = tf.fill(shape, True) if mask is None else tf.cast(mask, tf.bool)
    counted = tf.ensure_shape(counted, credit.shape)
    return tf.where(counted, credit, 0.0), counted


def _segments(segments: Any, num_segments: int | None, counted: Any) -> tuple[Any, Any]:
    """Ids (N,), −1 for rows that do not count, and how many segments there are."""
    ids = tf.where(counted, tf.cast(segments, tf.int32), -1)
    return ids, tf.reduce_max(ids) + 1 if num_segments is None else num_segments


def _rows_of(model: Any, x: Any, output: Any, weights: Any, ids: Any, number: Any) -> tuple[Any, Any]:
    """The model linearized at one segment's rows and, so that there always is one, at row 0 again; and the rows."""
    rows = tf.where(ids == number)[:, 0]
    with_first = tf.concat([rows, [0]], axis=0)

    def take(array: Any) -> Any:
        return tf.gather(tf.convert_to_tensor(array), with_first)

    chosen = Output.of(output)
    arrays = [take(a) if b else a for a, b in zip(chosen.arrays, chosen.batched, strict=True)]
    chosen = Output(chosen.recipe, arrays, chosen.batched)
    return gradients.linearize(model, tf.nest.map_structure(take, x), output=chosen, weights=weights), rows


def _pick(credit: Any, rows: Any) -> Any:
    """The credit of a segment's rows, and 0 for the row that `_rows_of` appends."""
    return tf.concat([tf.gather(credit, rows), [0.0]], axis=0)


def _square(g: Any) -> Any:
    return tf.reduce_sum(tf.square(g))


def _over(total: Sums, count: Any) -> Sums:
    return {key: g / tf.cast(count, g.dtype) for key, g in total.items()}
