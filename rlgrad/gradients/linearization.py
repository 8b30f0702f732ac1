"""A model's outputs at its current weights, with their gradient: one forward pass, and one backward pass per credit."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.gradients import norms
from rlgrad.gradients.curvature import hessian_product
from rlgrad.gradients.gauss_newton import gauss_newton_product
from rlgrad.gradients.lazy_factors import LazyFactors
from rlgrad.gradients.programs.answers import read_call
from rlgrad.gradients.programs.backward import credits_for, dense, require_connected, require_repeatable
from rlgrad.gradients.programs.half_precision import pull_back
from rlgrad.gradients.programs.program import Computed, Program, is_compilable, program_for
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.inputs import as_weight
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import SINGLE, Question, place


class Linearization:
    """A model's outputs and their derivatives with respect to its weights. Made by `linearize`."""

    def __init__(
        self, question: Question, tape: Any, values: Mapping[str, Any], half: bool, connected: Any = None
    ) -> None:
        self._question = question
        self._half = half  # the model computes in half precision, where credits would lose their digits
        self._tape = tape
        self._values = dict(values)
        self._factors = LazyFactors(question, self._values)
        # The variables that each output depends on, by position. `None`: the tape tells. Of a compiled program it
        # cannot tell, since it returns zeros.
        self._connected: Mapping[str, frozenset[int]] | None = connected

    @property
    def outputs(self) -> Any:
        """The outputs' values, float (batch…), or a dict of them by name; they carry no gradient."""
        values = {name: tf.stop_gradient(value) for name, value in self._values.items()}
        return values.get(SINGLE, values)

    @property
    def variables(self) -> list[Any]:
        """The Keras variables, in the order of `model.trainable_variables`.

        Without `weights=`, those that at least one of the outputs depends on; else the named ones.
        """
        selected = self._question.weights
        if selected.explicit:
            return list(selected.variables)
        if self._connected is None:
            gradients = self._tape.gradient(list(self._values.values()), self._question.sources)
            positions = {i for i, gradient in enumerate(gradients) if gradient is not None}
        else:
            positions = set().union(*self._connected.values())
        return [variable for i, variable in enumerate(selected.variables) if i in positions]

    def gradient(self, credit: Any = None) -> dict[str, Any]:
        """Σ credit · ∇f, over all samples and all credited outputs, in one backward pass.

        Args:
            credit: the weight of each value: float, exactly the shape of `outputs`, or one number for all. For outputs
                with names a dict; an output that is left out does not count. Default: 1 for all.

        Returns:
            For each variable its gradient, of the variable's shape, under the variable's path. Without `weights=`, the
            variables that a credited output depends on.

        Raises:
            DisconnectedGradientError: no credited output depends on a variable that was named, or on any variable.
            ValueError: the credit has a name that no output has, or another shape than the output.
        """
        selected, sources = self._question.weights, self._question.sources
        credits = credits_for(self._values, credit)
        if self._half:
            gradients = pull_back(self._values, credits, sources, self._tape)
        else:
            gradients = self._tape.gradient(
                [self._values[name] for name in credits], sources, output_gradients=list(credits.values())
            )
        if self._connected is None:
            positions = frozenset(i for i, gradient in enumerate(gradients) if gradient is not None)
        else:
            positions = frozenset().union(*(self._connected[name] for name in credits))
        require_connected(self._question, positions, list(credits))
        return {
            key: dense(gradient, variable)
            for i, (key, variable, gradient) in enumerate(zip(selected.keys, sources, gradients, strict=True))
            if i in positions
        }

    def per_sample(self, *, segments: Any = None, num_segments: int | None = None) -> dict[str, Any]:
        """∇f of each sample by itself: for each variable (N, *variable.shape); for named outputs a dict of such dicts.

        The first of the per-sample methods runs the model once; those after it do not run it again. All of them raise
        `BatchCoupledError` if the model mixes its samples.

        Args:
            segments: int (N,), from 0: rows with the same number are summed, and there is one row per segment.
            num_segments: the number of segments; default the largest number plus one.

        Raises:
            DisconnectedGradientError: an output does not depend on a variable that was named, or on any variable.
            MemoryError: the result would take more than 2 GB; `per_sample_gradient` has a limit to raise.
            ValueError: an output has not exactly one number per sample.
        """
        return self._factors.per_sample(segments, num_segments)

    def norm(
        self, per: str = "model", *, squared: bool = False, segments: Any = None, num_segments: int | None = None
    ) -> Any:
        """‖∇f‖ of each sample, (N,); see `per_sample_norm`. For named outputs a dict of these."""
        return self._factors.contract(norms.norms_of(per, squared), segments, num_segments)

    def gram(self, *, segments: Any = None, num_segments: int | None = None) -> Any:
        """J Jᵀ, (N, N); see `gram`. For named outputs a dict of these."""
        return self._factors.contract(lambda f: norms.gram_of(f.values(), f.values()), segments, num_segments)

    def jvp(self, tangent: Mapping[str, Any]) -> Any:
        """J v: the derivative of f of each sample along v; (N,), for named outputs a dict of these.

        Args:
            tangent: v, a dict as `gradient` returns it: for each variable that the output depends on a tensor.

        Raises:
            ValueError: other keys or shapes.
        """
        return self._factors.jvp(tangent)

    def vjp(self, credit: Any = None) -> dict[str, Any]:
        """Jᵀ c = Σ credit · ∇f, as `gradient`, but from the recorded inputs of the layers: no further backward pass.

        Args:
            credit: as for `gradient`, (N,).
        """
        return self._factors.vjp(credit)

    def sum_of_squares(self, credit: Any = None, *, segments: Any = None, num_segments: int | None = None) -> Any:
        """Σ_n c_n (∇f_n)²: the diagonal of the empirical Fisher matrix; component-wise baselines use it.

        Args:
            credit: c, float (N,), or (S,) with segments; for named outputs a dict. Default 1.
            segments: see `per_sample`; rows are summed before they are squared.
            num_segments: see `per_sample`.

        Returns:
            For each variable a tensor of its shape; for named outputs a dict of such dicts.
        """
        return self._factors.sum_of_squares(credit, segments, num_segments)

    def fisher_vector_product(
        self, v: Mapping[str, Any], *, sample_weight: Any = 1.0, damping: Any = 0.0
    ) -> dict[str, Any]:
        """F v + damping · v, F = Σ_n c_n E_a[∇ log π(a|s_n) ∇ log π(a|s_n)ᵀ]: over all actions, not the sampled ones.

        π is the distribution of a `LogProb` or `Entropy` among the outputs, else the model's own.

        Args:
            v: a direction: for each variable that the distribution depends on a tensor of its shape.
            sample_weight: c, float (batch…) or one number; 1/N for a mean. Default 1.
            damping: the factor of v that is added.

        Returns:
            A dict like v.

        Raises:
            DisconnectedGradientError: the distribution does not depend on a variable that was named.
            NotImplementedError: the distribution has no method `fisher_product`.
            ValueError: v has other keys or shapes.
        """
        return self._factors.fisher_vector_product(v, sample_weight, damping)

    def hessian_vector_product(self, v: Mapping[str, Any], credit: Any = None) -> dict[str, Any]:
        """Σ credit · ∇²f v, over all samples and all credited outputs; see `hessian_vector_product`.

        Args:
            v: a direction, as `gradient(credit)` returns one.
            credit: as for `gradient`.
        """
        answered = hessian_product(self._question, v, credits_for(self._values, credit))
        return answered.pack(answered.computed.results)

    def gauss_newton_vector_product(
        self, v: Mapping[str, Any], *, loss: Any, target: Any = None, sample_weight: Any = None
    ) -> dict[str, Any]:
        """G v, G being the Gauss-Newton matrix of a loss of what the model returns; see `gauss_newton_vector_product`."""
        weight = None if sample_weight is None else as_weight(sample_weight)
        return gauss_newton_product(replace(self._question, sample_weight=weight), v, loss, target)

    def at(self, weights: Mapping[str, Any]) -> "Linearization":
        """The same question at other weights; the model keeps its own.

        Args:
            weights: values of variables, under their paths; variables that are left out keep their value.

        Raises:
            ValueError: a key that no variable has, or another shape than the variable's.
        """
        question = place(self._question, weights)
        if not is_compilable(question):
            return _linearize_directly(question)
        return _linearize_with(program_for("forward", question, _connections), question)


