"""Linear systems in weights and in samples: the same solutions."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from rlgrad.updates.directions import conjugate_gradients, solve_in_sample_space


def problem(seed, size, rank, damping):
    """A random S of `rank` rows and `size` columns, weights and credits."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rank, size)), rng.uniform(0.1, 1.0, size=rank), rng.normal(size=rank), damping


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.01, 0.1, 1.0]))
def test_conjugate_gradients_solve_a_positive_definite_system(seed, size, rank, damping):
    s, w, c, damping = problem(seed, size, rank, damping)
    matrix = s.T @ np.diag(w) @ s + damping * np.eye(size)
    b = s.T @ (w * c)
    x, left = map(np.asarray, conjugate_gradients(lambda v: tf.linalg.matvec(matrix, v), tf.constant(b), iterations=60))
    assert np.linalg.norm(left) <= 1e-5 * np.linalg.norm(b)
    np.testing.assert_allclose(b - matrix @ x, left, atol=1e-10 * np.linalg.norm(b))
    np.testing.assert_allclose(matrix @ x, b, atol=2e-5 * np.linalg.norm(b))


def test_conjugate_gradients_end_after_as_many_products_as_there_are_different_eigenvalues():
    """By hand: diag(1, 3) and b = (1, 1). r₀ = b, α = 2/4, x₁ = (½, ½), r₁ = (½, −½), β = ¼, p₁ = (¾, −¼), α = ½ / ¾."""
    matrix = np.diag([1.0, 3.0])
    for iterations, expected in ((1, [0.5, 0.5]), (2, [1.0, 1 / 3])):
        x, left = conjugate_gradients(
            lambda v: tf.linalg.matvec(matrix, v), tf.ones(2, tf.float64), iterations=iterations
        )
        np.testing.assert_allclose(x, expected, atol=1e-12)
        np.testing.assert_allclose(left, 1.0 - matrix @ expected, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_how_exact_a_solution_is_does_not_depend_on_the_size_of_the_right_hand_side(scale):
    """The tolerance is a share of ‖b‖². A gradient of 10⁻⁶ has a direction, too."""
    matrix, b = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 2.0]]), np.array([1.0, -2.0, 0.5])
    x, _ = conjugate_gradients(lambda v: tf.linalg.matvec(matrix, v), tf.constant(scale * b), iterations=3)
    np.testing.assert_allclose(x, scale * np.linalg.solve(matrix, b), rtol=1e-9)


def test_conjugate_gradients_stop_after_as_many_products_as_they_may_take_or_need():
    """Three different eigenvalues need three; a tolerance of 1 is met before any."""
    taken = []

    def product(v):
        tf.py_function(lambda: taken.append(1), [], [])
        return tf.constant([1.0, 2.0, 5.0]) * v

    for iterations, options, expected in ((2, {}, 2), (3, {}, 3), (9, {}, 3), (9, {"tolerance": 1.0}, 0)):
        taken.clear()
        conjugate_gradients(product, tf.ones(3), iterations=iterations, **options)
        assert len(taken) == expected, f"products of at most {iterations}, with {options or 'the usual tolerance'}"


def test_a_right_hand_side_of_0_has_the_solution_0_and_nothing_is_left():
    x, left = conjugate_gradients(lambda v: 2.0 * v, tf.zeros(3), iterations=5)
    np.testing.assert_array_equal(x, np.zeros(3))
    np.testing.assert_array_equal(left, np.zeros(3))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.01, 0.1, 1.0]))
def test_the_system_among_samples_has_the_solution_of_the_one_among_weights(seed, size, rank, damping):
    """Woodbury: (Sᵀ W S + λ I)⁻¹ Sᵀ W c = Sᵀ c̃, also where a row weighs nothing."""
    s, w, c, damping = problem(seed, size, rank, damping)
    w[0] *= rank == 1  # a single row keeps its weight
    expected = np.linalg.solve(s.T @ np.diag(w) @ s + damping * np.eye(size), s.T @ (w * c))
    transformed, residual = solve_in_sample_space(*map(tf.constant, (s @ s.T, w, c)), damping)
    np.testing.assert_allclose(s.T @ np.asarray(transformed), expected, atol=1e-8)
    assert float(residual) < 1e-10


@pytest.mark.parametrize("jit_compile", [False, True])
def test_both_compile(jit_compile):
    s, w, c, damping = (np.asarray(x, np.float32) for x in problem(0, 5, 4, 0.1))
    matrix = s.T @ np.diag(w) @ s + damping * np.eye(5, dtype=np.float32)

    @tf.function(jit_compile=jit_compile)
    def both(gram, w, c):
        b = tf.linalg.matvec(s, w * c, transpose_a=True)
        direct, _ = conjugate_gradients(lambda v: tf.linalg.matvec(matrix, v), b, iterations=20)
        return direct, tf.linalg.matvec(s, solve_in_sample_space(gram, w, c, 0.1)[0], transpose_a=True)

    np.testing.assert_allclose(*both(s @ s.T, w, c), atol=1e-4)
