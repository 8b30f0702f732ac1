"""DDPG: Q-learning for continuous actions, where a deterministic actor stands in for the maximum over actions.

With d = γⁿ where the task goes on and 0 where it ended, a critic q of an observation and an action, and a policy μ whose
actions are −1 … 1, in half-widths of the action space, each drawn step has the target

    y = R + d q̄(s′, μ̄(s′))

q̄ and μ̄ are slow copies. As credits, positive raising the output:

    on ∇ q(s, a)           y − q(s, a)
    on ∇ μ(s), a vector    ∇ₐ q(s, a) at a = μ(s): how the critic's value grows with each number of the action

That slope is a gradient with respect to an input, the deterministic policy gradient of Silver et al. (2014).

Where it fails: the actor finds the actions whose value the critic overestimates, and the target believes them, so values run
away; TD3 is this agent with remedies. It needs continuous actions with bounds.

Source: Lillicrap et al. (2016), "Continuous control with deep reinforcement learning".
"""

from rlgrad import Credit, Outputs, ReplayAgent, ReplayBatch
from rlgrad.replay import Exploration, Replay, Target
from rlgrad.updates import Ascent, PerHead, Update


class DDPG(ReplayAgent):
    """Deep deterministic policy gradient."""

    num_steps: int | None = 1
    """Steps per environment between two calls of the learner."""
    replay: Replay | None = Replay(capacity=1_000_000, batch_size=256, warmup=10_000)
    """Steps played earlier, from which batches are drawn."""
    target: Target | None = Target(rate=0.005)
    """Slow copies of the critic and of the policy, which value the next action."""
    exploration: Exploration = Exploration(noise=0.1)
    """How acting for training differs from the policy."""
    update: Update = PerHead(policy=Ascent(learning_rate=1e-3), value=Ascent(learning_rate=1e-3))
    """How the weights move."""

    @property
    def deterministic(self) -> bool:
        """The network says the action itself."""
        return True

    def credit(self, batch: ReplayBatch, now: Outputs) -> Credit:
        """Return the credit in the table at the top of this file."""
        action = now.target(batch.next_observations).action
        y = batch.rewards + batch.discounts * now.target(batch.next_observations, action).q[:, 0]
        return {
            "q": y[:, None] - now.q,
            "action": now.slope(lambda heads: heads.q[:, 0], batch.observations, now.action),
        }
