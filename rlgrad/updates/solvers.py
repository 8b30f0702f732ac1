"""Solving (F + λ I) x = g without ever writing the P × P matrix F out.

Conjugate gradients need products F v alone. The empirical Fisher matrix Sᵀ W S of N scores needs no more than their N × N Gram
matrix K = S Sᵀ,

    (Sᵀ W S + λ I)⁻¹ Sᵀ W c  =  Sᵀ W^½ (W^½ K W^½ + λ I)⁻¹ W^½ c        (Woodbury)

which is one ordinary backward pass with other credits.
"""

from collections.abc import Callable

import tensorflow as tf


def conjugate_gradients(
    product: Callable[[tf.Tensor], tf.Tensor], b: tf.Tensor, *, iterations: int, tolerance: float = 1e-10
) -> tuple[tf.Tensor, tf.Tensor]:
    """X with A x ≈ b, for a symmetric positive definite A that is known by its products alone.

    Args:
        product: v ↦ A v, float (P,) to (P,).
        b: float (P,).
        iterations: at most so many products.
        tolerance: stop when ‖b − A x‖² ≤ tolerance · ‖b‖².

    Returns:
        x, and what is left, b − A x: both float (P,).

    Source: Hestenes & Stiefel (1952).
    """
    size = tf.reduce_sum(b * b)

    def goes_on(i: tf.Tensor, x: tf.Tensor, r: tf.Tensor, p: tf.Tensor, rr: tf.Tensor) -> tf.Tensor:
        return (i < iterations) & (rr > tolerance * size)

    def body(i: tf.Tensor, x: tf.Tensor, r: tf.Tensor, p: tf.Tensor, rr: tf.Tensor) -> tuple[tf.Tensor, ...]:
        moved = product(p)
        alpha = tf.math.divide_no_nan(rr, tf.reduce_sum(p * moved))
        x, r = x + alpha * p, r - alpha * moved
        smaller = tf.reduce_sum(r * r)
        return i + 1, x, r, r + tf.math.divide_no_nan(smaller, rr) * p, smaller

    start = (tf.constant(0), tf.zeros_like(b), b, b, size)
    _, x, left, _, _ = tf.while_loop(goes_on, body, start, maximum_iterations=iterations)
    return x, left


def solve_in_sample_space(
    gram: tf.Tensor, weights: tf.Tensor, credit: tf.Tensor, damping: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Credits c̃ whose gradient Sᵀ c̃ is (Sᵀ W S + λ I)⁻¹ Sᵀ W c, by a Cholesky factorization.

    Args:
        gram: K = S Sᵀ, float (N, N).
        weights: w ≥ 0, float (N,), the diagonal of W.
        credit: c, float (N,).
        damping: λ > 0.

    Returns:
        c̃, (N,), and the relative residual of the N × N system.
    """
    root = tf.sqrt(weights)
    system = root[:, None] * gram * root[None, :]
    system = tf.linalg.set_diag(system, tf.linalg.diag_part(system) + damping)
    b = (root * credit)[:, None]
    y = tf.linalg.cholesky_solve(tf.linalg.cholesky(system), b)
    return root * y[:, 0], tf.math.divide_no_nan(tf.norm(system @ y - b), tf.norm(b))
