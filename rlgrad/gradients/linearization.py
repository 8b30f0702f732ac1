"""A model's outputs at its current weights with their gradient: one forward pass, one backward pass per credit."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import tensorflow as tf

from rlgrad.gradients import compiled
from rlgrad.gradients.errors import DisconnectedGradientError
from rlgrad.gradients.heads import shape_text
from rlgrad.gradients.outputs import Output, OutputLike
from rlgrad.gradients.problem import SINGLE, Notes, Problem, pose
from rlgrad.gradients.selection import select_weights


class Linearization:
    """What a model says, and how each of its weights moves it. Made by `linearize`."""

    def __init__(self, problem: Problem, tape: Any, values: Mapping[str, Any], connected: Any = None) -> None:
        self._problem = problem
        self._tape = tape
        self._values = dict(values)
        # Which variables each output depends on, where the tape cannot tell: behind a compiled function it returns
        # zeros.
        self._connected: Mapping[str, frozenset[int]] | None = connected

    @property
    def outputs(self) -> Any:
        """The outputs' values, float (batch…), or a dict of them by name: plain numbers, which carry no gradient."""
        values = {name: tf.stop_gradient(value) for name, value in self._values.items()}
        return values.get(SINGLE, values)

    @property
    def variables(self) -> list[Any]:
        """The Keras variables, in the order of `model.trainable_variables`.

        Without `weights=`, those that at least one of the outputs depends on; else those that were named.
        """
        selected = self._problem.weights
        if selected.explicit:
            return list(selected.variables)
        if self._connected is None:
            gradients = self._tape.gradient(list(self._values.values()), self._problem.sources)
            positions = {i for i, gradient in enumerate(gradients) if gradient is not None}
        else:
            positions = set().union(*self._connected.values())
        return [variable for i, variable in enumerate(selected.variables) if i in positions]

    def gradient(self, credit: Any = None) -> dict[str, Any]:
        """Σ credit · ∇f, over all samples and all credited outputs, in one backward pass.

        Args:
            credit: how much each value counts: float, exactly the shape of `outputs`, or one number for all. For
                outputs with names a dict; an output that is left out does not count. Default: 1 for everything.

        Returns:
            For each variable its gradient, of the variable's shape, under the variable's path. Without `weights=`, the
            variables that a credited output depends on.

        Raises:
            DisconnectedGradientError: no credited output depends on a variable that was named; or on any variable.
            ValueError: the credit has a name that no output has, or another shape than the output.
        """
        selected, sources = self._problem.weights, self._problem.sources
        credits = _credits(self._values, credit)
        gradients = self._tape.gradient(
            [self._values[name] for name in credits], sources, output_gradients=list(credits.values())
        )
        if self._connected is None:
            positions = frozenset(i for i, gradient in enumerate(gradients) if gradient is not None)
        else:
            positions = frozenset().union(*(self._connected[name] for name in credits))
        require_connected(self._problem, positions, list(credits))
        return {
            key: dense(gradient, variable)
            for i, (key, variable, gradient) in enumerate(zip(selected.keys, sources, gradients, strict=True))
            if i in positions
        }

    def per_sample(self) -> dict[str, Any]:
        """∇f of each sample by itself: for each variable (N, *variable.shape); for named outputs a dict of such dicts.

        Raises:
            DisconnectedGradientError: an output does not depend on a variable that was named, or on any.
            ValueError: an output has not exactly one number per sample.
        """
        from rlgrad.gradients.asking import MEMORY_LIMIT, Asked  # they are built on this file
        from rlgrad.gradients.per_sample import per_sample_of

        results = {
            name: per_sample_of(Asked(only(self._problem, name), "auto", None, MEMORY_LIMIT)) for name in self._values
        }
        return results.get(SINGLE, results)


def linearize(
    model: Any,
    x: Any,
    *,
    output: OutputLike | Mapping[str, OutputLike] = None,
    layer: Any = None,
    weights: Any = None,
) -> Linearization:
    """Runs the model once and keeps what is needed to differentiate what it said.

    Inside a `tf.function`, also with `jit_compile=True`, this is one forward pass and each `.gradient(credit)` one
    backward pass, as a hand-written tape would be. Called eagerly, the forward pass is compiled once per model and
    question, and later calls reuse it for any number of rows.

    Args:
        model: a built Keras model. It is run with `training=False`, and left as it was.
        x: its input, (N, …), or a dict or list of arrays.
        output: what to differentiate (see `gradient`), or a dict of such, of which one pass computes all.
        layer: a layer's name, position or the layer, to differentiate its output in place of the model's.
        weights: with respect to what (see `gradient`).

    Returns:
        A `Linearization`: `.outputs`, `.gradient(credit)`, `.per_sample()`, `.variables`.

    Raises:
        TypeError, ValueError: the question is wrong; the message says what was expected, what came and what to do.

    Example:
        >>> lin = linearize(policy, x, output={"log_prob": LogProb(actions), "value": "value"})
        >>> credit = returns - lin.outputs["value"]
        >>> gradients = lin.gradient({"log_prob": credit, "value": 0.5 * credit})
    """
    if isinstance(output, Mapping):
        if not output:
            raise ValueError("output={} names nothing to differentiate.")
        outputs = {name: Output.of(spec) for name, spec in output.items()}
        if SINGLE in outputs:
            raise ValueError("The empty name is taken for outputs without a name; choose another.")
    else:
        outputs = {SINGLE: Output.of(output)}
    problem = pose(model, x, outputs=outputs, layer=layer, weights=weights)
    if not compiled.worthwhile(problem):
        return linearize_here(problem, Notes())
    program = compiled.program("forward", problem, _forward)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(problem.sources)
        values = program(problem)
    return Linearization(problem, tape, values, program.notes.connected)


