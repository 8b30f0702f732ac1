"""Discrete SAC: SAC with a policy of Discrete actions, whose gradient takes all actions instead of a sample.

With d = γⁿ where the task goes on and 0 where it ended, two critics q₁, q₂ that say a value of each action, and a policy with
logits l, each drawn step has the target

    y = R + d Σ_a π(a|s′) (min_i q̄_i(s′)[a] − α log π(a|s′))

q̄ are slow copies of the critics. As credits, positive raising the output:

    on ∇ q_i(s)[a], of the action taken    y − q_i(s)[a]
    on ∇ l(s), a vector                    π (A − Σ_a π(a) A[a]),    A = min_i q_i(s) − α log π(·|s)
    on ∇ log α                             H̄ − H(π(·|s)): it raises α where the entropy is too low

The credit on the logits is the exact gradient of Σ_a π(a) A[a] with A held still: nothing is sampled. The entropy to keep,
H̄, is a share of that of the uniform policy over the allowed actions, the logarithm of their number. Actions that a mask
forbids have probability 0, so they count in no sum.

Where it fails: rewards much larger than 1 drown the entropy, so scale them; a share near 1 keeps the policy near uniform where
one action is right; and the smallest of two critics is too careful where rewards are sparse.

Source: Christodoulou (2019), "Soft actor-critic for discrete action settings".
"""

from typing import ClassVar

import tensorflow as tf

from rlgrad import Credit, Outputs, ReplayAgent, ReplayBatch
from rlgrad.core.checks import require
from rlgrad.policies import CriticNetwork
from rlgrad.replay import Replay, Target
from rlgrad.updates import Ascent, Update


class DiscreteSAC(ReplayAgent):
    """Soft actor-critic for Discrete actions, with automatic temperature."""

    num_critics: int = 2
    """Critics, of whose values the smallest counts."""
    entropy_share: float = 0.5
    """Entropy that the temperature keeps, as a share of that of the uniform policy over the allowed actions."""
    critic: CriticNetwork = CriticNetwork()
    """Settings of the critics' networks."""
    replay: Replay | None = Replay(capacity=100_000, batch_size=64, warmup=1_000)
    """Steps played earlier, from which batches are drawn."""
    target: Target | None = Target(rate=0.005)
    """Slow copies of the critics, which value the next actions."""
    update: Update = Ascent(learning_rate=3e-4)
    """How the weights move."""
    scalars: ClassVar = {"log_alpha": 0.0}
    critics_of_actions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        super().__post_init__()
        require(0.0 <= self.entropy_share <= 1.0, "entropy_share", "between 0 and 1", self.entropy_share)

    def credit(self, batch: ReplayBatch, now: Outputs) -> Credit:
        """Return the credit in the table at the top of this file."""
        alpha, log_pi = tf.exp(now.log_alpha)[:, None], tf.nn.log_softmax(now.logits)
        pi, log_after = tf.exp(log_pi), tf.nn.log_softmax(now.at(batch.next_observations).logits)
        after = tf.reduce_min(now.target(batch.next_observations).q_values, axis=1) - alpha * log_after
        y = batch.rewards + batch.discounts * tf.reduce_sum(tf.exp(log_after) * after, axis=-1)
        worth = tf.reduce_min(now.at(batch.observations).q_values, axis=1) - alpha * log_pi
        allowed = tf.reduce_sum(tf.cast(now.logits > -1e8, tf.float32), axis=-1)
        return {
            "q": y[:, None] - now.q,
            "logits": pi * (worth - tf.reduce_sum(pi * worth, axis=-1, keepdims=True)),
            "log_alpha": self.entropy_share * tf.math.log(allowed) + tf.reduce_sum(pi * log_pi, axis=-1),
        }

    def measure(self, batch: ReplayBatch, now: Outputs) -> dict[str, tf.Tensor]:
        """Return the temperature α."""
        return {"temperature": tf.exp(now.log_alpha)}
