"""Munchausen DQN: rewards get a share of the log-probability of what was done, and the next value is a soft one."""

import tensorflow as tf

import rlgrad
from rlgrad.replay import Exploration, Replay, Target


class Munchausen(rlgrad.ReplayAgent):
    """Vieillard et al. (2020), Munchausen RL, equation 4."""

    temperature: float = 0.03
    """τ of the softmax policy."""
    share: float = 0.9
    """α, of the log-probability that is added to the reward."""
    replay: Replay | None = Replay(
        capacity=50_000,
        batch_size=64,
        updates_per_step=0.5,
    )
    target: Target | None = Target(rate=0.005)
    exploration: Exploration = Exploration(random=0.1)

    def credit(self, batch, now):
        """Return the target less q. The share of log π is at least −1."""
        here = now.target(batch.observations).q_values
        after = now.target(batch.next_observations).q_values
        t = self.temperature
        log_pi = t * tf.nn.log_softmax(here / t)
        log_pi_after = t * tf.nn.log_softmax(after / t)
        bonus = tf.maximum(tf.gather(log_pi, batch.actions, batch_dims=1), -1.0)
        soft = tf.nn.softmax(after / t) * (after - log_pi_after)
        rewards = batch.rewards + self.share * bonus
        target = rewards + batch.discounts * tf.reduce_sum(soft, axis=-1)
        return {"q": target - now.q}
