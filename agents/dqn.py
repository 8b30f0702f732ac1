"""DQN: learn how good each action is from what was played earlier, and take the best.

With d = γⁿ where the task goes on and 0 where it ended, and R the rewards of n steps, each drawn step has the target

    y = R + d q̄(s′)[a*],    a* = argmax_a q(s′)[a] (double), or argmax_a q̄(s′)[a]

q̄ are slow copies of the weights. As credits, positive raising the output:

    on ∇ q(s)[a]    y − q(s)[a], or clipped to ±error_clip

Four switches: `double` lets the current weights choose a* (van Hasselt et al., 2016); `dueling` splits the network's last layer
into a value and advantages (Wang et al., 2016); `replay.n_steps` adds up more rewards before it trusts q̄; and
`replay.prioritized` draws steps by |y − q|^0.6 (Schaul et al., 2016), with the importance weights in `batch.weights`.

error_clip = 1 is the Huber loss of Mnih et al. (2015), made for rewards of ±1. Where values are large it fails: the clipped
regression is one to a median, which ignores rare ends, and values grow without bound. So by default there is none.

Where it fails: the maximum of noisy values is too large, so values overshoot before they settle, the more the faster the
copies follow. It needs Discrete actions, and steps that the replay can hold.

Source: Mnih et al. (2015), "Human-level control through deep reinforcement learning".
"""

import tensorflow as tf

from rlgrad import Credit, Outputs, ReplayAgent, ReplayBatch, search
from rlgrad.core.checks import require
from rlgrad.replay import Exploration, Linear, Replay, Target
from rlgrad.updates import Ascent, Update


class DQN(ReplayAgent):
    """Deep Q-network."""

    double: bool = True
    """Choose the next action by the current weights, and value it by the target weights."""
    dueling: bool = False
    """Split the network's last layer into a value of the state and an advantage of each action."""
    error_clip: float | None = None
    """Largest credit of a step, in units of return: Huber's κ. `None`: no limit."""
    replay: Replay | None = Replay(capacity=100_000, batch_size=64, warmup=1_000)
    """Steps played earlier, from which batches are drawn."""
    target: Target | None = Target(rate=1.0, every=250)
    """Slow copies of the weights, which value the next action."""
    exploration: Exploration = Exploration(random=Linear(start=1.0, end=0.05, over=0.1))
    """How acting for training differs from the policy."""
    update: Update = Ascent(learning_rate=1e-3, max_grad_norm=10.0)
    """How the weights move."""

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        super().__post_init__()
        require(self.error_clip is None or self.error_clip > 0, "error_clip", "above 0", self.error_clip)

    def credit(self, batch: ReplayBatch, now: Outputs) -> Credit:
        """Return the credit in the table at the top of this file."""
        after = now.target(batch.next_observations).q_values
        chosen = tf.argmax(now.at(batch.next_observations).q_values if self.double else after, axis=-1)
        error = batch.rewards + batch.discounts * tf.gather(after, chosen, batch_dims=1) - now.q
        return {"q": error if self.error_clip is None else tf.clip_by_value(error, -self.error_clip, self.error_clip)}

    def search_space(self) -> search.Space:
        """Return the ranges of agents with a replay, and choices for how fast the copies follow."""
        return {**super().search_space(), "target.every": [10, 50, 100, 250, 1000], "replay.n_steps": [1, 3, 5]}
