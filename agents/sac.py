"""SAC: an actor that follows its critics uphill and is paid for its entropy, at a temperature that learns itself.

With d = γⁿ where the task goes on and 0 where it ended, two critics q₁, q₂ of an observation and an action, and a(s; ε) a
sample of the policy as a function of its weights and of noise, each drawn step has the target

    y = R + d (min_i q̄_i(s′, a′) − α log π(a′|s′)),    a′ ~ π(·|s′)

q̄ are slow copies of the critics. As credits, positive raising the output:

    on ∇ q_i(s, a)              y − q_i(s, a)
    on ∇ a(s; ε), a vector      ∇ₐ min_i q_i(s, a) at a = a(s; ε): how the critics' value grows with each number of the action
    on ∇ log π(a(s; ε)|s)       −α
    on ∇ log α                  log π(a(s; ε)|s) + H̄, H̄ the entropy to keep: it raises α where the entropy is too low

The slope is a gradient with respect to an input, so it comes as numbers, and no copy of the critics has to be frozen. The
policy is a Gaussian whose mean and deviation the network says, brought into the action space by a tanh. Log-probabilities are
densities per half-width of the space, so that `target_entropy` means the same in every environment.

Where it fails: one gradient step for each environment step makes it slow per step; rewards much larger than 1 drown the
entropy, so scale them; it needs continuous actions with bounds.

Source: Haarnoja et al. (2018), "Soft actor-critic algorithms and applications".
"""

from typing import ClassVar

import tensorflow as tf

from rlgrad import Credit, Outputs, ReplayAgent, ReplayBatch
from rlgrad.policies import CriticNetwork
from rlgrad.replay import Replay, Target
from rlgrad.updates import Ascent, Update


class SAC(ReplayAgent):
    """Soft actor-critic with automatic temperature."""

    num_critics: int = 2
    """Critics, of whose values the smallest counts."""
    target_entropy: float | None = None
    """Entropy that the temperature keeps, in nats per half-width. `None`: minus the numbers of an action."""
    critic: CriticNetwork = CriticNetwork()
    """Settings of the critics' networks."""
    num_steps: int | None = 1
    """Steps per environment between two calls of the learner."""
    replay: Replay | None = Replay(capacity=1_000_000, batch_size=256, warmup=1_000)
    """Steps played earlier, from which batches are drawn."""
    target: Target | None = Target(rate=0.005)
    """Slow copies of the critics, which value the next action."""
    update: Update = Ascent(learning_rate=3e-4)
    """How the weights move."""
    scalars: ClassVar = {"log_alpha": 0.0}

    def credit(self, batch: ReplayBatch, now: Outputs) -> Credit:
        """Return the credit in the table at the top of this file."""
        size = now.action.shape[1:].num_elements()
        kept = -float(size) if self.target_entropy is None else self.target_entropy
        return {
            "q": self.critic_credit(batch, now),
            "action": now.slope(lambda heads: self.value(heads.q), batch.observations, now.action),
            "action_log_prob": -tf.exp(now.log_alpha),
            "log_alpha": now.action_log_prob + kept,
        }

    def critic_credit(self, batch: ReplayBatch, now: Outputs) -> tf.Tensor:
        """Return y − q_i, float (M, E)."""
        there = now.at(batch.next_observations)
        following = self.following(now.target(batch.next_observations, there.action).q, now)
        y = batch.rewards + batch.discounts * (following - tf.exp(now.log_alpha) * there.action_log_prob)
        return y[:, None] - now.q

    def following(self, q: tf.Tensor, now: Outputs) -> tf.Tensor:
        """Return the value that counts of the target critics' (M, E): the smallest."""
        del now
        return tf.reduce_min(q, axis=-1)

    def value(self, q: tf.Tensor) -> tf.Tensor:
        """Return the value of the critics' (M, E) that the actor climbs: the smallest."""
        return tf.reduce_min(q, axis=-1)

    def measure(self, batch: ReplayBatch, now: Outputs) -> dict[str, tf.Tensor]:
        """Return the temperature α."""
        return {"temperature": tf.exp(now.log_alpha)}
