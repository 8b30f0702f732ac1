"""Streaming agents in NumPy float64, written from Elsayed, Vasan & Mahmood (2024): lists of all that was seen.

An observation is standardized by the statistics of all up to and including itself, once: acting on it, learning from it as s
and, a step earlier, as s′, see the same numbers.
"""

import numpy as np

import rlgrad
from helpers.by_hand import entropy_gradient, flat, like, score, theta_and_phi, value, value_gradient
from helpers.values import q_gradient, q_values, theta_of


def traces_in(state):
    """The traces of all variables side by side, (N, P)."""
    return np.concatenate([np.reshape(z, (state.num_envs, -1)) for z in state.traces], axis=1)


class Script:
    """Steps of N environments that nobody has to play: observations, rewards and ends drawn beforehand."""

    def __init__(self, num_envs=1, seed=0, action=lambda rng: rng.integers(3), end=0.1, size=2):
        self.rng, self.num_envs, self._action, self._end, self._size = (
            np.random.default_rng(seed), num_envs, action, end, size,
        )  # fmt: skip
        self._now = self._observations()

    def play(self, actions=None):
        """A rollout of one step of each environment. `actions` (N,) of which those below 0 are drawn here."""
        after, n = self._observations(), self.num_envs
        chosen = np.stack([self._action(self.rng) for _ in range(n)])
        if actions is not None:
            chosen = np.where(actions >= 0, actions, chosen)
        rewards = (self.rng.normal(size=n) + 0.5).astype(np.float32)
        ends = self.rng.random(n) < self._end
        terminations = ends & (self.rng.random(n) < 0.5)
        rollout = rlgrad.Rollout(
            self._now[None],
            chosen[None],
            rewards[None],
            terminations[None],
            (ends & ~terminations)[None],
            after[None],
            np.zeros((1, n), np.float32),
            np.ones((1, n), np.float32),
        )
        self._now = np.where(ends[:, None], self._observations(), after)
        return rollout

    def _observations(self):
        return (self.rng.normal(size=(self.num_envs, self._size)) * [3.0, 0.5] + [1.0, -2.0]).astype(np.float32)


class Seen:
    """All observations so far."""

    def __init__(self, num_envs):
        self._all, self._begins = [], np.ones(num_envs, bool)

    def standardized(self, x):
        x = np.asarray(x, float)
        if not self._all:
            return np.clip(x, -10, 10)
        every = np.array(self._all)
        return np.clip((x - every.mean(0)) / np.sqrt(every.var(0) + 1e-8), -10, 10)

    def step(self, rollout):
        """s and s′ standardized, each when it was seen; the first ones of episodes count before their step."""
        self._all += [*rollout.observations[0][self._begins].astype(float)]
        x = self.standardized(rollout.observations[0])
        self._all += [*rollout.final_observations[0].astype(float)]
        self._begins = (rollout.terminations | rollout.truncations)[0]
        return x, self.standardized(rollout.final_observations[0])


class Rewards:
    """All discounted sums so far."""

    def __init__(self, num_envs, gamma):
        self._sums, self._running, self._gamma = [], np.zeros(num_envs), gamma

    def scaled(self, rollout):
        goes_on = ~(rollout.terminations | rollout.truncations)[0]
        self._running = rollout.rewards[0].astype(float) + self._gamma * goes_on * self._running
        self._sums += [*self._running]
        every = np.array(self._sums)
        variance, square = every.var(), every.mean() ** 2
        size = variance + 1e-8 * min(variance, 1.0) if variance > 1e-20 * square else square
        return rollout.rewards[0].astype(float) / np.sqrt(size)


