"""Weights of samples stay in float32 in models that compute in float16 or bfloat16.

A weight of 1e-7, an advantage divided by N, is zero in float16, and small ones lose their digits. A cotangent of 1 for each
sample has none of that: the weights are multiplied afterwards, with the gradient of each sample or with its factors. Where
that cannot be done (a sum over samples of a layer without a closed form), the backward pass runs once for each range of sizes,
its cotangents scaled to about 1 by a power of two, which rounds nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.programs import backward
from rlgrad.gradients.programs.backward import cotangent, dense, require_connected, weight_for, wide
from rlgrad.gradients.programs.coupling import are_separate
from rlgrad.gradients.programs.program import Computed
from rlgrad.gradients.programs.surveys import survey
from rlgrad.gradients.programs.taps import record
from rlgrad.gradients.questions.question import SINGLE, ForwardPass, Question
from rlgrad.gradients.questions.recipes import OverTime

# Three ranges of 2⁸ each: what is smaller than the largest weight by more than 2²⁴ is lost in a float32 sum anyway.
_RANGES, _WIDTH = 3, 8


def is_concerned(question: Question) -> bool:
    """Return `True` if the question has weights, of samples or of steps, and its model computes in half precision."""
    weighted = question.sample_weight is not None or isinstance(question.recipes.get(SINGLE), OverTime)
    return weighted and keras_internals.computes_in_half(question.model)


@dataclass(frozen=True)
class Unweighted:
    """A question whose weights have been taken out.

    Args:
        question: the question without weights of samples; those of steps have the size of 1.
        sample_weight: the weights that the caller gave.
        size: powers of two, (N,), that f has been divided by; `None`: it has not.
    """

    question: Question
    sample_weight: Any
    size: Any

    @staticmethod
    def of(question: Question) -> "Unweighted":
        """Take the weights out of a question."""
        bare = replace(question, sample_weight=None)
        if not isinstance(question.recipes[SINGLE], OverTime):
            return Unweighted(bare, question.sample_weight, None)
        steps, *others = question.arrays[SINGLE]
        steps = wide(steps)
        largest = (
            tf.abs(steps)
            if steps.shape.rank < 2
            else tf.reduce_max(tf.abs(steps), axis=list(range(1, steps.shape.rank)))
        )
        size = _power_of_two(tf.broadcast_to(tf.cast(largest, tf.float32), tf.shape(question.leaves[0])[:1]))
        shape = [-1, *[1] * (steps.shape.rank - 1)] if steps.shape.rank else []
        divisor = tf.reshape(size if steps.shape.rank else _power_of_two(tf.cast(largest, tf.float32)), shape)
        arrays = {SINGLE: (steps / tf.cast(divisor, steps.dtype), *others)}
        return Unweighted(replace(bare, arrays=arrays), question.sample_weight, size)

    def value(self, value: Any) -> Any:
        """Return f, of f as the question without weights has it."""
        return value if self.size is None else value * tf.cast(self.size, value.dtype)

    def weight(self, value: Any, units: int = 0) -> Any:
        """Return the weights in float32 or wider, of the shape of f."""
        value = wide(value)
        weight = tf.ones_like(value)
        if self.sample_weight is not None:
            weight = cotangent(value, self.sample_weight, "sample_weight", self.question.batch_size, units)
        return weight if self.size is None else weight * tf.cast(self.size, weight.dtype)

    def of_rows(self) -> Any:
        """Return the weights, one for each sample."""
        return self.weight(tf.zeros(tf.shape(self.question.leaves[0])[:1]))


def without_weights(question: Question) -> tuple[Question, Unweighted | None]:
    """Return the question; if it `is_concerned`, without its weights, which are then multiplied with its results."""
    if not is_concerned(question):
        return question, None
    bare = Unweighted.of(question)
    return bare.question, bare


def weigh_rows(tensor: Any, weight: Any) -> Any:
    """Return a tensor (N, …) whose rows are multiplied by a weight (N,), in float32 or wider, in the tensor's dtype."""
    rows = wide(tensor)
    shape = tf.concat([tf.shape(weight), tf.ones([rows.shape.rank - 1], tf.int32)], axis=0)
    return tf.cast(rows * tf.reshape(tf.cast(weight, rows.dtype), shape), tensor.dtype)


