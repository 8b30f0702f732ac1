"""AWAC: critics of recorded steps, and a policy that makes actions likelier the better they are than its own.

With d = γⁿ where the task goes on and 0 where it ended, E critics q_i of an observation and an action, slow copies q̄_i of them,
and fresh samples a′ ~ π(·|s′), ã ~ π(·|s), each drawn step has

    target       y = R + d min_i q̄_i(s′, a′)
    advantage    A = min_i q_i(s, a) − min_i q_i(s, ã)

As credits, positive raising the output:

    on ∇ q_i(s, a)     y − q_i(s, a)
    on ∇ log π(a|s)    min(exp(A / β), w_max)

The policy only weighs recorded actions, so it stays near them; with β → ∞ all weigh 1, which is behavior cloning. It learns
from data (`replay.data`), and goes on in the environment as any agent with a replay.

Where it fails: values of the policy's own samples are of actions that may not be recorded, and those the critics guess; with a
small β few steps have all the weight.

Source: Nair et al. (2020), "AWAC: Accelerating online reinforcement learning with offline datasets".
"""

import tensorflow as tf

from rlgrad import Credit, Outputs, ReplayAgent, ReplayBatch, search
from rlgrad.core.checks import require
from rlgrad.replay import Replay, Target
from rlgrad.updates import Ascent, Update


class AWAC(ReplayAgent):
    """Advantage-weighted actor-critic."""

    num_critics: int = 2
    """Critics, of whose values the smallest counts."""
    beta: float = 1.0
    """Temperature of the weights, in units of return: the smaller, the more the best actions count."""
    max_weight: float = 100.0
    """Largest weight of a step, w_max."""
    replay: Replay | None = Replay(batch_size=256)
    """Steps, recorded or played earlier, from which batches are drawn."""
    target: Target | None = Target(rate=0.005)
    """Slow copies of the critics, which value the next action."""
    update: Update = Ascent(learning_rate=3e-4)
    """How the weights move."""

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        super().__post_init__()
        for name in ("beta", "max_weight"):
            require(getattr(self, name) > 0, name, "above 0", getattr(self, name))

    def credit(self, batch: ReplayBatch, now: Outputs) -> Credit:
        """Return the credit in the table at the top of this file."""
        after = now.at(batch.next_observations).action
        y = batch.rewards + batch.discounts * tf.reduce_min(now.target(batch.next_observations, after).q, axis=-1)
        own = now.at(batch.observations, now.at(batch.observations).action)
        advantage = tf.reduce_min(now.q, axis=-1) - tf.reduce_min(own.q, axis=-1)
        return {"q": y[:, None] - now.q, "log_prob": tf.minimum(tf.exp(advantage / self.beta), self.max_weight)}

    def search_space(self) -> search.Space:
        """Return ranges for what is the agent's own besides."""
        return {**super().search_space(), "beta": search.Range(0.1, 10.0, log=True)}
