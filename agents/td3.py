"""TD3: a deterministic actor that climbs its critic, with three remedies for critics that promise too much.

With d = γⁿ where the task goes on and 0 where it ended, two critics q₁, q₂ of an observation and an action, and a policy μ
whose actions are −1 … 1, in half-widths of the action space, each drawn step has the target

    y = R + d min_i q̄_i(s′, a′),    a′ = clip(μ̄(s′) + clip(σ ε, ±c), −1, 1)

q̄ and μ̄ are slow copies. As credits, positive raising the output:

    on ∇ q_i(s, a)         y − q_i(s, a)
    on ∇ μ(s), a vector    ∇ₐ q₁(s, a) at a = μ(s): how the critic's value grows with each number of the action

That slope is a gradient with respect to an input, the deterministic policy gradient of Silver et al. (2014). The remedies: the
smaller of two critics; noise on the copy's action, which smooths the critic along actions; and a policy that moves at every
second step of the critics (`update.policy_every`).

Where it fails: exploration is plain noise around the policy, so rewards that it does not meet are never found; it needs
continuous actions with bounds.

Source: Fujimoto, van Hoof & Meger (2018), "Addressing function approximation error in actor-critic methods".
"""

import tensorflow as tf

from rlgrad import Credit, Outputs, ReplayAgent, ReplayBatch
from rlgrad.core.checks import require
from rlgrad.replay import Exploration, Replay, Target
from rlgrad.updates import Ascent, PerHead, Update


class TD3(ReplayAgent):
    """Twin delayed deep deterministic policy gradient."""

    num_critics: int = 2
    """Critics, of whose values the smallest is the target."""
    smoothing: float = 0.2
    """Standard deviation of the noise on the copy's action, in half-widths."""
    smoothing_clip: float = 0.5
    """Largest such noise, in half-widths."""
    num_steps: int | None = 1
    """Steps per environment between two calls of the learner."""
    replay: Replay | None = Replay(capacity=1_000_000, batch_size=256, warmup=10_000)
    """Steps played earlier, from which batches are drawn."""
    target: Target | None = Target(rate=0.005)
    """Slow copies of the critics and of the policy, which value the next action."""
    exploration: Exploration = Exploration(noise=0.1)
    """How acting for training differs from the policy."""
    update: Update = PerHead(policy=Ascent(learning_rate=1e-3), value=Ascent(learning_rate=1e-3), policy_every=2)
    """How the weights move."""

    @property
    def deterministic(self) -> bool:
        """The network says the action itself."""
        return True

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        super().__post_init__()
        for name in ("smoothing", "smoothing_clip"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))

    def credit(self, batch: ReplayBatch, now: Outputs) -> Credit:
        """Return the credit in the table at the top of this file."""
        action = now.target(batch.next_observations).action
        size = action.shape[1:].num_elements()
        noise = tf.reshape(self.smoothing * now.noise(size), tf.shape(action))
        action = tf.clip_by_value(
            action + tf.clip_by_value(noise, -self.smoothing_clip, self.smoothing_clip), -1.0, 1.0
        )
        y = batch.rewards + batch.discounts * tf.reduce_min(now.target(batch.next_observations, action).q, axis=-1)
        return {
            "q": y[:, None] - now.q,
            "action": now.slope(lambda heads: heads.q[:, 0], batch.observations, now.action),
        }