def linearize(
    model: Any,
    x: Any,
    *,
    output: OutputLike | Mapping[str, OutputLike] = None,
    target: Any = None,
    layer: Any = None,
    weights: Any = None,
) -> Linearization:
    """Run the model once, and keep what is needed to differentiate its outputs.

    Inside a `tf.function`, also with `jit_compile=True`, this is one forward pass and each `.gradient(credit)` one
    backward pass, as a hand-written tape would be. Called eagerly, the forward pass is compiled once per model and
    question, and later calls reuse it for any number of rows.

    Args:
        model: a built Keras model. Run with `training=False`, and left as it was.
        x: its input, (N, …), or a dict or list of arrays.
        output: the output to differentiate (see `gradient`), or a dict of outputs, which one pass computes all.
        target: see `gradient`; in a dict of outputs each has its own: `Output.of(function, target=…)`.
        layer: a layer's name, its position or the layer, to differentiate its output instead of the model's.
        weights: see `gradient`.

    Returns:
        A `Linearization`: `.outputs`, `.variables`, `.gradient(credit)`, `.per_sample()`, `.norm()`, `.gram()`, `.jvp(v)`,
        `.vjp(c)`, `.sum_of_squares(c)`, `.fisher_vector_product(v)`, `.hessian_vector_product(v)`,
        `.gauss_newton_vector_product(v, loss=…)`, `.at(weights)`; each computed on demand.

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
        if target is not None:
            raise TypeError("target= is of one output; in a dict each has its own: Output.of(function, target=…).")
        outputs = {name: Output.of(spec) for name, spec in output.items()}
        if SINGLE in outputs:
            raise ValueError("The empty name is taken for outputs without a name; choose another.")
    else:
        outputs = {SINGLE: Output.of(output, target=target)}
    options = {"layer": layer, "weights": weights}
    call = read_call((linearize, *outputs), model, x, tuple(outputs.values()), None, options)
    if call is not None and call.program is not None:
        arrays = [tensor for output in outputs.values() for tensor in output.tensors(model)]
        numbers = call.program.numbers(call.leaves, arrays, None)
        return _linearize_with(call.program, call.program.question(model, numbers, call.rows))
    question = ask(model, x, outputs=outputs, layer=layer, weights=weights)
    if not is_compilable(question):
        return _linearize_directly(question)
    program = program_for("forward", question, _connections)
    if call is not None:
        call.cache.keep_call(call.key, call.rows, program, None)
    return _linearize_with(program, question)


def _linearize_with(program: Program, question: Question) -> Linearization:
    """Linearize with a compiled forward pass."""
    sources = question.sources
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        computed = program(question)
    return Linearization(question, tape, computed.results, *computed.detail)


def _linearize_directly(question: Question) -> Linearization:
    """Linearize with the operations of the current context."""
    require_repeatable(question, "linearize")
    sources = question.sources
    # In a traced function a persistent tape costs nothing: it keeps symbols, and unused ones are pruned.
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        values = question.forward().values
    return Linearization(question, tape, values, keras_internals.computes_in_half(question.model))


def _connections(question: Question) -> Computed:
    """Compute the outputs; the detail is `half` and `connected` of a `Linearization`.

    Differentiating here only finds these; the gradients are not among the results, so they are never computed.
    """
    sources = question.sources
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        forward = question.forward()
    connected = {}
    for name, value in forward.values.items():
        gradients = tape.gradient(value, sources)
        connected[name] = frozenset(i for i, gradient in enumerate(gradients) if gradient is not None)
    every = frozenset().union(*connected.values())
    if not every:
        require_connected(question, every, question.recipes)
    detail = (keras_internals.computes_in_half(question.model), connected)
    return Computed(forward.values, tuple(sorted(every)), forward.ranges, detail=detail)
