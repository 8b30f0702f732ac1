"""The gradient of a model's output with respect to what a hidden layer returns."""

import weakref
from functools import partial
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals, snapshots
from rlgrad.core.autograph import as_written
from rlgrad.gradients.programs.answers import Answer, answer
from rlgrad.gradients.programs.backward import DisconnectedGradientError, weight_for, wide
from rlgrad.gradients.programs.coupling import require_separate_function, require_separate_samples
from rlgrad.gradients.programs.half_precision import pull_back_wide, without_weights
from rlgrad.gradients.programs.program import Computed, compute
from rlgrad.gradients.programs.taps import current_graph
from rlgrad.gradients.questions.ask import ask
from rlgrad.gradients.questions.heads import require_floating
from rlgrad.gradients.questions.inputs import leaf_names
from rlgrad.gradients.questions.outputs import Output, OutputLike
from rlgrad.gradients.questions.question import SINGLE, Question
from rlgrad.gradients.questions.selection import NO_WEIGHTS, select_layer

_HIDDEN = "Layer {0!r} {1}, so its output cannot be watched. Choose the layer around it, or one before or after it."


@as_written
def activation_gradient(
    model: Any,
    x: Any,
    *,
    at: Any,
    output: OutputLike = None,
    target: Any = None,
    layer: Any = None,
    sample_weight: Any = None,
) -> tuple[Any, Any]:
    """a_n and c_n ∂f(x_n)/∂a_n, a_n being what a hidden layer returns: what Grad-CAM and layer attributions are made of.

    One forward and one backward pass, which ends at the layer. The layer may be anywhere: inside of a nested or a
    subclassed model too.

    Args:
        model: see `gradient`.
        x: see `gradient`.
        at: the hidden layer: its name (at any depth), its position in `model.layers`, or the layer. A model inside of the
            model is a layer too.
        output: see `gradient`.
        target: see `gradient`.
        layer: see `gradient`: the layer that f is made of; not the hidden one.
        sample_weight: see `gradient`.

    Returns:
        `(activation, gradient)`, both as the layer returns it: a tensor (N, …), or a tree of tensors; in float32 if the
        layer computes in half precision. The gradient is in units of f per unit of the activation.

    Raises:
        BatchCoupledError: the model mixes its samples.
        DisconnectedGradientError: f does not depend on what the layer returns.
        NotImplementedError: the layer runs inside a loop, a branch, another compiled function, or is rematerialized.
        TypeError: the layer returns integers, which have no gradient; and as `gradient`.
        ValueError: the layer is called several times, or not at all; and as `gradient`.

    Example:
        >>> a, g = activation_gradient(classifier, images, at="last_conv", output=labels)
        >>> heat = tf.nn.relu(tf.einsum("nhwc,nc->nhw", a, tf.reduce_mean(g, axis=[1, 2])))
    """
    return answer(_activation_gradient, model, x, Output.of(output, target=target), sample_weight, at=at, layer=layer)


def _activation_gradient(
    model: Any, x: Any, *, output: Any, at: Any, layer: Any, sample_weight: Any
) -> Answer[tuple[Any, Any]]:
    question = ask(model, x, outputs=output, layer=layer, weights=NO_WEIGHTS, sample_weight=sample_weight)
    chosen = select_layer(model, at)
    if keras_internals.rematerialized_around(model, chosen):
        raise NotImplementedError(_HIDDEN.format(chosen.name, "is rematerialized"))
    hidden = weakref.ref(chosen)  # a program must not keep a part of its model alive
    computed = compute(("activation_gradient", hidden), question, partial(_at_layer, hidden=hidden))
    structure = computed.detail

    def pack(results: list[Any]) -> tuple[Any, Any]:
        half = len(results) // 2
        activation, gradient = (tf.nest.pack_sequence_as(structure, part) for part in (results[:half], results[half:]))
        return activation, gradient

    return Answer(computed, pack)


def _at_layer(question: Question, hidden: Any) -> Computed:
    """Compute the leaves of what the layer returns, and then their gradients; the detail is their tree."""
    layer = hidden()
    require_separate_samples(question)
    question, weights = without_weights(question)
    with tf.GradientTape(persistent=weights is not None, watch_accessed_variables=False) as tape:
        watched = _Watched(layer, tape)
        with snapshots.held(question.model), keras_internals.replaced_calls([(layer, watched.call)]):
            forward = question.forward()
    watched.require_one_output(question.model)
    require_separate_function(question, forward)
    value, units, leaves = forward.values[SINGLE], forward.units[SINGLE], tf.nest.flatten(watched.returned)
    if weights is None:
        gradients = tape.gradient(value, leaves, output_gradients=weight_for(question, value, units))
    else:  # a layer's output may have other rows than samples
        gradients = pull_back_wide({SINGLE: value}, {SINGLE: weights.weight(value, units)}, leaves, tape)
    names = leaf_names(watched.returned)
    missing = [name.removeprefix("x") for name, gradient in zip(names, gradients, strict=True) if gradient is None]
    if missing:
        part = f"part {', '.join(missing)} of " if any(missing) else ""
        raise DisconnectedGradientError(
            f"The output does not depend on {part}what layer {layer.name!r} of model {question.model.name!r} returns."
        )
    structure = tf.nest.map_structure(lambda _: None, watched.returned)
    return Computed(list(map(wide, [*leaves, *gradients])), ranges=forward.ranges, detail=structure)


class _Watched:
    """A layer whose output a tape watches.

    Attributes:
        calls: how often the layer was called.
        returned: what it returned last.
    """

    def __init__(self, layer: Any, tape: Any) -> None:
        self.calls = 0
        self.returned: Any = None
        self._layer, self._tape, self._home, self._elsewhere = layer, tape, current_graph(), False

    def call(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the layer, and watch what it returns. What is wrong is raised later: Keras writes pages around errors in here."""
        self.calls += 1
        self.returned = original(*args, **kwargs)
        self._elsewhere = self._elsewhere or current_graph() is not self._home
        leaves = tf.nest.flatten(self.returned)
        if not self._elsewhere and all(tf.is_tensor(leaf) and leaf.dtype.is_floating for leaf in leaves):
            # A layer may return its input as it is; the gradient must not count what else is made of that.
            self.returned = tf.nest.map_structure(keras_internals.identity_with_mask, self.returned)
            self._tape.watch(self.returned)
        return self.returned

    def require_one_output(self, model: Any) -> None:
        """Raise if the layer has not exactly one output that could be watched."""
        name = self._layer.name
        if self._elsewhere:
            raise NotImplementedError(_HIDDEN.format(name, "runs inside a loop, a branch or another compiled function"))
        if self.calls != 1:
            often = "not reached" if self.calls == 0 else f"called {self.calls} times"
            raise ValueError(
                f"Layer {name!r} was {often} in one pass of model {model.name!r}, so there is no one output to "
                "differentiate with respect to. Choose another layer."
            )
        for leaf in tf.nest.flatten(self.returned):
            require_floating(leaf, f"What layer {name!r} returns")
