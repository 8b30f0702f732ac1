"""Natural gradients x = (F + λ I)⁻¹ g of an objective's policy, for either of the two Fisher matrices F.

*exact*: Σ_t w_t E_{a~π}[∇ log π(a|s_t) ∇ log π(a|s_t)ᵀ], the curvature of the divergence, over all actions. *empirical*:
with the action that was taken instead of the expectation. The weights w are those of the batch, scaled to a sum of 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from rlgrad import gradients
from rlgrad.data import Outputs
from rlgrad.updates.base import Objective

_LARGEST_GRAM = 2048  # rows; with more, and more than there are weights, the N × N system is the larger one


@dataclass(frozen=True)
class Direction:
    """A natural gradient, and what was computed on the way to it.

    Attributes:
        now: the outputs at the current weights.
        credits: w c by output, (M,).
        gradient: g by variable path.
        natural: x, likewise.
        curvature: xᵀ (F + λ I) x.
        residual: ‖g − (F + λ I) x‖ / ‖g‖, or that of the N × N system if that one was solved.
    """

    now: Outputs
    credits: Mapping[str, tf.Tensor]
    gradient: Mapping[str, tf.Tensor]
    natural: Mapping[str, tf.Tensor]
    curvature: tf.Tensor
    residual: tf.Tensor

    def length(self, kl: Any) -> tf.Tensor:
        """Return the factor on x at which the divergence's quadratic model ½ xᵀ (F + λ I) x is `kl` nats; 0 if x is 0."""
        kl = tf.cast(kl, self.curvature.dtype)
        return tf.sqrt(tf.math.divide_no_nan(2.0 * kl, tf.maximum(self.curvature, 0.0)))


def exact(objective: Objective, damping: float, iterations: int) -> Direction:
    """Solve by conjugate gradients. A product with F: a Jacobian, the distribution's Fisher matrix, the Jacobian back."""
    at_theta, now, credits = objective.credited_outputs()
    gradient, weights = at_theta.gradient(credits), _share(objective.batch.weights)

    def product(v: tf.Tensor) -> tf.Tensor:
        moved = at_theta.fisher_vector_product(gradients.unflatten(v, gradient), sample_weight=weights, damping=damping)
        return gradients.flatten(moved)

    return _solve(product, now, credits, gradient, iterations)


def empirical(objective: Objective, damping: float, iterations: int) -> Direction:
    """Solve with the N × N Gram matrix of the scores; if N is large and P small, by conjugate gradients."""
    if objective.batch.weights.shape.rank != 1:
        raise ValueError(
            "fisher='empirical' needs the score of each step, and a policy with memory has one for each sequence: use "
            "fisher='exact'."
        )
    _, now, credits = objective.credited_outputs()
    scores, weights = objective.scores(), _share(objective.batch.weights)
    gradient = scores.gradient(credits["log_prob"])
    rows, size = weights.shape[0], sum(g.shape.num_elements() for g in gradient.values())
    if rows is not None and rows <= max(size, _LARGEST_GRAM):
        unweighted = tf.math.divide_no_nan(credits["log_prob"], weights)
        transformed, residual = solve_in_sample_space(scores.gram(), weights, unweighted, damping)
        natural = scores.gradient(transformed)
        return Direction(now, credits, gradient, natural, gradients.dot(natural, gradient), residual)

    def product(v: tf.Tensor) -> tf.Tensor:
        back = scores.vjp(weights * scores.jvp(gradients.unflatten(v, gradient)))
        return gradients.flatten(back) + damping * v

    return _solve(product, now, credits, gradient, iterations)


def _solve(
    product: Callable[[tf.Tensor], tf.Tensor], now: Any, credits: Any, gradient: Any, iterations: int
) -> Direction:
    b = gradients.flatten(gradient)
    product(b)  # what all products share, the model's forward pass, is traced here rather than inside the loop
    x, rest = conjugate_gradients(product, b, iterations=iterations)
    curvature = tf.reduce_sum(x * (b - rest))  # b − rest is the product with x
    residual = tf.math.divide_no_nan(tf.norm(rest), tf.norm(b))
    return Direction(now, credits, gradient, gradients.unflatten(x, gradient), curvature, residual)


def _share(weights: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(weights, tf.reduce_sum(weights))


def conjugate_gradients(
    product: Callable[[tf.Tensor], tf.Tensor], b: tf.Tensor, *, iterations: int, tolerance: float = 1e-10
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return x with A x ≈ b, for a symmetric positive definite A that is known by its products alone.

    Args:
        product: v ↦ A v, float (P,) to (P,).
        b: float (P,).
        iterations: the most products.
        tolerance: stop when ‖b − A x‖² ≤ tolerance · ‖b‖².

    Returns:
        x and the residual b − A x, each float (P,).

    Source: Hestenes & Stiefel (1952).
    """
    size = tf.reduce_sum(b * b)

    def continues(i: tf.Tensor, x: tf.Tensor, r: tf.Tensor, p: tf.Tensor, rr: tf.Tensor) -> tf.Tensor:
        return (i < iterations) & (rr > tolerance * size)

    def body(i: tf.Tensor, x: tf.Tensor, r: tf.Tensor, p: tf.Tensor, rr: tf.Tensor) -> tuple[tf.Tensor, ...]:
        moved = product(p)
        alpha = tf.math.divide_no_nan(rr, tf.reduce_sum(p * moved))
        x, r = x + alpha * p, r - alpha * moved
        smaller = tf.reduce_sum(r * r)
        return i + 1, x, r, r + tf.math.divide_no_nan(smaller, rr) * p, smaller

    start = (tf.constant(0), tf.zeros_like(b), b, b, size)
    _, x, rest, _, _ = tf.while_loop(continues, body, start, maximum_iterations=iterations)
    return x, rest


def solve_in_sample_space(
    gram: tf.Tensor, weights: tf.Tensor, credit: tf.Tensor, damping: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return credits c̃ whose gradient Sᵀ c̃ is (Sᵀ W S + λ I)⁻¹ Sᵀ W c, by a Cholesky factorization.

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
