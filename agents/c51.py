"""C51: learn the distribution of each action's return over fixed atoms, by moving it towards the one that was sampled.

The network says K logits f_k(s)[a] of the returns x_k, equally far apart from support[0] to support[1]; p = softmax(f). With
R, d and s′ as in DQN, and a* the action of the largest mean Σ_k p̄_k x_k at s′, the atoms R + d x_j with the probabilities
p̄_j(s′)[a*] are the sampled distribution. Each is split between its two neighbors x_k in proportion to its nearness:

    m_k = Σ_j p̄_j(s′)[a*] max(0, 1 − |clip(R + d x_j, support) − x_k| / Δ),    Δ = x_2 − x_1

As credits, positive raising the output:

    on ∇ f_k(s)[a]    m_k − p_k(s)[a]

Where it fails: returns outside of the support are taken for its ends, so it must be known beforehand: [0, 1 / (1 − γ)] for a
reward of 1 a step.

Source: Bellemare et al. (2017), "A distributional perspective on reinforcement learning", algorithm 1.
"""

from typing import Any

import tensorflow as tf

from rlgrad import Credit, Outputs, ReplayBatch
from rlgrad.agents.dqn import DQN
from rlgrad.core.checks import require


class C51(DQN):
    """Deep Q-network with a categorical distribution of the return."""

    double: bool = False
    """Choose the next action by the current weights, and value it by the target weights."""
    atoms: int = 51
    """Returns that the distribution is over."""
    support: tuple[float, float] = (-10.0, 10.0)
    """The lowest and the highest of them, in units of return."""

    def __post_init__(self) -> None:
        """Check the fields, and those that contradict each other."""
        super().__post_init__()
        require(self.atoms >= 2, "atoms", "at least 2", self.atoms)
        require(self.support[0] < self.support[1], "support", "two numbers that go up", self.support)
        if self.error_clip is not None:
            raise ValueError("error_clip clips errors of an expectation, and C51's are of probabilities: leave it out.")

    def credit(self, batch: ReplayBatch, now: Outputs) -> Credit:
        """Return the credit in the table at the top of this file."""
        there = now.target(batch.next_observations)
        best = tf.argmax(now.at(batch.next_observations).expected if self.double else there.expected, axis=-1)
        after = tf.nn.softmax(tf.gather(there.q_values, best, batch_dims=1))
        return {"q": self.projected(batch, after) - tf.nn.softmax(now.q)}

    def projected(self, batch: ReplayBatch, after: Any) -> Any:
        """Return m, float (M, K), of probabilities (M, K) at the successors."""
        low, high = self.support
        x = tf.linspace(low, high, self.atoms)
        sampled = tf.clip_by_value(batch.rewards[:, None] + batch.discounts[:, None] * x, low, high)
        share = tf.maximum(0.0, 1.0 - tf.abs(sampled[:, None, :] - x[:, None]) * ((self.atoms - 1) / (high - low)))
        return tf.linalg.matvec(share, after)
