"""The sum of gradients that are clipped one by one."""

from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad.core.autograph import as_written
from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.norms import groups, norms, require_per
from rlgrad.gradients.programs.answers import Answer, Beside, answer
from rlgrad.gradients.programs.program import Computed
from rlgrad.gradients.questions.inputs import as_tensor
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import Question
from rlgrad.gradients.samples import MEMORY_LIMIT, ask_samples


@as_written
def clipped_gradient(
    model: Any,
    x: Any,
    *,
    max_norm: Any,
    output: OutputLike = None,
    target: Any = None,
    layer: Any = None,
    weights: Any = None,
    sample_weight: Any = None,
    per: str = "model",
    segments: Any = None,
    num_segments: int | None = None,
    method: str = "auto",
    chunk_size: int | None = None,
    memory_limit: float = MEMORY_LIMIT,
) -> dict[str, Any]:
    """Σ_n min(1, C / ‖g_n‖) g_n, with g_n = c_n ∇θ f(x_n): each sample's gradient is made no longer than C, then they add up.

    What differentially private training adds its noise to, and what keeps one sample from deciding an update. No gradient
    of a layer with a closed form is written out: one forward and one backward pass give the norms (see `per_sample_norm`),
    and then the sum. Weights that a sample uses several times count with their whole gradient.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        max_norm: C, one positive number. Another one compiles nothing.
        output: see `gradient`.
        target: see `gradient`.
        layer: see `gradient`.
        weights: see `gradient`; the norm is over these.
        sample_weight: see `gradient`; it multiplies a gradient before this is clipped.
        per: `"model"`: one norm over all weights; `"layer"`, `"variable"`: each layer's or variable's part is clipped to C
            by itself.
        segments: see `per_sample_gradient`; rows of one segment (the samples of one user, the steps of one trajectory)
            are summed before they are clipped.
        num_segments: see `per_sample_gradient`.
        method: see `per_sample_gradient`.
        chunk_size: see `per_sample_gradient`.
        memory_limit: bytes that the layers' inputs and cotangents may take.

    Returns:
        For each variable a tensor of its shape, under its path. A gradient that is not finite, or whose squared norm is
        not, makes the sum not a number: it cannot be clipped.

    Raises:
        BatchCoupledError: the model mixes its samples.
        MemoryError: all rows together would take more than `memory_limit`.
        ValueError: `max_norm` is not one positive number; another `per`; and as `per_sample_gradient`.

    Example:
        >>> g = clipped_gradient(model, x, max_norm=1.0, output=lambda y, t: losses(y, t), target=labels)
        >>> noisy = {path: (v + sigma * tf.random.normal(v.shape)) / len(x) for path, v in g.items()}
    """
    return answer(
        _clipped_gradient,
        model,
        x,
        Output.of(output, target=target),
        sample_weight,
        beside=Beside("max_norm", _positive(max_norm)),
        layer=layer,
        weights=weights,
        per=per,
        segments=segments,
        num_segments=num_segments,
        method=method,
        chunk_size=chunk_size,
        memory_limit=memory_limit,
    )


def _clipped_gradient(model: Any, x: Any, *, max_norm: Any, per: str, **options: Any) -> Answer[dict[str, Any]]:
    require_per(per)
    asked = ask_samples(model, x, **options)
    question = asked.question
    asked = replace(asked, question=replace(question, extra={**question.extra, "max_norm": as_tensor(max_norm)}))
    keys, dtypes = question.weights.keys, [tf.as_dtype(variable.dtype) for variable in question.weights.variables]

    def contract(question: Question, factors: dict[int, Factor]) -> list[Any]:
        scales = _scales({keys[i]: factor for i, factor in factors.items()}, per, question.extra["max_norm"])
        return [
            tf.cast(factor.vjp(tf.cast(scales[keys[i]], factor.tensors[-1].dtype)), dtypes[i])
            for i, factor in factors.items()
        ]

    def of_no_rows(results: list[Any]) -> list[Any]:
        return list(map(tf.zeros_like, results))

    parts: list[Computed] = [
        asked.compute(("clipped", per), chunk, contract, without_rows=of_no_rows) for chunk in asked.chunks
    ]
    found = [keys[i] for i in parts[0].positions]
    sums = [tf.add_n(each) for each in zip(*(part.results for part in parts), strict=True)] if len(parts) > 1 else None
    computed = parts[0] if sums is None else Computed(sums)
    return Answer(computed, lambda results: dict(zip(found, results, strict=True)))


def _scales(factors: dict[str, Factor], per: str, max_norm: Any) -> dict[str, Any]:
    """Return min(1, C / ‖g_n‖) for each row, by the key of each variable."""
    scales: dict[str, Any] = {}
    for name, square in norms(factors, per, squared=True).items():
        c = tf.cast(max_norm, square.dtype)
        longer = square > tf.square(c)
        # Where nothing is clipped, nothing is divided: a gradient of length 0 has derivatives too.
        shrunk = tf.minimum(c * tf.math.rsqrt(tf.where(longer, square, tf.ones_like(square))), 1.0)
        scale = tf.where(longer, shrunk, tf.ones_like(square))
        # The square of a length of 1e20 is infinite in float32; such a sample must not be left out without a word.
        known = tf.math.is_finite(square) & (c > 0)
        scale = tf.where(known, scale, tf.fill(tf.shape(square), tf.constant(float("nan"), square.dtype)))
        scales |= dict.fromkeys(groups(factors, per)[name], scale)
    return scales


def _positive(max_norm: Any) -> Any:
    """Return C in float32: an array if it is one of Python's numbers, else a tensor.

    Raises:
        ValueError: it is not one positive number.
    """
    plain = isinstance(max_norm, int | float)
    c = np.asarray(max_norm, np.float32) if plain else tf.cast(as_tensor(max_norm), tf.float32)
    known = c if plain else tf.get_static_value(c)
    if len(c.shape) != 0 or (known is not None and not known > 0):
        raise ValueError(f"max_norm= is one positive number, got {max_norm!r}.")
    return c
