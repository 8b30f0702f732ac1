"""A recurrence along sequences, y_t, h_t = step(θ, x_t, h_t−1), and its derivatives as recurrences.

TensorFlow can differentiate a loop, but XLA then compiles the derivative's derivative anew for every state, since that depends
on the length of a list that the loop carries. Here each direction is a loop of its own, over the derivative of one step:

    forward     t = 1 … T    y_t, h_t of h_t−1
    Jᵀ u        t = T … 1    ∂θ, ∂x_t, ∂h_t−1 of ∂y_t, ∂h_t; each step is run again, so that only the states are kept
    J v         t = 1 … T    ẏ_t, ḣ_t of θ̇, ẋ_t, ḣ_t−1: the derivative of Jᵀ u with respect to u

Source: Werbos (1990), "Backpropagation through time".
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Tensors = list[Any]
Step = Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensors]]


def scan(step: Step, theta: Sequence[Any], xs: Sequence[Any], state: Sequence[Any]) -> tuple[Tensors, Tensors]:
    """Run a step along sequences.

    First derivatives are exact, and so is the derivative J v along a direction. A second derivative with respect to θ, x or
    h is NaN.

    Args:
        step: from θ, x_t and h_t−1 to y_t and h_t, all lists of tensors; a pure function of them.
        theta: θ.
        xs: x, each (T, …), T known when traced.
        state: h_0.

    Returns:
        y and h, each (T, …).
    """
    steps, counts = int(xs[0].shape[0]), (len(theta), len(xs))

    def run(*given: Any) -> Any:
        outputs, states = _forward(step, *_split(_unwatched(given), counts), steps)
        theta, xs, state = _split(given, counts)
        before = [tf.concat([first[None], later[:-1]], axis=0) for first, later in zip(state, states, strict=True)]

        def backward(*cotangents: Any) -> Any:
            return _pull_back(step, steps, counts, [*theta, *xs, *before], list(cotangents))

        return [*outputs, *states], backward

    results = tf.custom_gradient(run)(*map(tf.convert_to_tensor, (*theta, *xs, *state)))
    return results[: -len(state)], results[-len(state) :]


def _forward(step: Step, theta: Tensors, xs: Tensors, state: Tensors, steps: int) -> tuple[Tensors, Tensors]:
    def body(t: Any, state: Any, written: Any) -> Any:
        outputs, after = step(theta, [x[t] for x in xs], state)
        return t + 1, after, _write(written, t, [*outputs, *after])

    # The shapes of a step's results are known only once it has run.
    outputs, after = step(theta, [x[0] for x in xs], state)
    start = (tf.constant(1), after, _write(_arrays([*outputs, *after], steps), tf.constant(0), [*outputs, *after]))
    *_, written = tf.while_loop(lambda t, *_: t < steps, body, start, maximum_iterations=steps - 1)
    stacked = [array.stack() for array in written]
    return stacked[: len(outputs)], stacked[len(outputs) :]


def _pull_back(step: Step, steps: int, counts: tuple[int, int], given: Tensors, cotangents: Tensors) -> Tensors:
    """Return Jᵀ u for θ, x and h_0; `None` for tensors that are not floating-point."""
    count = len(cotangents)

    def pull(*arguments: Any) -> Any:
        tensors = _unwatched(arguments)
        u, given = tensors[:count], tensors[count:]
        of_theta, of_xs, of_states = _split(given, counts)
        floats_theta, floats_xs, floats_states = map(_floating, (of_theta, of_xs, of_states))
        parts = len(floats_theta), len(floats_xs)

        def at(t: Any) -> tuple[Any, Tensors, Tensors]:
            """Run step t again, and return its tape, the tensors that it watched, and the results."""
            theta, xs, state = (
                [tf.identity(x) for x in tensors] for tensors in (of_theta, _at(of_xs, t), _at(of_states, t))
            )
            watched = [*_picked(theta, floats_theta), *_picked(xs, floats_xs), *_picked(state, floats_states)]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(watched)
                outputs, after = step(theta, xs, state)
            return tape, watched, [*outputs, *after]

        def body(i: Any, carried: Tensors, total: Tensors, written: Tensors) -> Any:
            t = steps - 1 - i
            tape, watched, results = at(t)
            after = [u_t[t] + c for u_t, c in zip(u[count - len(carried) :], carried, strict=True)]
            found = tape.gradient(
                results,
                watched,
                output_gradients=[*_at(u[: count - len(carried)], t), *after],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            theta, xs, state = _split(found, parts)
            total = [a + b for a, b in zip(total, theta, strict=True)]
            return i + 1, state, total, _write(written, t, xs)

        carried = [tf.zeros_like(state[0]) for state in of_states]
        total = [tf.zeros_like(x) for x in _picked(of_theta, floats_theta)]
        start = (tf.constant(0), carried, total, _arrays([x[0] for x in _picked(of_xs, floats_xs)], steps))
        _, first, total, written = tf.while_loop(lambda i, *_: i < steps, body, start, maximum_iterations=steps)

        def push(*tangents: Any) -> Any:
            """Return J v. The derivative of Jᵀ u with respect to u is J, which is why this is the gradient of `pull`."""
            v_theta, v_xs, v_state = _split(_unwatched(tangents), parts)

            def body(t: Any, moved: Tensors, written: Tensors) -> Any:
                tape, watched, results = at(t)
                zeros = [tf.zeros_like(y) for y in results]
                # Jᵀ z of one step is linear in z, so its derivative with respect to z along v is J v.
                with tf.GradientTape(watch_accessed_variables=False) as outer:
                    outer.watch(zeros)
                    pulled = tape.gradient(
                        results, watched, output_gradients=zeros, unconnected_gradients=tf.UnconnectedGradients.ZERO
                    )
                found = outer.gradient(
                    pulled,
                    zeros,
                    output_gradients=[*v_theta, *_at(v_xs, t), *moved],
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
                return t + 1, found[count - len(moved) :], _write(written, t, found)

            start = (tf.constant(0), v_state, _arrays([u_t[0] for u_t in u], steps))
            *_, written = tf.while_loop(lambda t, *_: t < steps, body, start, maximum_iterations=steps)
            unknown = [tf.fill(tf.shape(x), tf.cast(math.nan, x.dtype)) if x.dtype.is_floating else None for x in given]
            return [*(array.stack() for array in written), *unknown]

        return [*total, *(array.stack() for array in written), *first], push

    found = iter(tf.custom_gradient(pull)(*cotangents, *given))
    return [next(found) if x.dtype.is_floating else None for x in given]


def _unwatched(tensors: Sequence[Any]) -> Tensors:
    """Hide tensors from gradient tapes, so TensorFlow does not also build its own, unused, gradient of the loop."""
    integers = {2: tf.int16, 4: tf.int32, 8: tf.int64}
    return [
        tf.bitcast(tf.bitcast(x, integers[x.dtype.size]), x.dtype) if x.dtype.is_floating else tf.identity(x)
        for x in tensors
    ]


def _split(tensors: Sequence[Any], counts: tuple[int, int]) -> tuple[Tensors, Tensors, Tensors]:
    first, second = counts
    return list(tensors[:first]), list(tensors[first : first + second]), list(tensors[first + second :])


def _floating(tensors: Tensors) -> list[int]:
    return [i for i, x in enumerate(tensors) if x.dtype.is_floating]


def _picked(tensors: Tensors, positions: list[int]) -> Tensors:
    return [tensors[i] for i in positions]


def _at(tensors: Tensors, t: Any) -> Tensors:
    return [x[t] for x in tensors]


def _arrays(like: Tensors, steps: int) -> Tensors:
    return [tf.TensorArray(x.dtype, size=steps, element_shape=x.shape) for x in like]


def _write(arrays: Tensors, t: Any, values: Tensors) -> Tensors:
    return [array.write(t, value) for array, value in zip(arrays, values, strict=True)]
