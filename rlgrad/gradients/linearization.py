"""A model's outputs at its current weights, with their gradient: one forward pass, and one backward pass per credit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from rlgrad.core.autograph import as_written
from rlgrad.gradients import norms
from rlgrad.gradients.closed_forms.factors import Factor
from rlgrad.gradients.curvature import hessian_product, push_weights
from rlgrad.gradients.gauss_newton import gauss_newton_product
from rlgrad.gradients.lazy_factors import LazyFactors
from rlgrad.gradients.programs.answers import read_call
from rlgrad.gradients.programs.backward import credits_for, dense, require_connected, tangents_for
from rlgrad.gradients.programs.coupling import require_separate_samples
from rlgrad.gradients.programs.recorded_runs import RecordedRun, record_program, record_run
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.inputs import as_weight
from rlgrad.gradients.questions.outputs import OutputLike, named_outputs
from rlgrad.gradients.questions.question import SINGLE, place, single_output
from rlgrad.gradients.questions.training_mode import as_mode


class Linearization:
    """A model's outputs and their derivatives with respect to its weights. Made by `linearize`."""

    def __init__(self, run: RecordedRun) -> None:
        self._run = run
        self._question = run.question
        self._tape = run.tape
        self._values = dict(run.values)
        self._factors = LazyFactors(run.question, self._values)

    @property
    def outputs(self) -> Any:
        """The outputs' values, float (batch…), of a vector (batch…, units…), or a dict by name; they carry no gradient."""
        values = {name: tf.stop_gradient(value) for name, value in self._values.items()}
        return values.get(SINGLE, values)

    @property
    def statistics(self) -> dict[str, Any]:
        """The values that this pass gives to variables which are not trained, by their paths, if it ran in training mode.

        Such as the moving averages of a batch normalization: the model keeps its own until the caller assigns these.
        """
        return {key: tf.stop_gradient(value) for key, value in self._run.statistics.items()}

    @property
    def variables(self) -> list[Any]:
        """The Keras variables, in the order of `model.trainable_variables`.

        Without `weights=`, those that at least one of the outputs depends on; else the named ones.
        """
        selected = self._question.weights
        if selected.explicit:
            return list(selected.variables)
        if self._run.weights is None:
            gradients = self._tape.gradient(list(self._values.values()), self._question.sources)
            positions = {i for i, gradient in enumerate(gradients) if gradient is not None}
        else:
            positions = set().union(*self._run.weights.values())
        return [variable for i, variable in enumerate(selected.variables) if i in positions]

    @as_written
    def gradient(self, credit: Any = None) -> dict[str, Any]:
        """Σ credit · ∇f, over all samples and all credited outputs, in one backward pass.

        Args:
            credit: the weight of each value: float, exactly the shape of `outputs`, or one number for all; of a vector
                output also one number per sample, for all of its units. For outputs with names a dict; an output that is
                left out does not count. Default: 1 for all.

        Returns:
            For each variable its gradient, of the variable's shape, under the variable's path. Without `weights=`, the
            variables that a credited output depends on.

        Raises:
            DisconnectedGradientError: no credited output depends on a variable that was named, or on any variable.
            ValueError: the credit has a name that no output has, or another shape than the output.
        """
        selected, sources = self._question.weights, self._question.sources
        credits = credits_for(self._values, credit, self._run.units)
        gradients = self._run.weight_gradients(credits)
        if self._run.weights is None:
            positions = frozenset(i for i, gradient in enumerate(gradients) if gradient is not None)
        else:
            positions = frozenset().union(*(self._run.weights[name] for name in credits))
        require_connected(self._question, positions, list(credits))
        return {
            key: dense(gradient, variable)
            for i, (key, variable, gradient) in enumerate(zip(selected.keys, sources, gradients, strict=True))
            if i in positions
        }

    @as_written
    def input_gradient(self, credit: Any = None, *, inputs: Any = None) -> Any:
        """Σ credit · ∂f/∂x of each sample, over all credited outputs, in one backward pass of the same run.

        Args:
            credit: as for `gradient`.
            inputs: the arrays of x to differentiate; see `input_gradient`.

        Returns:
            See `input_gradient`.

        Raises:
            BatchCoupledError: the model mixes its samples in a credited output.
            DisconnectedGradientError: no credited output depends on a chosen input.
            TypeError: a chosen input holds integers, truth values or strings, which have no gradient.
            ValueError: as `gradient`; an input that the model does not have.
        """
        return self._run.input_gradient(credits_for(self._values, credit, self._run.units), inputs)

    @as_written
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
            ValueError: an output is neither one number per sample nor a vector, whose units are added up.
        """
        return self._factors.per_sample(segments, num_segments)

    @as_written
    def norm(
        self, per: str = "model", *, squared: bool = False, segments: Any = None, num_segments: int | None = None
    ) -> Any:
        """‖∇f‖ of each sample, (N,); see `per_sample_norm`. For named outputs a dict of these."""
        return self._factors.contract(norms.norms_of(per, squared), segments, num_segments)

    @as_written
    def gram(self, *, segments: Any = None, num_segments: int | None = None) -> Any:
        """J Jᵀ, (N, N); see `gram`. For named outputs a dict of these."""
        return self._factors.contract(lambda f: norms.gram_of(f.values(), f.values()), segments, num_segments)

    @as_written
    def jvp(self, tangent: Mapping[str, Any]) -> Any:
        """J v: the derivative of f of each sample along v; float, of the shape of f, for named outputs a dict of these.

        Of a vector each unit moves by itself, which takes one more pass of the model and two backward passes.

        Args:
            tangent: v, a dict as `gradient` returns it: for each variable that the output depends on a tensor.

        Raises:
            ValueError: other keys or shapes.
        """

        def use(factors: dict[str, Factor]) -> Any:
            directions = tangents_for(self._question, tangent, list(factors))
            parts = [
                factor.jvp(tf.cast(v, factor.tensors[-1].dtype))
                for v, factor in zip(directions, factors.values(), strict=True)
            ]
            return tf.add_n(norms.in_widest_dtype(parts))

        def push(name: str) -> Any:
            if not self._run.units[name]:
                return use(self._factors.of(name))
            question = self._question if name == SINGLE else single_output(self._question, name)
            with self._factors.scope:
                return push_weights(question, tangent)

        results = {name: push(name) for name in self._values}
        return results.get(SINGLE, results)

    @as_written
    def vjp(self, credit: Any = None) -> dict[str, Any]:
        """Jᵀ c = Σ credit · ∇f, as `gradient`, but from the recorded inputs of the layers: no further backward pass.

        A vector, whose factors are about the sum of its units, takes one.

        Args:
            credit: as for `gradient`.
        """
        result: dict[str, Any] = {}
        for name, c in credits_for(self._values, credit, self._run.units).items():
            parts = self._of_units(name, c) if self._run.units[name] else self._of_samples(name, c)
            for key, part in parts.items():
                result[key] = result[key] + part if key in result else part
        return {key: result[key] for key in self._question.weights.keys if key in result}

    @as_written
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

    @as_written
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

    @as_written
    def hessian_vector_product(self, v: Mapping[str, Any], credit: Any = None) -> dict[str, Any]:
        """Σ credit · ∇²f v, over all samples and all credited outputs; see `hessian_vector_product`.

        Args:
            v: a direction, as `gradient(credit)` returns one.
            credit: as for `gradient`.
        """
        answered = hessian_product(self._question, v, credits_for(self._values, credit, self._run.units))
        return answered.pack(answered.computed.results)

    @as_written
    def gauss_newton_vector_product(
        self, v: Mapping[str, Any], *, loss: Any, target: Any = None, sample_weight: Any = None
    ) -> dict[str, Any]:
        """G v, G being the Gauss-Newton matrix of a loss of what the model returns; see `gauss_newton_vector_product`."""
        weight = None if sample_weight is None else as_weight(sample_weight)
        return gauss_newton_product(replace(self._question, sample_weight=weight), v, loss, target)

    @as_written
    def at(self, weights: Mapping[str, Any] | Sequence[Any]) -> "Linearization":
        """The same question at other weights; the model keeps its own.

        Args:
            weights: values of variables, under their paths; variables that are left out keep their value. Or a list of
                values in the order of `variables`.

        Raises:
            TypeError: neither a dict nor a list.
            ValueError: a key that no variable has, or another shape than the variable's; a list of another length.
        """
        order = None if isinstance(weights, Mapping) else self.variables
        return Linearization(record_run(replace(place(self._question, weights, order), inputs=self._run.inputs)))

    def _of_samples(self, name: str, credit: Any) -> dict[str, Any]:
        """Return Σ credit · ∇f of an output with one number per sample, from its factors."""
        return {
            key: tf.cast(factor.vjp(tf.cast(credit, factor.tensors[-1].dtype)), self._dtype(key))
            for key, factor in self._factors.of(name).items()
        }

    def _dtype(self, key: str) -> Any:
        selected = self._question.weights
        return tf.as_dtype(selected.variables[selected.keys.index(key)].dtype)

    def _of_units(self, name: str, credit: Any) -> dict[str, Any]:
        """Return Σ credit · ∇f of a vector."""
        require_separate_samples(self._question if name == SINGLE else single_output(self._question, name))
        return self.gradient(credit if name == SINGLE else {name: credit})


@as_written
def linearize(
    model: Any,
    x: Any,
    *,
    output: OutputLike | Mapping[str, OutputLike] = None,
    target: Any = None,
    layer: Any = None,
    weights: Any = None,
    training: bool = False,
    seed: Any = None,
) -> Linearization:
    """Run the model once, and keep what is needed to differentiate its outputs.

    Inside a `tf.function`, also with `jit_compile=True`, this is one forward pass and each `.gradient(credit)` one
    backward pass, as a hand-written tape would be. Called eagerly, the forward pass is compiled once per model and
    question, and later calls reuse it for any number of rows.

    Args:
        model: a built Keras model. Left as it was.
        x: its input, (N, …), or a dict or list of arrays.
        output: the output to differentiate (see `gradient`), or a dict of outputs, which one pass computes all.
        target: see `gradient`; in a dict of outputs each has its own: `Output.of(function, target=…)`.
        layer: a layer's name, its position or the layer, to differentiate its output instead of the model's.
        weights: see `gradient`.
        training: see `gradient`. All that the linearization says is then of the same masks and the same batch.
        seed: see `gradient`.

    Returns:
        A `Linearization`: `.outputs`, `.variables`, `.statistics`, `.gradient(credit)`, `.input_gradient(credit)`,
        `.per_sample()`, `.norm()`, `.gram()`, `.jvp(v)`, `.vjp(c)`, `.sum_of_squares(c)`, `.fisher_vector_product(v)`,
        `.hessian_vector_product(v)`, `.gauss_newton_vector_product(v, loss=…)`, `.at(weights)`; each computed on demand.

    Raises:
        TypeError, ValueError: the question is wrong; the message says what was expected, what came and what to do.

    Example:
        >>> lin = linearize(policy, x, output={"log_prob": LogProb(actions), "value": "value"})
        >>> credit = returns - lin.outputs["value"]
        >>> gradients = lin.gradient({"log_prob": credit, "value": 0.5 * credit})
    """
    outputs = named_outputs(output, target)
    options, mode = {"layer": layer, "weights": weights}, as_mode(training, seed)
    call = read_call((linearize, *outputs), model, x, tuple(outputs.values()), None, options, mode=mode)
    if call is not None and call.program is not None:
        arrays = [tensor for output in outputs.values() for tensor in output.tensors(model)]
        numbers = call.program.numbers(call.leaves, arrays, None, seed=mode.seed)
        question = call.program.question(model, numbers, call.rows)
        return Linearization(record_program(call.program, question, call.pack))
    question = ask(model, x, outputs=outputs, layer=layer, weights=weights, training=mode.training, seed=mode.seed)
    run = record_run(question)
    if call is not None and run.program is not None:
        call.cache.keep_call(call.key, call.rows, run.program, question.inputs)
    return Linearization(run)
