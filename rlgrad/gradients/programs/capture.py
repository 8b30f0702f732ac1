"""From a question to one factor per variable: one forward pass and one backward pass, whatever is asked of them then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from rlgrad.gradients.closed_forms.factors import Direct, Factor, total
from rlgrad.gradients.programs.backward import require_connected, weight_for
from rlgrad.gradients.programs.taps import Recorded, felt, recording, replaying, taps_of
from rlgrad.gradients.programs.vectorized import gradients_one_by_one
from rlgrad.gradients.questions.heads import shape_text
from rlgrad.gradients.questions.problem import SINGLE, Notes, Problem
from rlgrad.gradients.questions.selection import Selection

METHODS = ("auto", "factors", "vmap", "loop")


@dataclass(frozen=True)
class Captured:
    """f of each sample, float (N,), and the factor of each variable that f depends on, by position."""

    value: Any
    factors: Mapping[int, Factor]


def capture_factors(problem: Problem, notes: Notes, method: str = "auto") -> Captured:
    """Runs the model forward and backward once; variables outside of the closed forms take the vectorized route.

    Args:
        problem: a question with one number per sample.
        notes: gets what tracing tells.
        method: `"auto"`; `"factors"`: nothing but closed forms; `"vmap"`, `"loop"`: none.

    Raises:
        DisconnectedGradientError: as `gradient`.
        NotImplementedError: `method="factors"` and a variable has no closed form.
        ValueError: not one number per sample.
    """
    if method in ("vmap", "loop"):
        value = problem.forward(notes)[SINGLE]
        require_scalars(problem, value)
        positions, rows = gradients_one_by_one(replace(problem, loop=problem.loop or method == "loop"), notes)
        return Captured(value, {i: Direct(g) for i, g in zip(positions, rows, strict=True)})
    taps, _ = taps_of(problem)
    sources = problem.sources
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        with recording(problem, tape, taps, []) as calls:
            value = problem.forward(notes)[SINGLE]
    require_scalars(problem, value)
    found = tape.gradient(value, [*(call.z for call in calls), *sources], output_gradients=weight_for(problem, value))
    cotangents, outside = found[: len(calls)], found[len(calls) :]
    free = [i for i, gradient in enumerate(outside) if gradient is not None]
    notes.free = tuple(free)
    factors = closed_forms(problem, calls, cotangents, set(free))
    require_connected(problem, {*free, *factors})
    if free:
        if method == "factors":
            _refuse(problem, free)
        positions, rows = gradients_one_by_one(remaining(problem, tape, calls, free), notes)
        factors |= {free[i]: Direct(g) for i, g in zip(positions, rows, strict=True)}
    return Captured(value, {i: factors[i] for i in sorted(factors)})


def require_scalars(problem: Problem, value: Any) -> None:
    """Raises where f is not one number per sample.

    Raises:
        ValueError: with the shape that it has.
    """
    if value.shape.rank != 1:
        raise ValueError(
            f"One number per sample is needed, got {shape_text(value.shape[1:])} numbers for each row of the input. "
            "Flatten the time and environment axes first, or add up the steps of sequences with PerSequence(output); for "
            "several outputs per sample use jacobian()."
        )


def closed_forms(
    problem: Problem, calls: Sequence[Recorded], cotangents: Sequence[Any], free: set[int]
) -> dict[int, Factor]:
    """One factor for each variable that is not `free`, of all calls of its layer, given the calls' cotangents."""
    position = {id(variable): i for i, variable in enumerate(problem.weights.variables)}
    found: dict[int, list[Factor]] = {}
    for call, cotangent in zip(calls, cotangents, strict=True):
        variables = {name: position.get(id(variable)) for name, variable in call.tap.variables.items()}
        if not felt(cotangent) or all(i is None or i in free for i in variables.values()):
            continue
        for name, factor in call.factors(cotangent).items():
            i = variables.get(name)
            if i is not None and i not in free:
                found.setdefault(i, []).append(factor)
    return {i: total(parts) for i, parts in found.items()}


def remaining(problem: Problem, tape: Any, calls: Sequence[Recorded], free: Sequence[int]) -> Problem:
    """The same question about the variables at positions `free`, for which there is no closed form.

    What the recorded layers said is not computed again where it does not depend on these variables.
    """
    selected = problem.weights
    # For the tape a recorded layer's own variables are constants; if one of them is among these, z depends on it.
    ours = {id(selected.variables[i]) for i in free}
    moving = [any(id(variable) in ours for variable in call.tap.variables.values()) for call in calls]
    sources = [problem.sources[i] for i in free] + [call.z for call, m in zip(calls, moving, strict=True) if m]
    keep = [
        n
        for n, (call, m) in enumerate(zip(calls, moving, strict=True))
        if not m and all(g is None for g in tape.gradient(call.ran.said, sources))
    ]
    some = Selection(tuple(selected.variables[i] for i in free), tuple(selected.keys[i] for i in free), explicit=True)

    def replay(kept: Sequence[Any]) -> Any:
        tensors = iter(kept)
        return replaying(calls, {n: tuple(next(tensors) for _ in calls[n].ran.said) for n in keep})

    kept = tuple(tensor for n in keep for tensor in calls[n].ran.said)
    return replace(problem, weights=some, kept=kept, replay=replay)


def _refuse(problem: Problem, free: Sequence[int]) -> None:
    names = ", ".join(problem.weights.keys[i] for i in free)
    raise NotImplementedError(
        f"method='factors', but there is no closed form for {names}. plan(model, x) says why; register_rule adds a closed "
        "form for a layer class; method='auto' takes the vectorized route for these variables only."
    )