def weigh_factor(factor: Factor, weight: Any) -> Factor:
    """Return the factor of c_n g_n: the last tensor of each kind of factor is the one that is linear in g."""
    *others, last = factor.tensors
    return factor.with_tensors([*others, weigh_rows(wide(last), weight)])


def weigh_results(computation: Callable[[Question], Computed]) -> Callable[[Question], Computed]:
    """Return the same computation of results with one row per sample, which multiplies them by the weights at its end."""

    def weighted(question: Question) -> Computed:
        bare, weights = without_weights(question)
        computed = computation(bare)
        if weights is None:
            return computed
        weight = weights.of_rows()
        return replace(computed, results=[weigh_rows(g, weight) for g in computed.results])

    return weighted


def value_and_sum(question: Question) -> Computed:
    """As `backward.value_and_sum`."""
    if not is_concerned(question):
        return backward.value_and_sum(question)
    if not are_separate(question):
        return _value_and_sum_in_ranges(question)
    bare = Unweighted.of(question)
    forward, recording = record(bare.question, survey(question).taps, bare.question.forward)
    value = forward.values[SINGLE]
    if value.shape.rank != 1:
        return _value_and_sum_in_ranges(question)
    weight = bare.weight(value)
    cotangents, free = recording.pull_back(value, tf.ones_like(value))
    factors = recording.factors(question, cotangents, set(free))
    require_connected(question, {*free, *factors})
    sums = {i: factor.vjp(tf.cast(weight, factor.tensors[-1].dtype)) for i, factor in factors.items()}
    if free:
        targets = [recording.sources[i] for i in free]
        rest = pull_back({SINGLE: value}, {SINGLE: weight}, targets, recording.tape)
        sums |= dict(zip(free, rest, strict=True))
    positions = tuple(sorted(sums))
    results = [tf.cast(sums[i], question.weights.variables[i].dtype) for i in positions]
    return Computed([tf.stop_gradient(bare.value(value)), *results], positions, forward.ranges)


def pull_back_rows(
    question: Question, weights: Unweighted | None, forward: ForwardPass, targets: Sequence[Any], tape: Any
) -> list[Any]:
    """Return c_n ∂f_n for each target, which has a row for each sample; `None` for one that f does not depend on.

    Args:
        question: see `without_weights`.
        weights: see `without_weights`.
        forward: the run of the model that made f.
        targets: tensors.
        tape: has seen how f is made; persistent if there are `weights`.
    """
    value, units = forward.values[SINGLE], forward.units[SINGLE]
    if weights is None:
        found: list[Any] = tape.gradient(value, targets, output_gradients=weight_for(question, value, units))
        return found
    weight = weights.weight(value, units)
    if value.shape.rank == 1:
        return [g if g is None else weigh_rows(g, weight) for g in tape.gradient(value, targets)]
    return pull_back({SINGLE: value}, {SINGLE: weight}, targets, tape)


def pull_back(values: Mapping[str, Any], weights: Mapping[str, Any], targets: Sequence[Any], tape: Any) -> list[Any]:
    """As `pull_back_wide`, in the dtypes of the targets."""
    total = pull_back_wide(values, weights, targets, tape)
    return [g if g is None else tf.cast(g, target.dtype) for g, target in zip(total, targets, strict=True)]


def pull_back_wide(
    values: Mapping[str, Any], weights: Mapping[str, Any], targets: Sequence[Any], tape: Any
) -> list[Any]:
    """Return Σ c · ∂f for each target, `None` for one that no f depends on: one backward pass for each range of sizes.

    Args:
        values: f, by name.
        weights: c, float32 or wider, of the shapes of f, by name; f without a weight do not count.
        targets: tensors or variables.
        tape: has seen how f is made; persistent.
    """
    names = list(weights)
    total: list[Any] = [None] * len(targets)
    for scale, cotangents in in_ranges([weights[name] for name in names]):
        parts = [tf.cast(c, values[name].dtype) for name, c in zip(names, cotangents, strict=True)]
        gradients = tape.gradient([values[name] for name in names], targets, output_gradients=parts)
        for i, (gradient, target) in enumerate(zip(gradients, targets, strict=True)):
            if gradient is not None:
                part = wide(dense(gradient, target))
                part *= tf.cast(scale, part.dtype)
                total[i] = part if total[i] is None else total[i] + part
    return total


