"""Munchausen DQN: rewards get a share of the log-probability of what was done, and the next value is a soft one."""

import tensorflow as tf

import rlgrad
from rlgrad.replay import Exploration, Replay, Target


class Munchausen(rlgrad.ReplayAgent):
    """Vieillard et al. (2020), "Munchausen reinforcement learning", equation 4."""

    temperature: float = 0.03
    """τ of the softmax policy."""
    share: float = 0.9
    """α, of the log-probability that is added to the reward."""
    replay: Replay | None = Replay(capacity=50_000, batch_size=64, updates_per_step=0.5)
    target: Target | None = Target(rate=0.005)
    exploration: Exploration = Exploration(random=0.1)

    def credit(self, batch, now):
        """Return the target less q. The share of log π is at least −1."""
        here, after = now.target(batch.observations).q_values, now.target(batch.next_observations).q_values
        log_pi, log_pi_after = (self.temperature * tf.nn.log_softmax(q / self.temperature) for q in (here, after))
        bonus = tf.maximum(tf.gather(log_pi, batch.actions, batch_dims=1), -1.0)
        value = tf.reduce_sum(tf.nn.softmax(after / self.temperature) * (after - log_pi_after), axis=-1)
        return {"q": batch.rewards + self.share * bonus + batch.discounts * value - now.q}
