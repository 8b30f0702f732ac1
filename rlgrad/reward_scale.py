"""Rewards in units of how much their discounted sum varies, which a value can learn whatever the environment's units are."""

from typing import Any

import keras
import tensorflow as tf

from rlgrad import estimators


class RewardScale:
    """r / √(variance of u), u_t = r_t + γ u_t−1 within an episode, over every step of the run so far.

    Nothing is taken off the rewards: a sign keeps its meaning. What is logged and evaluated stays in the environment's units.

    Args:
        num_envs: columns of a rollout.
        gamma: discount per step.
        whole_episodes: columns are episodes, so that none goes on in the next rollout.

    Attributes:
        variables: what a checkpoint keeps.

    Source: Engstrom et al. (2020), "Implementation matters in deep policy gradients", appendix A.2.
    """

    def __init__(self, num_envs: int, gamma: float, whole_episodes: bool) -> None:
        self._gamma, self._whole_episodes = gamma, whole_episodes

        def variable(value: Any, name: str) -> keras.Variable:
            return keras.Variable(value, dtype="float64", trainable=False, name=f"reward_scale_{name}")

        # In float64: a float32 count stops growing at 2²⁴ steps.
        self._mean, self._variance, self._count = (
            variable(x, n) for x, n in ((0.0, "mean"), (1.0, "variance"), (0.0, "count"))
        )
        self._running = variable(tf.zeros([num_envs], tf.float64), "running")
        self.variables = [self._mean, self._variance, self._count, self._running]

    def scaled(self, rewards: tf.Tensor) -> tf.Tensor:
        """Rewards at the present scale."""
        return rewards / tf.cast(tf.sqrt(self._variance.value + 1e-8), rewards.dtype)

    def update(self, rewards: tf.Tensor, boundaries: tf.Tensor, mask: tf.Tensor) -> None:
        """Take in a rollout.

        Args:
            rewards: float (T, N).
            boundaries: bool (T, N), the episode ended after this step.
            mask: float (T, N), 0 for steps that do not count.
        """
        r, mask = tf.cast(rewards, tf.float64), tf.cast(mask, tf.float64)
        goes_on = 1.0 - tf.cast(boundaries, tf.float64)
        carried = tf.zeros_like(r[0]) if self._whole_episodes else self._running.value
        first = tf.concat([(r[0] + self._gamma * carried)[None], r[1:]], axis=0)
        discounts = self._gamma * tf.concat([tf.zeros_like(goes_on[:1]), goes_on[:-1]], axis=0)
        # The recursion runs forward in time: that of returns, with time turned around.
        u = estimators.discounted_sums(first[::-1], discounts[::-1])[::-1]
        if not self._whole_episodes:
            self._running.assign(u[-1] * goes_on[-1])
        added = tf.reduce_sum(mask)
        mean = tf.reduce_sum(mask * u) / tf.maximum(added, 1.0)
        squares = tf.reduce_sum(mask * tf.square(u - mean))
        total, gap = tf.maximum(self._count.value + added, 1.0), mean - self._mean.value
        squares += self._variance.value * self._count.value + tf.square(gap) * self._count.value * added / total
        self._mean.assign(self._mean.value + gap * added / total)
        self._variance.assign(tf.where(self._count.value + added > 0.0, squares / total, self._variance.value))
        self._count.assign(self._count.value + added)