def product_of_sizes_near_one(
    product: Callable[[list[Any], Any], list[Any]], tangent: Sequence[Any], weight: Any, dtypes: Sequence[Any]
) -> list[Any]:
    """Return a product that is linear in a tangent and in weights, both of which have the size of 1 on the way."""
    (v, size), ((weight,), size_of_weight) = near_one(tangent), near_one([weight])
    found = product([tf.cast(part, dtype) for part, dtype in zip(v, dtypes, strict=True)], weight)
    return [wide(p) * tf.cast(size, wide(p).dtype) * tf.cast(size_of_weight, wide(p).dtype) for p in found]


def near_one(tensors: Sequence[Any]) -> tuple[list[Any], Any]:
    """Return tensors divided by a power of two so that the largest number has the size of 1, and this power."""
    size = _power_of_two(_largest(tensors))
    return [x / tf.cast(size, x.dtype) for x in tensors], size


def rows_near_one(tensors: Sequence[Any]) -> tuple[list[Any], Any]:
    """Return tensors (N, …) whose rows are divided by powers of two so that they have the size of 1, and these powers, (N,)."""
    flat = [tf.abs(tf.cast(tf.reshape(x, [tf.shape(x)[0], -1]), tf.float32)) for x in tensors]
    size = _power_of_two(tf.reduce_max(tf.concat(flat, axis=1), axis=1))
    return [weigh_rows(x, 1.0 / size) for x in tensors], size


def _value_and_sum_in_ranges(question: Question) -> Computed:
    bare, sources = Unweighted.of(question), question.sources
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        forward = bare.question.forward()
    value = forward.values[SINGLE]
    weight = bare.weight(value, forward.units[SINGLE])
    gradients = pull_back({SINGLE: value}, {SINGLE: weight}, sources, tape)
    positions = tuple(i for i, gradient in enumerate(gradients) if gradient is not None)
    require_connected(question, positions)
    return Computed(
        [tf.stop_gradient(bare.value(value)), *(gradients[i] for i in positions)], positions, forward.ranges
    )


def in_ranges(weights: Sequence[Any]) -> list[tuple[Any, list[Any]]]:
    """Split weights into ranges of sizes. In each they are at most 2 after they are divided by the scale, or are 0."""
    top = _power_of_two(_largest(weights))
    found = []
    for k in range(_RANGES):
        scale = top * 2.0 ** (-_WIDTH * k)
        parts = []
        for c in weights:
            # What is not a number is in no range, and stays in the first.
            outside = tf.zeros_like(c, tf.bool)
            if k:
                outside = ~(tf.abs(c) < tf.cast(scale * 2.0, c.dtype))
            if k < _RANGES - 1:
                outside |= tf.abs(c) < tf.cast(scale * 2.0 ** (1 - _WIDTH), c.dtype)
            parts.append(tf.where(outside, tf.zeros_like(c), c / tf.cast(scale, c.dtype)))
        found.append((scale, parts))
    return found


def _largest(tensors: Sequence[Any]) -> Any:
    """Return the largest absolute value, float32."""
    return tf.reduce_max(tf.stack([tf.reduce_max(tf.abs(tf.cast(x, tf.float32))) for x in tensors]))


def _power_of_two(size: Any) -> Any:
    """Return powers of two of these sizes; 1 for 0 and what is not finite."""
    sane = tf.math.is_finite(size) & (size > 0.0)
    exponent = tf.cast(tf.floor(tf.math.log(tf.where(sane, size, 1.0)) / tf.math.log(2.0)), tf.int32)
    # Written bit by bit, since a rounded power would round what it divides; not so small that the last scale is 0.
    return tf.bitcast((tf.clip_by_value(exponent, -90, 100) + 127) * 2**23, tf.float32)
