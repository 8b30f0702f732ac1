"""A model's outputs at its current weights with their gradient: one forward pass, one backward pass per credit."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from rlgrad.gradients import norms
from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.factored import Factored, row_weights
from rlgrad.gradients.programs import compiled
from rlgrad.gradients.programs.backward import credits_by_name, credits_for, dense, require_connected, tangents_for
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.posing import pose
from rlgrad.gradients.questions.problem import SINGLE, Notes, Problem, placed


class Linearization:
    """What a model says, and how each of its weights moves it. Made by `linearize`."""

    def __init__(self, problem: Problem, tape: Any, values: Mapping[str, Any], connected: Any = None) -> None:
        self._problem = problem
        self._tape = tape
        self._values = dict(values)
        self._factored = Factored(problem, self._values)
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
        credits = credits_for(self._values, credit)
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

    def per_sample(self, *, segments: Any = None, num_segments: int | None = None) -> dict[str, Any]:
        """∇f of each sample by itself: for each variable (N, *variable.shape); for named outputs a dict of such dicts.

        Args:
            segments: int (N,), from 0: rows with the same number are summed, and there is one row per segment. This and
                the other methods that look at samples ask the model once; nothing after that runs it again.
            num_segments: number of segments; default the largest number plus one.

        Raises:
            DisconnectedGradientError: an output does not depend on a variable that was named, or on any.
            MemoryError: the result would take more than 2 GB; `per_sample_gradient` has a limit to raise.
            ValueError: an output has not exactly one number per sample.
        """

        def use(factors: dict[str, Factor]) -> dict[str, Any]:
            self._factored.require_memory(factors)
            return {key: tf.cast(factor.per_sample(), self._dtype(key)) for key, factor in factors.items()}

        found: dict[str, Any] = self._for_each_output(use, segments, num_segments)
        return found

    def norm(
        self, per: str = "model", *, squared: bool = False, segments: Any = None, num_segments: int | None = None
    ) -> Any:
        """‖∇f‖ of each sample, (N,); see `per_sample_norm`. For named outputs a dict of these."""
        norms.require_per(per)

        def use(factors: dict[str, Factor]) -> Any:
            result = norms.norms(factors, per, squared)
            return result[""] if per == "model" else result

        return self._for_each_output(use, segments, num_segments)

    def gram(self, *, segments: Any = None, num_segments: int | None = None) -> Any:
        """J Jᵀ, (N, N); see `gram`. For named outputs a dict of these."""
        return self._for_each_output(lambda f: norms.gram_of(f.values(), f.values()), segments, num_segments)

    def jvp(self, tangent: Mapping[str, Any]) -> Any:
        """J v: how fast f of each sample grows when the weights move along v; (N,), for named outputs a dict of these.

        Args:
            tangent: v, for each variable that the output depends on a tensor of its shape, as `gradient` returns it.

        Raises:
            ValueError: other keys or shapes.
        """

        def use(factors: dict[str, Factor]) -> Any:
            directions = tangents_for(self._problem, tangent, list(factors))
            parts = [
                factor.jvp(tf.cast(v, factor.tensors[-1].dtype))
                for v, factor in zip(directions, factors.values(), strict=True)
            ]
            return tf.add_n(norms.alike(parts))

        return self._for_each_output(use)

    def vjp(self, credit: Any = None) -> dict[str, Any]:
        """Jᵀ c = Σ credit · ∇f, as `gradient`, but from what the layers were given: the model does not run again.

        Args:
            credit: as for `gradient`, (N,).
        """
        result: dict[str, Any] = {}
        for name, c in credits_for(self._values, credit).items():
            for key, factor in self._factored.of(name).items():
                part = tf.cast(factor.vjp(tf.cast(c, factor.tensors[-1].dtype)), self._dtype(key))
                result[key] = result[key] + part if key in result else part
        return {key: result[key] for key in self._problem.weights.keys if key in result}

    def sum_of_squares(self, credit: Any = None, *, segments: Any = None, num_segments: int | None = None) -> Any:
        """Σ_n c_n (∇f_n)²: the diagonal of the empirical Fisher matrix, and what component-wise baselines need.

        Args:
            credit: c, float (N,), or (S,) with segments; for named outputs a dict. Default 1.
            segments: see `per_sample`: rows are summed before they are squared.
            num_segments: see `per_sample`.

        Returns:
            For each variable a tensor of its shape; for named outputs a dict of such dicts.
        """
        results = {}
        for name, c in credits_by_name(self._values, credit).items():
            factors = self._factored.of(name, segments, num_segments)
            results[name] = {key: factor.sum_of_squares(row_weights(factor, c)) for key, factor in factors.items()}
        return results.get(SINGLE, results)

    def fisher_vector_product(
        self, v: Mapping[str, Any], *, sample_weight: Any = 1.0, damping: Any = 0.0
    ) -> dict[str, Any]:
        """F v + damping · v, F = Σ_n c_n E_a[∇ log π(a|s_n) ∇ log π(a|s_n)ᵀ]: over all actions, not the sampled ones.

        Which distribution: that of a `LogProb` or `Entropy` among the outputs, else the model's own.

        Args:
            v: a direction, for each variable that the distribution depends on a tensor of its shape.
            sample_weight: c, float (batch…) or one number; 1/N for a mean. Default 1.
            damping: times v, is added.

        Returns:
            A dict like v.

        Raises:
            DisconnectedGradientError: the distribution does not depend on a variable that was named.
            NotImplementedError: a distribution without a method `fisher_product`.
            ValueError: v has other keys or shapes.
        """
        return self._factored.fisher_vector_product(v, sample_weight, damping)

    def at(self, weights: Mapping[str, Any]) -> "Linearization":
        """The same question at other weights; the model keeps its own.

        Args:
            weights: values of variables, under their paths; those left out stay as they are.

        Raises:
            ValueError: a key that no variable has, or another shape than the variable's.
        """
        return start(placed(self._problem, weights))

    def _for_each_output(
        self, use: Callable[[dict[str, Factor]], Any], segments: Any = None, num_segments: Any = None
    ) -> Any:
        results = {name: use(self._factored.of(name, segments, num_segments)) for name in self._values}
        return results.get(SINGLE, results)

    def _dtype(self, key: str) -> Any:
        selected = self._problem.weights
        return tf.as_dtype(selected.variables[selected.keys.index(key)].dtype)


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
        A `Linearization`: `.outputs`, `.variables`, `.gradient(credit)`, `.per_sample()`, `.norm()`, `.gram()`, `.jvp(v)`,
        `.vjp(c)`, `.sum_of_squares(c)`, `.fisher_vector_product(v)`, `.at(weights)`; each computed only if asked.

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
    return start(pose(model, x, outputs=outputs, layer=layer, weights=weights))


def start(problem: Problem) -> Linearization:
    """Linearizes, compiled where that is worthwhile."""
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
