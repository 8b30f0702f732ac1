"""Rewards scaled by the deviation of their discounted sum, so that a value can learn them in any environment's units."""

import keras
import tensorflow as tf

from rlgrad import estimators
from rlgrad.policies.normalizer import RunningNormalizer

_CONSTANT = 1e-20  # of a variance, as a share of the mean's square


class RewardScale:
    """r / √(variance of u), u_t = r_t + γ u_t−1 within an episode, over every step of the run so far.

    No mean is subtracted, so signs keep their meaning. Logged and evaluated returns stay in the environment's units. The scaled
    rewards do not depend on these units, however small rewards are: the number that keeps the root away from 0 is a share of
    the variance. Where u does not vary, rewards are divided by |mean of u|; rewards that are all 0 stay 0.

    Args:
        num_envs: columns of a rollout.
        gamma: discount per step.
        whole_episodes: each column is one episode, so no sum continues in the next rollout.

    Attributes:
        variables: for checkpoints.

    Source: Engstrom et al. (2020), "Implementation matters in deep policy gradients", appendix A.2.
    """

    def __init__(self, num_envs: int, gamma: float, whole_episodes: bool) -> None:
        self._gamma, self._whole_episodes = gamma, whole_episodes
        self._sums = RunningNormalizer((), name="reward_scale")
        zeros = tf.zeros([num_envs], tf.float64)
        self._running = keras.Variable(zeros, dtype="float64", trainable=False, name="reward_scale_running")
        self.variables = [*self._sums.variables, self._running]

    def scale(self, rewards: tf.Tensor) -> tf.Tensor:
        """Return rewards at the current scale."""
        variance, square = self._sums.variance.value, tf.square(self._sums.mean.value)
        # Rounding alone gives a sum that is constant a variance of 1e-32 of its square.
        varies = variance > _CONSTANT * square
        size = tf.where(varies, variance + self._sums.epsilon * tf.minimum(variance, 1.0), square)
        return rewards / tf.cast(tf.where(size > 0.0, tf.sqrt(size), 1.0), rewards.dtype)

    def update(self, rewards: tf.Tensor, boundaries: tf.Tensor, mask: tf.Tensor) -> None:
        """Include a rollout in the statistics.

        Args:
            rewards: float (T, N).
            boundaries: bool (T, N), the episode ended after this step.
            mask: float (T, N), 0 for steps that do not count.
        """
        r = tf.cast(rewards, tf.float64)
        continues = 1.0 - tf.cast(boundaries, tf.float64)
        carried = tf.zeros_like(r[0]) if self._whole_episodes else self._running.value
        first = tf.concat([(r[0] + self._gamma * carried)[None], r[1:]], axis=0)
        discounts = self._gamma * tf.concat([tf.zeros_like(continues[:1]), continues[:-1]], axis=0)
        # The recursion of returns, but forward in time.
        u = estimators.discounted_sums(first[::-1], discounts[::-1])[::-1]
        if not self._whole_episodes:
            self._running.assign(u[-1] * continues[-1])
        self._sums.update(tf.reshape(u, [-1]), tf.reshape(mask, [-1]))


class StreamRewardScale(RewardScale):
    """The same of single steps, with u_t = r_t + γ (1 − end_t) u_t−1: the last step of an episode begins the sum anew.

    The next episode's sum then goes on from that step's reward.

    Source: Elsayed, Vasan & Mahmood (2024), "Streaming deep reinforcement learning finally works", algorithm 5.
    """

    def __init__(self, num_envs: int, gamma: float) -> None:
        super().__init__(num_envs, gamma, whole_episodes=False)

    def update(self, rewards: tf.Tensor, boundaries: tf.Tensor, mask: tf.Tensor) -> None:
        """Include a step of each environment, (1, N), in the statistics."""
        r, counts = tf.cast(rewards, tf.float64)[0], tf.convert_to_tensor(mask)[0] > 0.0
        before = tf.convert_to_tensor(self._running.value)
        u = r + self._gamma * (1.0 - tf.cast(boundaries, tf.float64)[0]) * before
        self._running.assign(tf.where(counts, u, before))
        self._sums.update(u, mask[0])
