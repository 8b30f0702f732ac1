"""Sums over per-sample gradients of a model, from which diagnostics are computed: norms, means and squares.

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
from rlgrad.gradients.questions.outputs import OutputLike

Sums = dict[str, Any]


class Moments(NamedTuple):
    """Norms and mean of the gradients g_n of N samples.

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
    """Sums of the scores s_n and of h_n = R_n s_n, for N samples. Squares are taken of each component.

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


class Samples:
    """The outputs of a model for each sample, ready to be differentiated: one forward and one backward pass for all methods.

    Args:
        model: see `gradients.gradient`.
        x: see `gradients.gradient`.
        output: f, see `gradients.gradient`; for a policy `LogProb(actions)`.
        weights: see `gradients.gradient`.
        mask: bool or float (N,): rows where it is 0 are padding and no samples. `None`: all rows count.
        segments: int (N,), from 0: rows with the same number are one sample.
        num_segments: number of segments. `None`: the largest number plus one.

    Raises:
        ValueError: `mask` or `segments` has not one number a row; and what `gradients.linearize` raises.

    Example:
        >>> samples = Samples(policy, observations, output=LogProb(actions))
        >>> m = samples.moments(advantages)
        >>> noise_scale(m.total, squared_norm(m.mean)).batch_size
    """

    def __init__(
        self,
        model: Any,
        x: Any,
        *,
        output: OutputLike = None,
        weights: Any = None,
        mask: Any = None,
        segments: Any = None,
        num_segments: int | None = None,
    ) -> None:
        self._model, self._x, self._output, self._weights = model, x, Output.of(output), weights
        self._lin = gradients.linearize(model, x, output=self._output, weights=weights)
        rows = tf.shape(self._lin.outputs)
        self._counted = tf.fill(rows, True) if mask is None else tf.cast(_one_a_row(mask, self._lin, "mask"), tf.bool)
        self._segments: Any = None
        self.count = tf.math.count_nonzero(self._counted, dtype=tf.int32)
        if segments is not None:
            numbers = tf.cast(_one_a_row(segments, self._lin, "segments"), tf.int32)
            self._segments = tf.where(self._counted, numbers, -1)
            self.count = tf.reduce_max(self._segments) + 1 if num_segments is None else num_segments

    def moments(self, sample_weight: Any = 1.0) -> Moments:
        """Return norms and mean of the gradients g_n = c_n ∇θ f(x_n).

        Args:
            sample_weight: c, float (N,) of each row, or one number.

        Returns:
            `Moments`. With segments, g_s = Σ c_n ∇f(x_n) over the rows of segment s, of which a gradient of no rows is 0.

        Raises:
            ValueError: `sample_weight` has not one number a row.
        """
        credit = self._credit(sample_weight)
        total = self._lin.gradient(credit)
        if self._segments is None:
            of_layers = self._lin.norm(per="layer", squared=True)
            norms = {layer: tf.boolean_mask(credit * credit * n, self._counted) for layer, n in of_layers.items()}
        else:
            layers = gradients.by_layer(total)

            def of_segment(number: Any) -> Sums:
                rows, segment = self._rows_of(number)
                by_layer = gradients.by_layer(segment.gradient(_pick(credit, rows)))
                return {layer: sum(tf.reduce_sum(tf.square(g)) for g in by_layer[layer].values()) for layer in layers}

            signature = {layer: next(iter(of.values())).dtype for layer, of in layers.items()}
            norms = tf.map_fn(of_segment, tf.range(self.count), fn_output_signature=signature)
        return Moments(norms, self._over_count(total))

    def score_moments(self, returns: Any) -> ScoreMoments:
        """Return the sums that baselines are computed from: of the scores s_n = ∇θ f(x_n) and of R_n s_n, squared by component.

        Args:
            returns: R, float (N,), of each row. With segments, a segment's score is the sum of its rows', and the sum of
                its rows' R_n ∇f takes the place of R_n s_n. Where returns differ by much less than they are, take their mean
                off first, and add it to the baseline: the sums are float32.

        Returns:
            `ScoreMoments`.

        Raises:
            ValueError: `returns` has not one number a row.
        """
        ones, credit = self._credit(1.0), self._credit(returns)
        score, credited = self._lin.gradient(ones), self._lin.gradient(credit)
        if self._segments is None:
            sums = [self._lin.sum_of_squares(c) for c in (ones, credit, credit * credit)]
        else:
            nothing = {key: tf.zeros_like(g) for key, g in score.items()}

            def add(sums: list[Sums], number: Any) -> list[Sums]:
                rows, segment = self._rows_of(number)
                s, h = segment.gradient(_pick(ones, rows)), segment.gradient(_pick(credit, rows))
                terms = [{k: a[k] * b[k] for k in a} for a, b in ((s, s), (s, h), (h, h))]
                return [{k: total[k] + term[k] for k in total} for total, term in zip(sums, terms, strict=True)]

            sums = tf.foldl(add, tf.range(self.count), initializer=[nothing, nothing, nothing])
        squares, products, squared_returns = sums
        mean_score, mean = self._over_count(score), self._over_count(credited)
        return ScoreMoments(self.count, squares, products, squared_returns, mean_score, mean)

    def inner_products(self, direction: Mapping[str, Any], sample_weight: Any = 1.0) -> Any:
        """Return c_n ∇θ f(x_n) · v of each row: how much it pulls along v. One forward-mode product.

        Args:
            direction: v, by variable path, as `gradients.gradient` returns it; usually the mean gradient.
            sample_weight: c, float (N,) of each row, or one number.

        Returns:
            float (N,), one for each row, also with segments; 0 for padding. A segment's is the sum of its rows'.

        Raises:
            ValueError: `direction` is of other variables; `sample_weight` has not one number a row.
        """
        credit = self._credit(sample_weight)
        return tf.where(self._counted, credit * self._lin.jvp(direction), 0.0)

    def _credit(self, sample_weight: Any) -> Any:
        """Return the weights, with zeros for padding whatever they hold there."""
        outputs = self._lin.outputs
        credit = tf.cast(tf.convert_to_tensor(sample_weight), outputs.dtype)
        if credit.shape.rank == 0:
            credit = tf.fill(tf.shape(outputs), credit)
        return tf.where(self._counted, _one_a_row(credit, self._lin, "sample_weight"), 0.0)

    def _rows_of(self, number: Any) -> tuple[Any, Any]:
        """Return one segment's rows and the model at them; row 0 is appended, so that there always is a row."""
        rows = tf.where(self._segments == number)[:, 0]
        with_first = tf.concat([rows, [0]], axis=0)

        def take(array: Any) -> Any:
            return tf.gather(tf.convert_to_tensor(array), with_first)

        whole = self._output
        arrays = [take(a) if batched else a for a, batched in zip(whole.arrays, whole.batched, strict=True)]
        output = Output(whole.recipe, arrays, whole.batched)
        x = tf.nest.map_structure(take, self._x)
        return rows, gradients.linearize(self._model, x, output=output, weights=self._weights)

    def _over_count(self, total: Sums) -> Sums:
        return {key: g / tf.cast(self.count, g.dtype) for key, g in total.items()}


def _pick(credit: Any, rows: Any) -> Any:
    """Return the credit of a segment's rows, and 0 for the row that `_rows_of` appends."""
    return tf.concat([tf.gather(credit, rows), tf.zeros([1], credit.dtype)], axis=0)


def _one_a_row(values: Any, lin: gradients.Linearization, name: str) -> Any:
    values, shape = tf.convert_to_tensor(values), lin.outputs.shape
    if not values.shape.is_compatible_with(shape):
        raise ValueError(f"{name} has one number a row, shape {tuple(shape)}, got shape {tuple(values.shape)}.")
    return values
