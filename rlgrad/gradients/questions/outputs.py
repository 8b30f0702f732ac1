"""The outputs that can be differentiated: each is one number per sample, computed from what a model returns.

Those that are vectors are in `vector_outputs`.

An `Output` is two things: a recipe (hashable, says how to compute the number, and is part of the key of a compiled
program) and arrays (actions, unit numbers, scales; passed to the program at each call).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad.gradients.questions.custom import Custom, require_arguments, target_leaves
from rlgrad.gradients.questions.policy_recipes import DistributionEntropy, LogProbability, by_value
from rlgrad.gradients.questions.question import SINGLE
from rlgrad.gradients.questions.recipes import OverTime, Recipe, Sum, Unit, Whole


class Output:
    """A number or a vector per sample that a model computes, to be differentiated. Outputs add, subtract and scale.

    `Output.of(...)` makes one of anything that `output=` accepts, so that it can be added and scaled:
    `LogProb(actions) + 0.5 * Output.of("value")`. Strings, unit numbers and functions that are added to an output need
    no wrapping.
    """

    def __init__(self, recipe: Recipe, arrays: Sequence[Any] = (), batched: Sequence[bool] = ()) -> None:
        self.recipe = recipe
        self.arrays = tuple(arrays)
        self.batched = tuple(batched)

    @staticmethod
    def of(selection: Any = None, *, unit: Any = None, target: Any = None) -> "Output":
        """Return an output from anything that `output=` accepts.

        Args:
            selection: `None` (the model's only output, summed over its units), a head's name, a unit number, an int
                array (N,) of one unit per sample, a function from what the model returns to (N,), or an `Output`.
            unit: a unit number or int array (N,), of the head that `selection` names.
            target: with a function, its second argument: an array with a row for each sample, or a tree of such arrays.

        Raises:
            TypeError: it is none of these; a function of two arguments without a target, or of one with a target.
        """
        if target is not None:
            return _of_function(selection, target)
        if unit is not None:
            if not (selection is None or isinstance(selection, str)):
                raise TypeError(f"unit= goes with the name of a head, got {selection!r}.")
            return Output(Unit(selection), *_units(unit))
        if isinstance(selection, Output):
            return selection
        if selection is None or isinstance(selection, str):
            return Output(Whole(selection))
        if isinstance(selection, int | np.integer | np.ndarray | list | tuple) or tf.is_tensor(selection):
            return Output(Unit(None), *_units(selection))
        if callable(selection):
            return _of_function(selection)
        raise TypeError(
            "output= takes None, a unit number, an int array of one unit per sample, a head's name, LogProb(actions), "
            f"Entropy(), sums and scalings of these, or a function; got {type(selection).__name__}."
        )

    def __add__(self, other: Any) -> "Output":
        return _combine((1.0, self), (1.0, Output.of(other)))

    def __radd__(self, other: Any) -> "Output":
        # sum([...]) begins with the integer 0, which here means nothing rather than unit 0.
        return self if isinstance(other, int) and other == 0 else _combine((1.0, Output.of(other)), (1.0, self))

    def __sub__(self, other: Any) -> "Output":
        return _combine((1.0, self), (-1.0, Output.of(other)))

    def __rsub__(self, other: Any) -> "Output":
        return _combine((1.0, Output.of(other)), (-1.0, self))

    def __mul__(self, scale: Any) -> "Output":
        return _combine((scale, self))

    __rmul__ = __mul__
    # NumPy must leave `array * output` to this class instead of making an array of outputs.
    __array_ufunc__ = None
    __array_priority__ = 1000

    def __truediv__(self, scale: Any) -> "Output":
        return _combine((1.0 / scale, self))

    def __neg__(self) -> "Output":
        return _combine((-1.0, self))

    def tensors(self, model: Any) -> list[Any]:
        """Return the arrays as checked tensors."""
        return self.recipe.prepare(model, self.arrays)


class LogProb(Output):
    """log π(a|s) of the given actions under the distribution that the model parametrizes.

    Args:
        actions: int (N,) for a categorical distribution, float (N, *shape) for a Gaussian; further leading axes where
            the model's own inputs have them.
        distribution: the distribution that the model's output parametrizes. Default: the model's attribute
            `distribution`, else `Categorical` on logits (N, K).
        head: the name of the output that holds the parameters. Default: `"policy"` if a model has several outputs, else
            its only one.

    Raises:
        TypeError: float actions without a distribution, or actions of a dtype that the distribution does not take.
        ValueError: actions that the distribution cannot have, or of another length than the inputs; a Keras model that
            ends in a softmax or sigmoid although logits are needed.
    """

    def __init__(self, actions: Any, distribution: Any = None, *, head: str | None = None) -> None:
        super().__init__(LogProbability(head, by_value(distribution)), (actions,), (True,))


class Entropy(Output):
    """H(π(·|s)), in nats, of the distribution that the model parametrizes.

    Args:
        distribution: the distribution that the model's output parametrizes; default as for `LogProb`.
        head: the name of the output that holds the parameters; default as for `LogProb`.
    """

    def __init__(self, distribution: Any = None, *, head: str | None = None) -> None:
        super().__init__(DistributionEntropy(head, by_value(distribution)))


class PerSequence(Output):
    """Σ_t w_t f_t: one number for each sequence, made of an output that has one number for each step.

    With it a sequence is one sample of `per_sample_gradient`, `per_sample_norm`, `gram` and other per-sample functions.

    Args:
        output: f, (N, T): `LogProb(actions)`, a head's name, or anything else that `output=` accepts.
        weights: w, float (N, T), or one number.

    Example:
        >>> scores = per_sample_gradient(policy, policy.inputs(rollout), output=PerSequence(LogProb(actions), advantages))
    """

    def __init__(self, output: Any, weights: Any = 1.0) -> None:
        term = Output.of(output)
        has_axes = len(weights.shape if tf.is_tensor(weights) else np.shape(weights)) > 0
        super().__init__(OverTime(term.recipe), (weights, *term.arrays), (has_axes, *term.batched))


def named_outputs(output: Any, target: Any = None) -> dict[str, Output]:
    """Return a caller's `output=`, a dict of outputs or one, as a dict; one without a name has the empty name.

    Raises:
        TypeError: a target beside a dict.
        ValueError: an empty dict, or an empty name.
    """
    if not isinstance(output, Mapping):
        return {SINGLE: Output.of(output, target=target)}
    if not output:
        raise ValueError("output={} names nothing to differentiate.")
    if target is not None:
        raise TypeError("target= is of one output; in a dict each has its own: Output.of(function, target=…).")
    outputs = {name: Output.of(spec) for name, spec in output.items()}
    if SINGLE in outputs:
        raise ValueError("The empty name is taken for outputs without a name; choose another.")
    return outputs


def _of_function(function: Any, target: Any = None) -> Output:
    if isinstance(function, Output) or not callable(function):
        raise TypeError(
            "target= is the second argument of a function given as output=, such as lambda y, target: "
            f"keras.losses.mean_squared_error(target, y); output= is of type {type(function).__name__}."
        )
    require_arguments(function, 1 if target is None else 2)
    if target is None:
        return Output(Custom(function))
    leaves, structure = target_leaves(target)
    return Output(Custom(function, repr(structure), structure), leaves, [True] * len(leaves))


def _units(unit: Any) -> tuple[tuple[Any], tuple[bool]]:
    if isinstance(unit, bool):
        raise TypeError("A unit is an integer, got a bool.")
    units = unit if tf.is_tensor(unit) else np.asarray(unit)
    if not tf.as_dtype(units.dtype).is_integer:
        raise TypeError(
            f"Units are integers, got {units.dtype}. Weights per unit go into a function: output=lambda y: "
            "tf.linalg.matvec(y, c)."
        )
    return (units,), (len(units.shape) > 0,)


def _combine(*terms: tuple[Any, Output]) -> Output:
    arrays: list[Any] = []
    batched: list[bool] = []
    for scale, output in terms:
        if isinstance(scale, str | bytes | Output) or len(scale.shape if tf.is_tensor(scale) else np.shape(scale)):
            raise TypeError(
                "An output is scaled by one number. Numbers per sample are its weights: sample_weight=, or the credit."
            )
        arrays += [scale, *output.arrays]
        batched += [False, *output.batched]
    counts = tuple(len(output.arrays) for _, output in terms)
    return Output(Sum(tuple(output.recipe for _, output in terms), counts), arrays, batched)


OutputLike = Output | None | int | str | Sequence[int] | np.ndarray | Callable[[Any], Any] | Any