def linearize_here(problem: Problem, notes: Notes) -> Linearization:
    """Linearizes with the operations of the current context, eager or traced."""
    # In a traced function a persistent tape costs nothing: what it keeps are symbols, and unused ones are pruned.
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(problem.sources)
        values = problem.forward(notes)
    return Linearization(problem, tape, values)


def only(problem: Problem, name: str) -> Problem:
    """The same question about one of several outputs."""
    return replace(
        problem,
        recipes={SINGLE: problem.recipes[name]},
        arrays={SINGLE: problem.arrays[name]},
        batched={SINGLE: problem.batched[name]},
    )


def require_connected(problem: Problem, positions: Iterable[int], names: Iterable[str] = ()) -> None:
    """Raises where a named variable, or every variable, is not among the connected `positions`.

    Raises:
        DisconnectedGradientError: with what is not connected, and what is.
    """
    selected, connected = problem.weights, set(positions)
    missing = [key for i, key in enumerate(selected.keys) if i not in connected]
    if not missing or (connected and not selected.explicit):
        return
    named = [repr(name) for name in names if name != SINGLE]
    what = f"The outputs {', '.join(named)} do" if len(named) > 1 else " ".join(["The output", *named, "does"])
    if not selected.explicit:
        raise DisconnectedGradientError(
            f"{what} not depend on any trainable weight of model {problem.model.name!r}. Is there a stop_gradient, a "
            "NumPy conversion or an argmax on the way, or is layer= a layer before all weights?"
        )
    present = _connected_keys(problem, list(names) or [SINGLE])
    raise DisconnectedGradientError(
        f"{what} not depend on these of the chosen weights: {', '.join(missing)}. Connected are: "
        f"{', '.join(present) or 'none'}. Without weights= the result has all weights that the output depends on."
    )


def _connected_keys(problem: Problem, names: list[str]) -> list[str]:
    """All trainable variables that the outputs depend on, for a message: one more pass of the model."""
    everything = (
        replace(problem, weights=select_weights(problem.model, None)) if problem.model.trainable_variables else problem
    )
    lin = linearize_here(everything, Notes())
    gradients = lin._tape.gradient([lin._values[name] for name in names], everything.sources)
    return [key for key, gradient in zip(everything.weights.keys, gradients, strict=True) if gradient is not None]


def dense(gradient: Any, variable: Any) -> Any:
    """A gradient as a tensor of the variable's shape; an embedding's comes as slices, possibly several of one row."""
    if isinstance(gradient, tf.IndexedSlices):
        gradient = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, variable.shape[0])
    return gradient


def cotangent(value: Any, credit: Any, what: str, batch_size: int | None = None) -> Any:
    """A credit as a tensor of the value's dtype and shape.

    Raises:
        TypeError: it is no number.
        ValueError: it is neither one number nor of the value's shape.
    """
    credit = tf.cast(tf.convert_to_tensor(credit), value.dtype)
    if credit.shape.rank == 0:
        return tf.fill(tf.shape(value), credit) if value.shape.rank != 0 else credit
    if not credit.shape.is_compatible_with(value.shape):
        raise ValueError(
            f"{what} must have the output's shape {shape_text(value.shape, batch_size)}, got "
            f"{shape_text(credit.shape, batch_size)}."
        )
    return credit


def weight_for(problem: Problem, value: Any) -> Any:
    """The question's sample weights as a cotangent of `value`; 1 where there are none."""
    if problem.sample_weight is None:
        return tf.ones_like(value)
    return cotangent(value, problem.sample_weight, "sample_weight", problem.batch_size)


def _credits(values: Mapping[str, Any], credit: Any) -> dict[str, Any]:
    """Cotangents by output name."""
    if credit is None:
        return {name: tf.ones_like(value) for name, value in values.items()}
    if SINGLE in values:
        if isinstance(credit, Mapping):
            raise ValueError(
                "This linearization has one output without a name; give its credit as it is, not in a dict."
            )
        return {SINGLE: cotangent(values[SINGLE], credit, "The credit")}
    if not isinstance(credit, Mapping):
        raise ValueError(f"The credit for outputs with names is a dict with keys among {list(values)}; got {credit!r}.")
    for name in credit:
        if name not in values:
            close = get_close_matches(str(name), list(values), n=1)
            meant = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(map(repr, values))}."
            raise ValueError(f"No output is called {name!r}, so it cannot be credited. {meant}")
    if not credit:
        raise ValueError(f"The credit is empty: no output counts. Outputs: {', '.join(map(repr, values))}.")
    return {name: cotangent(values[name], c, f"The credit of {name!r}") for name, c in credit.items()}


def _forward(problem: Problem, notes: Notes) -> dict[str, Any]:
    """The forward pass as it is compiled. Differentiating it here only says what depends on what; it is never run."""
    lin = linearize_here(problem, notes)
    for name, value in lin._values.items():
        gradients = lin._tape.gradient(value, problem.sources)
        notes.connected[name] = frozenset(i for i, gradient in enumerate(gradients) if gradient is not None)
    require = frozenset().union(*notes.connected.values())
    if not require:
        require_connected(problem, require, problem.recipes)
    return lin._values
