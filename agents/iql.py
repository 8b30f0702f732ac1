"""IQL: values of recorded actions alone, of which the better ones count more, and a policy that prefers those.

With d = γⁿ where the task goes on and 0 where it ended, E critics q_i of an observation and an action, slow copies q̄_i of them,
and a value v of an observation, each drawn step has u = min_i q̄_i(s, a) − v(s), by how much its action is better than v says.
As credits, positive raising the output:

    on ∇ v(s)          |τ − 1(u < 0)| u, the slope of an expectile: with τ above ½ better actions pull more
    on ∇ q_i(s, a)     R + d v(s′) − q_i(s, a)
    on ∇ log π(a|s)    min(exp(u / β), w_max)

No value of an action that is not recorded is ever asked for. With τ = ½ v is the mean over the recorded actions, so that q is
the value of whoever acted; with τ → 1 it is that of the best recorded action.

Where it fails: near τ = 1 lucky outcomes count as good actions; the policy stays near the recorded actions, also where it
could be better.

Source: Kostrikov, Nair & Levine (2022), "Offline reinforcement learning with implicit Q-learning".
"""

import tensorflow as tf

from rlgrad import Credit, Outputs, ReplayBatch, search
from rlgrad.agents.awac import AWAC
from rlgrad.core.checks import require
from rlgrad.replay import Target


class IQL(AWAC):
    """Implicit Q-learning."""

    expectile: float = 0.7
    """τ, above 0 and below 1: ½ values the recorded actions, near 1 the best of them."""
    beta: float = 1.0 / 3.0
    """Temperature of the weights, in units of return: the smaller, the more the best actions count."""
    target: Target | None = Target(rate=0.005)
    """Slow copies of the critics, which value the recorded action."""

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        super().__post_init__()
        require(0.0 < self.expectile < 1.0, "expectile", "above 0, below 1", self.expectile)

    def credit(self, batch: ReplayBatch, now: Outputs) -> Credit:
        """Return the credit in the table at the top of this file."""
        better = tf.reduce_min(now.target(batch.observations, batch.actions).q, axis=-1) - now.value
        share = tf.where(better < 0.0, 1.0 - self.expectile, self.expectile)
        y = batch.rewards + batch.discounts * now.at(batch.next_observations).value
        weight = tf.minimum(tf.exp(better / self.beta), self.max_weight)
        return {"value": share * better, "q": y[:, None] - now.q, "log_prob": weight}

    def search_space(self) -> search.Space:
        """Return ranges for what is the agent's own besides."""
        return {**super().search_space(), "expectile": search.Range(0.5, 0.95)}
