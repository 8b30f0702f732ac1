"""From a question to one factor per variable: one forward and one backward pass, however the factors are then used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlgrad.core import keras_internals
from rlgrad.gradients.closed_forms.factors import Direct, Factor
from rlgrad.gradients.programs.backward import require_connected, weight_for, wide
from rlgrad.gradients.programs.coupling import require_separate_function, require_separate_samples
from rlgrad.gradients.programs.half_precision import Unweighted, is_concerned, rows_near_one, weigh_factor
from rlgrad.gradients.programs.program import Computed
from rlgrad.gradients.programs.surveys import survey
from rlgrad.gradients.programs.taps import RecordedCall, Recording, record, replay
from rlgrad.gradients.programs.vectorization import gradients_one_by_one
from rlgrad.gradients.programs.whole_batch import IN_BATCH
from rlgrad.gradients.questions.heads import shape_text
from rlgrad.gradients.questions.question import SINGLE, ForwardPass, Question
from rlgrad.gradients.questions.selection import Selection

METHODS = ("auto", "factors", "vmap", "loop")


@dataclass(frozen=True)
class Factorization:
    """The factors of f of each sample.

    Args:
        value: f, float (N,), or (N, …) with units.
        factors: for each variable that f depends on, by position.
        free: positions of the variables that have no closed form.
        ranges: see `ForwardPass.ranges`.
        vectorized: the variables without a closed form were vectorized over the samples.
        in_batch: their gradients were taken in the whole batch.
    """

    value: Any
    factors: Mapping[int, Factor]
    free: tuple[int, ...]
    ranges: tuple[tuple[int, int, str], ...]
    vectorized: bool = False
    in_batch: bool = False

    def computed(self, results: Any, detail: Any = None) -> Computed:
        """Return results that were made of these factors, with the bytes that the factors take for each sample."""
        size = 0
        for factor in self.factors.values():
            for tensor in factor.tensors:
                size += (tensor.shape[1:].num_elements() or 0) * tensor.dtype.size
        return Computed(results, tuple(self.factors), self.ranges, self.vectorized, size, detail)


def factorize(question: Question, method: str = "auto", *, mixed: bool = False) -> Factorization:
    """Run the model forward and backward once; variables outside of the closed forms take the vectorized route.

    Args:
        question: a question with one number per sample, or a vector.
        method: `"auto"`; `"factors"`: nothing but closed forms; `"vmap"`, `"loop"`: none.
        mixed: go on although the samples are mixed, for `plan`.

    Raises:
        BatchCoupledError: f of one sample depends on other samples.
        DisconnectedGradientError: as `gradient`.
        NotImplementedError: `method="factors"` and a variable has no closed form.
        ValueError: not one number per sample.
    """
    if not mixed:
        require_separate_samples(question)
    if not is_concerned(question):
        return _factorize(question, method, mixed)
    bare = Unweighted.of(question)
    if question.sample_weight is not None and question.sample_weight.shape.rank != 1:
        # Weights of units cannot be multiplied afterwards: those of a sample have the size of 1 on the way.
        (of_units,), size = rows_near_one([wide(question.sample_weight)])
        bare = replace(bare, question=replace(bare.question, sample_weight=of_units), sample_weight=size)
    found = _factorize(bare.question, method, mixed)
    weight = bare.of_rows() if found.value.shape.rank != 1 else bare.weight(found.value)
    factors = {i: weigh_factor(factor, weight) for i, factor in found.factors.items()}
    return replace(found, value=bare.value(found.value), factors=factors)


def _factorize(question: Question, method: str, mixed: bool) -> Factorization:
    if method in ("vmap", "loop") or keras_internals.has_saved_loops(question.model):
        forward = question.forward()
        require_samples(forward)
        require_separate_function(question, forward)
        others = gradients_one_by_one(replace(question, loop=question.loop or method == "loop"))
        rows = zip(others.positions, others.results, strict=True)
        factors: dict[int, Factor] = {i: Direct(wide(g)) for i, g in rows}
        ranges = forward.ranges + others.ranges
        whole = others.detail == IN_BATCH
        return Factorization(forward.values[SINGLE], factors, others.positions, ranges, others.vectorized, whole)
    forward, recording = record(question, survey(question).taps, question.forward)
    value = forward.values[SINGLE]
    require_samples(forward)
    if not mixed:
        require_separate_function(question, forward)
    cotangents, free = recording.pull_back(value, weight_for(question, value, forward.units[SINGLE]))
    factors = recording.factors(question, cotangents, set(free))
    require_connected(question, {*free, *factors})
    if not free:
        return Factorization(value, factors, free, forward.ranges)
    if method == "factors":
        _refuse(question, free)
    others = gradients_one_by_one(remaining_question(question, recording, free))
    factors |= {free[i]: Direct(wide(g)) for i, g in zip(others.positions, others.results, strict=True)}
    ranges = forward.ranges + others.ranges
    whole = others.detail == IN_BATCH
    return Factorization(value, {i: factors[i] for i in sorted(factors)}, free, ranges, others.vectorized, whole)


def require_samples(forward: ForwardPass) -> None:
    """Raise if f is neither one number per sample nor a vector, whose units are added up.

    Raises:
        ValueError: with the shape that f has.
    """
    value = forward.values[SINGLE]
    if value.shape.rank - forward.units[SINGLE] != 1:
        raise ValueError(
            f"One number per sample is needed, got {shape_text(value.shape[1:])} numbers for each row of the input. "
            "Flatten the time and environment axes first, or add up the steps of sequences with PerSequence(output); for "
            "several outputs per sample use jacobian()."
        )


def remaining_question(question: Question, recording: Recording, free: Sequence[int]) -> Question:
    """Return the same question about the variables at positions `free`, for which there is no closed form.

    The outputs of recorded layers are not computed again if they do not depend on these variables.
    """
    selected, calls = question.weights, recording.calls
    # For the tape a recorded layer's own variables are constants; if one of them is among these, z depends on it.
    ours = {id(selected.variables[i]) for i in free}
    moving = [any(id(variable) in ours for variable in call.tap.variables.values()) for call in calls]
    sources = [recording.sources[i] for i in free]
    depended_on = sources + [call.run.z for call, m in zip(calls, moving, strict=True) if m]
    fixed = [
        n
        for n, (call, m) in enumerate(zip(calls, moving, strict=True))
        if not m and all(g is None for g in recording.tape.gradient(call.run.outputs, depended_on))
    ]
    some = Selection(tuple(selected.variables[i] for i in free), tuple(selected.keys[i] for i in free), explicit=True)

    def replay_fixed(kept: Sequence[Any]) -> Any:
        return replay(calls, _by_call(calls, fixed, kept))

    kept = tuple(tensor for n in fixed for tensor in calls[n].run.outputs)
    return replace(question, weights=some, kept=kept, replay=replay_fixed)


def _by_call(calls: Sequence[RecordedCall], fixed: Sequence[int], kept: Sequence[Any]) -> dict[int, tuple[Any, ...]]:
    """Return the outputs of the calls with these numbers, of all of them one after the other."""
    tensors = iter(kept)
    return {n: tuple(next(tensors) for _ in calls[n].run.outputs) for n in fixed}


def _refuse(question: Question, free: Sequence[int]) -> None:
    names = ", ".join(question.weights.keys[i] for i in free)
    raise NotImplementedError(
        f"method='factors', but there is no closed form for {names}. plan(model, x) says why; register_rule adds a closed "
        "form for a layer class; method='auto' takes the vectorized route for these variables only."
    )
