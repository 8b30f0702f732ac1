"""One forward pass whose outputs can be differentiated several times, by the weights and by the input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from rlgrad.core import keras_internals
from rlgrad.gradients.programs.backward import require_connected, require_inputs, require_repeatable, with_own_inputs
from rlgrad.gradients.programs.coupling import require_separate_function, require_separate_samples
from rlgrad.gradients.programs.half_precision import pull_back
from rlgrad.gradients.programs.program import NO_EXTRA, Computed, Program, is_compilable, program_for
from rlgrad.gradients.questions.chosen_inputs import ChosenInputs, choose_inputs
from rlgrad.gradients.questions.question import SINGLE, ForwardPass, Question, single_output


@dataclass(frozen=True)
class RecordedRun:
    """A run of a model.

    Args:
        question: what was asked.
        inputs: how the caller writes the whole input.
        tape: recorded the run, persistent; it watched the question's sources.
        input_tape: the same for the floating-point inputs.
        leaves: these inputs, by position.
        values: the outputs, by name.
        units: see `ForwardPass.units`.
        half: the model computes in half precision, where credits would lose their digits.
        weights: the positions of the variables that each output depends on. `None`: the tape tells. Of a compiled program
            it cannot tell, since it returns zeros.
        leaves_of: the positions of the inputs that each output depends on; `None` as for `weights`.
        forward: the run itself, if it was not compiled.
        program: what computed it, if it was.
        statistics: see `ForwardPass`.
    """

    question: Question
    inputs: ChosenInputs
    tape: Any
    input_tape: Any
    leaves: Mapping[int, Any]
    values: Mapping[str, Any]
    units: Mapping[str, int]
    half: bool
    weights: Mapping[str, frozenset[int]] | None = None
    leaves_of: Mapping[str, frozenset[int]] | None = None
    forward: ForwardPass | None = None
    program: Program | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)

    def weight_gradients(self, credits: Mapping[str, Any]) -> list[Any]:
        """Return Σ credit · ∇f for each variable; `None` for one that no credited output depends on."""
        return self._pull_back(self.tape, credits, self.question.sources)

    def input_gradient(self, credits: Mapping[str, Any], inputs: Any) -> Any:
        """See `Linearization.input_gradient`."""
        question = self.question
        expected = keras_internals.expected_inputs(question.model)
        chosen = choose_inputs(self.inputs, question.leaves, expected, inputs)
        for name in credits:
            alone = question if name == SINGLE else single_output(question, name)
            require_separate_samples(alone)
            if self.forward is not None:
                require_separate_function(alone, self.forward)
        found = self._pull_back(self.input_tape, credits, [self.leaves[i] for i in chosen.positions])
        if self.leaves_of is not None:
            require_inputs(chosen, frozenset().union(*(self.leaves_of[name] for name in credits)))
        elif any(gradient is None for gradient in found):
            every = self._pull_back(self.input_tape, credits, list(self.leaves.values()))
            require_inputs(chosen, [i for i, g in zip(self.leaves, every, strict=True) if g is not None])
        return chosen.packed(list(map(tf.convert_to_tensor, found)))

    def _pull_back(self, tape: Any, credits: Mapping[str, Any], targets: Sequence[Any]) -> list[Any]:
        """Return Σ credit · ∂f for each target, in one backward pass."""
        if self.half:
            return pull_back(self.values, credits, targets, tape)
        values = [self.values[name] for name in credits]
        found: list[Any] = tape.gradient(values, targets, output_gradients=list(credits.values()))
        return found


def record_run(question: Question) -> RecordedRun:
    """Run a question's model: with a compiled program if possible, else with the operations of the current context."""
    if is_compilable(question):
        return record_program(program_for("forward", question, _connections), question, question.inputs)
    require_repeatable(question, "linearize")
    own = with_own_inputs(question)
    leaves = own.floating_leaves
    # In a traced function persistent tapes cost nothing: they keep symbols, and unused ones are pruned. One tape for both
    # would differentiate the first layers by their inputs each time.
    with _tape() as tape, _tape() as input_tape:
        tape.watch(question.sources)
        input_tape.watch(list(leaves.values()))
        forward = own.forward()
    half, values, units = keras_internals.computes_in_half(question.model), forward.values, forward.units
    statistics = forward.statistics
    return RecordedRun(
        question, question.inputs, tape, input_tape, leaves, values, units, half, forward=forward, statistics=statistics
    )


def record_program(program: Program, question: Question, inputs: ChosenInputs) -> RecordedRun:
    """Run a question's program.

    Args:
        program: that of `record_run`.
        question: the question.
        inputs: how the caller writes the input. It may have been written in another way when the program was compiled.
    """
    # Of a tensor that is an input twice, or also a target, a tape adds the parts up.
    if len({id(array) for array, _ in question.numbers}) < len(question.numbers):
        question = with_own_inputs(question)
    leaves = question.floating_leaves
    with _tape() as tape:  # a compiled program is differentiated by everything that went in
        tape.watch([*question.sources, *leaves.values()])
        computed = program(question)
    half, units, weights, leaves_of = computed.detail
    values, statistics = computed.results if question.training else (computed.results, NO_EXTRA)
    return RecordedRun(
        question,
        inputs,
        tape,
        tape,
        leaves,
        values,
        units,
        half,
        weights,
        leaves_of,
        program=program,
        statistics=statistics,
    )


def _connections(question: Question) -> Computed:
    """Compute the outputs; the detail is `half`, `units`, `weights` and `leaves_of` of a `RecordedRun`.

    Differentiating here only finds these; the gradients are not among the results, so they are never computed.
    """
    sources, leaves = question.sources, question.floating_leaves
    with _tape() as tape:
        tape.watch([*sources, *leaves.values()])
        forward = question.forward()
    weights, leaves_of = {}, {}
    for name, value in forward.values.items():
        connected = [gradient is not None for gradient in tape.gradient(value, [*sources, *leaves.values()])]
        weights[name] = frozenset(i for i in range(len(sources)) if connected[i])
        leaves_of[name] = frozenset(i for i, c in zip(leaves, connected[len(sources) :], strict=True) if c)
    every = frozenset().union(*weights.values())
    if not every:
        require_connected(question, every, question.recipes)
    half = keras_internals.computes_in_half(question.model)
    detail = (half, forward.units, weights, leaves_of)
    results = (forward.values, dict(forward.statistics)) if question.training else forward.values
    return Computed(results, tuple(sorted(every)), forward.ranges, detail=detail)


def _tape() -> Any:
    return tf.GradientTape(persistent=True, watch_accessed_variables=False)
