"""Fisher-vector products: F v = Σ_n c_n J_nᵀ M_n J_n v, exact in the actions.

J is the Jacobian of the distribution's parameters, M their Fisher matrix: diag(p) − p pᵀ for logits, diag(1/σ²) for a mean,
2 for a log standard deviation. F v is a Jacobian-vector product forward, M in between, and the transposed product back. So F
is positive semi-definite by construction, which a differentiated divergence with a wrong sign is not.

Source: Kakade (2001); Pascanu & Bengio (2014), section 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from rlgrad.gradients.programs.backward import require_connected
from rlgrad.gradients.programs.products import JacobianProducts
from rlgrad.gradients.questions.heads import Heads
from rlgrad.gradients.questions.policy_recipes import DistributionEntropy, LogProbability, distribution_of
from rlgrad.gradients.questions.question import SINGLE, Question
from rlgrad.gradients.questions.recipes import Recipe, Sum
from rlgrad.gradients.questions.reparameterized import ReparameterizedAction, ReparameterizedLogProbability


@dataclass(frozen=True)
class Parameters:
    """A distribution's parameters, and products with their Jacobian.

    Args:
        tree: a tensor, or a dict of tensors (…, K), one row per sample.
        distribution: the distribution that they parametrize.
        jacobian: that of the tree's leaves by the weights that they depend on.
        positions: those weights, by position.
    """

    tree: Any
    distribution: Any
    jacobian: JacobianProducts
    positions: tuple[int, ...]

    def product(self, tangent: Sequence[Any], weight: Any, damping: Any) -> list[Any]:
        """Return F v + damping · v, for each of `positions`."""
        moved = self.jacobian.push(tangent)
        measured = self.distribution.fisher_product(self.tree, tf.nest.pack_sequence_as(self.tree, moved))
        back = []
        for part in tf.nest.flatten(measured):
            c = tf.cast(weight, part.dtype)
            shape = tf.concat([tf.shape(c), tf.ones([part.shape.rank - c.shape.rank], tf.int32)], axis=0)
            back.append(part * tf.reshape(c, shape))
        products = self.jacobian.pull(back)
        return [p + tf.cast(damping, p.dtype) * v for p, v in zip(products, tangent, strict=True)]


def about_distribution(question: Question) -> Question:
    """Return the same question about one output: of those there are, the first that is about a distribution."""
    recipe = next((r for r in map(_about_distribution, question.recipes.values()) if r is not None), None)
    recipe = LogProbability(None, None) if recipe is None else recipe
    return replace(question, recipes={SINGLE: recipe}, arrays={SINGLE: ()}, batched={SINGLE: ()})


def parameters_of(question: Question) -> Parameters:
    """Run the model once, and return the parameters of the distribution that the question `about_distribution` is about.

    Raises:
        DisconnectedGradientError: the parameters do not depend on a variable that was named, or on any variable.
        NotImplementedError: the distribution has no method `fisher_product`.
        TypeError, ValueError: the model's output does not parametrize a distribution; see `LogProb`.
    """
    recipe: Any = question.recipes[SINGLE]
    sources = question.sources
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        returned = question.run_model()
        heads = Heads(question.model, returned, question.layer is not None, question.batch_size)
        tree, distribution = distribution_of(recipe, heads)
        if isinstance(tree, dict) and {"mean", "log_std"} <= set(tree):  # one row per sample, also of a shared log_std
            mean, log_std = tree["mean"], tree["log_std"]
            tree = {"mean": mean, "log_std": tf.broadcast_to(log_std, tf.shape(mean))}
    if not hasattr(distribution, "fisher_product"):
        raise NotImplementedError(
            f"{type(distribution).__name__} has no method fisher_product(parameters, tangents), so its Fisher matrix is "
            "not known. Give it one, or use gram() for the empirical Fisher matrix."
        )
    leaves = tf.nest.flatten(tree)
    gradients = tape.gradient(leaves, sources)
    positions = tuple(i for i, gradient in enumerate(gradients) if gradient is not None)
    require_connected(question, positions)
    return Parameters(tree, distribution, JacobianProducts(tape, leaves, [sources[i] for i in positions]), positions)


def _about_distribution(recipe: Recipe) -> LogProbability | DistributionEntropy | None:
    if isinstance(recipe, Sum):
        return next((r for r in map(_about_distribution, recipe.terms) if r is not None), None)
    if isinstance(recipe, ReparameterizedAction | ReparameterizedLogProbability):
        deterministic = isinstance(recipe, ReparameterizedAction) and not recipe.noisy and recipe.distribution is None
        return None if deterministic else LogProbability(recipe.head, recipe.distribution)
    return recipe if isinstance(recipe, LogProbability | DistributionEntropy) else None
