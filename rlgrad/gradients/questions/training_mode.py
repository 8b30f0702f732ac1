"""Training mode: the seeds that a model's layers draw from, and the statistics that a pass would move."""

from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from rlgrad import random
from rlgrad.core import keras_internals
from rlgrad.gradients.questions.selection import keys_of

PROBE_SEED = np.zeros(2, np.int32)
"""A seed where any will do."""


class Mode(NamedTuple):
    """How a model runs.

    Attributes:
        training: in training mode.
        seed: what its layers draw from then; `None`: none of them may draw.
    """

    training: bool = False
    seed: Any = None


INFERENCE = Mode()


def as_mode(training: bool, seed: Any) -> Mode:
    """Return the mode that a caller's `training=` and `seed=` say.

    Raises:
        TypeError: `training` is neither `True` nor `False`.
        ValueError: a seed without training.
    """
    if training is False and seed is None:
        return INFERENCE
    if not isinstance(training, bool):
        raise TypeError(f"training= is True or False, and the model is traced for it; got {type(training).__name__}.")
    if not training:
        raise ValueError("seed= is what layers draw from in training mode: pass training=True, or leave it out.")
    return Mode(training, seed)


def as_seed(seed: Any) -> Any:
    """Return a caller's seed as a tensor, int32 (2,).

    Raises:
        TypeError: it is neither an integer nor integers.
        ValueError: a negative integer, one of more than 64 bits, or another shape than (2,).
    """
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed= is an integer from 0 to 2⁶⁴ − 1, or int32 (2,); got {seed}.")
        high, low = divmod(int(seed), 2**32)
        return tf.constant(np.array([high, low], np.uint32).view(np.int32))
    tensor = seed if tf.is_tensor(seed) else tf.convert_to_tensor(np.asarray(seed))
    if not tensor.dtype.is_integer:
        raise TypeError(f"seed= is an integer, or int32 (2,); got {tensor.dtype.name}.")
    if not tensor.shape.is_compatible_with((2,)):
        raise ValueError(f"seed= is an integer, or int32 (2,); got the shape {tuple(tensor.shape)}.")
    return tf.cast(tensor, tf.int32)


def placed_seeds(model: Any, seed: Any) -> list[tuple[Any, Any]]:
    """Return the states of the model's generators of random numbers, each with the value that it takes of a seed.

    The i-th generator gets `random.fold_in(seed, i)`, so that layers draw independent numbers.
    """
    if seed is None:
        return []
    states = keras_internals.seed_states(model)
    return [(state, tf.cast(random.fold_in(seed, i), state.dtype)) for i, state in enumerate(states)]


def statistics(model: Any, seed: Any, before: Mapping[int, Any], after: Mapping[int, Any]) -> dict[str, Any]:
    """Return what a run assigned to variables of the model that are not trained and draw nothing, by their keys.

    Args:
        model: the model.
        seed: `None`: the run was not to draw random numbers.
        before: the values that variables had in place of their own before the run, by the variables' ids.
        after: likewise after it.

    Raises:
        ValueError: it has drawn some without a seed; with the layers that did.
    """
    moved = {variable for variable, value in after.items() if value is not before.get(variable)}
    seeds = {id(state) for state in keras_internals.seed_states(model)}
    if seed is None and moved & seeds:
        _refuse_draws(model, moved)
    still = seeds | {id(variable) for variable in model.trainable_variables}
    return {key: after[id(v)] for v, key in keys_of(model) if id(v) in moved - still}


def _refuse_draws(model: Any, moved: Set[int]) -> None:
    names = [
        f"{layer.name!r} ({type(layer).__name__})"
        for layer in [model, *keras_internals.all_layers(model)]
        if moved & {id(generator.state) for generator in keras_internals.seed_generators(layer)}
    ]
    raise ValueError(
        f"Model {model.name!r} draws random numbers in training mode, in {', '.join(names) or 'its own code'}: pass seed=, an "
        "integer or int32 (2,), so that the same seed gives the same numbers."
    )