class TraceByHand:
    """One trace for each stream, and the rule of the step."""

    def __init__(self, update, num_envs, size):
        self.update, self.z, self.v, self.steps = update, np.zeros((num_envs, size)), np.zeros(size), 0

    def step(self, weights, eligibility, deltas, gamma, cuts):
        """The weights after one step of each stream, and α′ of each."""
        update, moves, rates = self.update, [], []
        self.z = gamma * update.trace_decay * self.z + eligibility
        self.steps += 1
        if update.error_clip is not None:
            deltas = np.clip(deltas, -update.error_clip, update.error_clip)
        self.v = update.beta_2 * self.v + (1 - update.beta_2) * ((deltas[:, None] * self.z) ** 2).mean(0)
        corrected = self.v / (1 - update.beta_2**self.steps)
        alpha = update.learning_rate or 1.0
        for z, delta in zip(self.z, deltas, strict=True):
            direction, rate = z, alpha
            if update.step == "adam":
                direction = z / (np.sqrt(corrected) + update.epsilon)
            if update.step == "adaptive_obgd":
                direction = z / np.sqrt(corrected + update.epsilon)
            if "obgd" in update.step:
                overshoot = alpha * update.kappa * max(abs(delta), 1.0) * np.abs(direction).sum()
                rate = min(alpha / overshoot, alpha) if overshoot > 0 else alpha
            moves.append(rate * delta * direction)
            rates.append(rate)
        self.z[cuts] = 0.0
        total = np.sum(moves, axis=0) / (len(moves) if update.over_streams == "mean" else 1)
        return [w + m for w, m in zip(weights, like(total, weights), strict=True)], np.array(rates)


class StreamByHand:
    """The part that both kinds of agents share."""

    def __init__(self, agent):
        self.agent, n = agent, agent.num_envs
        self.seen = Seen(n) if agent.normalize_observations else None
        self.rewards = Rewards(n, agent.gamma) if agent.scale_rewards else None

    def numbers(self, rollout):
        """Observations, actions, rewards, successors, where the task ended, and where the episode did."""
        x, after = rollout.observations[0].astype(float), rollout.final_observations[0].astype(float)
        r = rollout.rewards[0].astype(float) if self.rewards is None else self.rewards.scaled(rollout)
        if self.seen is not None:
            x, after = self.seen.step(rollout)
        ends = (rollout.terminations | rollout.truncations)[0]
        ended = ends if self.agent.truncation_ends_task else rollout.terminations[0]
        return x, rollout.actions[0], r, after, ended, ends


class ActorCriticByHand(StreamByHand):
    """Algorithm 3."""

    def __init__(self, agent, policy):
        super().__init__(agent)
        self.theta, self.phi = theta_and_phi(policy)
        n = agent.num_envs
        self.of_policy = TraceByHand(agent.update.part("log_prob"), n, flat(self.theta).size)
        self.of_value = TraceByHand(agent.update.part("value"), n, flat(self.phi).size)

    def learn(self, rollout):
        agent, (x, a, r, after, ended, ends) = self.agent, self.numbers(rollout)
        delta = r + agent.gamma * np.where(ended, 0.0, value(self.phi, after)) - value(self.phi, x)
        one = np.ones(1)
        of_value = [flat(value_gradient(self.phi, x[n : n + 1], one)) for n in range(len(x))]
        of_policy = [
            flat(score(self.theta, x[n : n + 1], a[n : n + 1], one))
            + agent.entropy_coefficient * np.sign(delta[n]) * flat(entropy_gradient(self.theta, x[n : n + 1], one))
            for n in range(len(x))
        ]
        self.theta, rates = self.of_policy.step(self.theta, np.array(of_policy), delta, agent.gamma, ends)
        self.phi, _ = self.of_value.step(self.phi, np.array(of_value), delta, agent.gamma, ends)
        return delta, rates


class ActionValuesByHand(StreamByHand):
    """Stream Q(λ), and with `next_actions` stream SARSA(λ)."""

    def __init__(self, agent, policy):
        super().__init__(agent)
        self.theta = theta_of(policy)
        self.trace = TraceByHand(agent.update, agent.num_envs, flat(self.theta).size)

    def learn(self, rollout, next_actions=None):
        agent, (x, a, r, after, ended, ends) = self.agent, self.numbers(rollout)
        rows = np.arange(len(x))
        q, q_after = q_values(self.theta, x, agent), q_values(self.theta, after, agent)
        following = q_after.max(1) if next_actions is None else q_after[rows, next_actions]
        delta = r + agent.gamma * np.where(ended, 0.0, following) - q[rows, a]
        cuts = ends if next_actions is not None else ends | (a != q.argmax(1))
        eligibility = [flat(q_gradient(self.theta, x[n : n + 1], a[n : n + 1], np.ones(1), agent)) for n in rows]
        self.theta, rates = self.trace.step(self.theta, np.array(eligibility), delta, agent.gamma, cuts)
        return delta, rates
