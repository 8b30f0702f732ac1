"""Outputs that are vectors, or are made of one: all units, the entry of an action, and the action itself.

A vector output counts as the sum of its units, as a whole head does, unless each unit has a weight of its own: weights and
credits have its shape (N, K), or are one number per sample, (N,). Jacobians keep the units. `Weighted` makes one number of
them, with which a sample has one gradient.
"""

from typing import Any

from rlgrad.gradients.questions.outputs import Output
from rlgrad.gradients.questions.policy_recipes import by_value
from rlgrad.gradients.questions.reparameterized import ReparameterizedAction, ReparameterizedLogProbability
from rlgrad.gradients.questions.vector_recipes import ChosenEntry, OverUnits, Units


class Each(Output):
    """All units of a head, (N, …), each of which can have a weight.

    Args:
        head: the output's name. Default: the model's only one.

    Example:
        >>> gradient(actor, x, output=Each(), sample_weight=slope)  # Σ_n Σ_k slope_nk ∇μ_k(x_n)
    """

    def __init__(self, head: str | None = None) -> None:
        super().__init__(Units(head))


class Chosen(Output):
    """y[a]: for each sample the entry of its action, along the first axis after those of the actions.

    Of a head (N, A) it is one number per sample, (N,); of one with K quantiles or atoms for each action, (N, A, K), it is
    (N, K). An int array as `output=` chooses along the *last* axis instead.

    Args:
        head: the output's name; `None`: the model's only one.
        actions: int (N,), from 0; (N, T) for a head (N, T, A, …) of sequences.

    Raises:
        TypeError: the actions are not integers.
        ValueError: actions that the head does not have, also negative ones; another length than the inputs'.
    """

    def __init__(self, head: str | None, actions: Any) -> None:
        super().__init__(ChosenEntry(head), (actions,), (True,))


class Action(Output):
    """The reparameterized action a(s; ε), (N, *event), as rlgrad stores actions: before it is clipped or squashed.

    Of a Gaussian it is μ + σ ε. With the credit ∂Q/∂a it is the gradient of Q(s, a(s; ε)) with respect to the policy.

    Args:
        noise: ε, float, exactly the shape of the actions. `None`: the most likely action; of a model without a distribution
            its output, which is the action of a deterministic policy.
        distribution: the distribution that the model's output parametrizes; default the model's attribute `distribution`.
        head: the name of the output that holds the parameters; default as for `LogProb`.

    Raises:
        NotImplementedError: the distribution has no method `reparameterized`.
        TypeError: the distribution is not known, or its actions are one of several.
        ValueError: noise of another shape.
    """

    def __init__(self, noise: Any = None, distribution: Any = None, head: str | None = None) -> None:
        recipe = ReparameterizedAction(head, by_value(distribution), noise is not None)
        super().__init__(recipe, *_arrays(noise))


class ActionLogProb(Output):
    """log π(a(s; ε)|s), (N,), as a function of the weights alone: its gradient is the total one, also through the action.

    The gradient of `LogProb(actions)` holds the actions fixed.

    Args:
        noise: see `Action`.
        distribution: see `Action`.
        head: see `Action`.

    Raises:
        NotImplementedError, TypeError, ValueError: see `Action`.
    """

    def __init__(self, noise: Any = None, distribution: Any = None, head: str | None = None) -> None:
        recipe = ReparameterizedLogProbability(head, by_value(distribution), noise is not None)
        super().__init__(recipe, *_arrays(noise))


class Weighted(Output):
    """Σ_k w_nk f_k(x_n), (N,): one number for each sample, made of an output that is a vector.

    As `sample_weight=c` with the vector, but it adds up with other outputs, each under weights of its own, and a linearization
    of it has norms of whole samples: with w the credits, a sample's gradient is what it adds to the update.

    Args:
        output: f, (N, …): `Each(head)`, `Action(noise)`, or anything else that `output=` accepts.
        weights: w, float, of the output's shape, or one number for each sample, (N,).

    Raises:
        ValueError: weights of another shape.

    Example:
        >>> per_sample_norm(critics, inputs, output=Weighted(Each("q"), targets[:, None] - q))
    """

    def __init__(self, output: Any, weights: Any) -> None:
        term = Output.of(output)
        super().__init__(OverUnits(term.recipe), (weights, *term.arrays), (True, *term.batched))


def _arrays(noise: Any) -> tuple[tuple[Any, ...], tuple[bool, ...]]:
    return ((), ()) if noise is None else ((noise,), (True,))
