"""How much critics overestimate: what they say of the steps of fresh episodes, beside what those steps then returned."""

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from rlgrad.core.nested import map_leaves
from rlgrad.data import Rollout
from rlgrad.diagnostics.formulas import discounted_returns
from rlgrad.diagnostics.inspection import Row, amount
from rlgrad.learning.asking import Answers
from rlgrad.learning.learner import Learner
from rlgrad.learning.objective import expected_return
from rlgrad.policies.policy import Policy

Array = np.ndarray[Any, Any]
_TEMPERATURE = "log_alpha"  # the scalar of agents whose critics count entropy as reward


@dataclass(frozen=True)
class QBias:
    """The values that critics give the steps of some episodes, beside the discounted returns that followed, in units of reward.

    Attributes:
        said: mean of q(s, a), of all critics.
        returned: mean of the discounted returns from there.
        bias: mean of q(s, a) less the return: above 0, critics overestimate.
        spread: standard deviation of that difference.
        episodes: that were played.
        steps: that were compared.
    """

    said: float
    returned: float
    bias: float
    spread: float
    episodes: int
    steps: int

    @property
    def relative(self) -> float:
        """The bias as a share of |returned|; infinite if that is 0."""
        return self.bias / abs(self.returned) if self.returned else float("inf")


def measure_q_bias(learner: Learner, policy: Policy, collector: Any, rounds: int) -> QBias:
    """Play whole episodes by the policy itself, and compare.

    Args:
        learner: of an agent that credits `"q"`.
        policy: at the weights of the moment.
        collector: of whole episodes; closed at the end.
        rounds: rollouts to collect.

    Raises:
        NotImplementedError: the agent credits no q.
        ValueError: every episode is a single step that a time limit cut, so that there is nothing to compare.
    """
    if "q" not in learner.credited:
        raise NotImplementedError(
            f"{type(learner.agent).__name__} credits no q, so nothing says what a step will return."
        )
    said, returned, episodes = [], [], 0
    with contextlib.closing(collector):
        for _ in range(rounds):
            rollout = collector.collect(policy)
            q, returns, counts = _compared(learner, policy, rollout)
            said.append(q[counts])
            returned.append(returns[counts])
            episodes += rollout.mask.shape[1]
    q, returns = np.concatenate(said), np.concatenate(returned)
    if not len(q):
        raise ValueError("Every episode is a single step that a time limit cut: there is no return to compare with.")
    return QBias(
        float(q.mean()),
        float(returns.mean()),
        float((q - returns).mean()),
        float((q - returns).std()),
        episodes,
        len(q),
    )


def bias_rows(found: QBias) -> list[Row]:
    """Return the rows of `rlgrad inspect`."""
    compared = f"Mean over {found.steps:,} steps of {found.episodes} episodes played now"
    share = (
        f"{100 * abs(found.relative):.3g} % of the mean return" if math.isfinite(found.relative) else "The return is 0"
    )
    which = "too much" if found.bias > 0.0 else "too little"
    return [
        Row("q: said", amount(found.said), f"{compared}."),
        Row(
            "q: returned",
            amount(found.returned),
            "What then came, discounted; a time limit goes on with what was said.",
        ),
        Row(
            "q: bias", amount(found.bias), f"{share}: the critics say {which}. Its deviation is {amount(found.spread)}."
        ),
    ]


def episode_returns(
    rewards: Array, q: Array, bonus: Array, terminations: Array, mask: Array, gamma: float
) -> tuple[Array, Array]:
    """Return the discounted return of each step of whole episodes, one a column, and which steps have one.

    An episode that a time limit cut goes on, with q of its last step, which therefore has no return of its own.

    Args:
        rewards: (T, N).
        q: likewise, of each step.
        bonus: likewise: what is added to the rewards of a step, but does not count in its own q.
        terminations: bool, likewise: the step ended the task.
        mask: likewise, 0 where nothing was played.
        gamma: discount per step.
    """
    returns, counts = np.zeros_like(q), mask > 0.0
    for column in range(q.shape[1]):
        last = int(np.count_nonzero(mask[:, column])) - 1
        ended = bool(terminations[last, column])
        following = rewards[last, column] if ended else q[last, column]
        returns[last, column], counts[last, column] = following, counts[last, column] and ended
        paid = rewards[:last, column] + gamma * bonus[1 : last + 1, column]
        returns[:last, column] = discounted_returns(paid, gamma, following)
    return returns, counts


def _compared(learner: Learner, policy: Policy, rollout: Rollout) -> tuple[Array, Array, Array]:
    """Return q, the returns and which steps count, each (T, N), of a rollout of whole episodes."""
    shape, agent = rollout.rewards.shape, learner.agent
    observations, actions = (
        map_leaves(lambda x: tf.reshape(x, (-1, *x.shape[2:])), tree)
        for tree in (rollout.observations, rollout.actions)
    )
    said = expected_return(policy, Answers(policy, observations, actions).q)
    q = np.asarray(said, np.float64).reshape(shape)
    rewards = rollout.rewards if learner.reward_scale is None else learner.reward_scale.scale(rollout.rewards)
    scalars = policy.scalars
    alpha = float(np.exp(scalars[_TEMPERATURE].numpy())) if _TEMPERATURE in scalars else 0.0
    bonus = -alpha * np.asarray(rollout.log_probs, np.float64)
    terminations, mask = np.asarray(rollout.terminations), np.asarray(rollout.mask)
    returns, counts = episode_returns(np.asarray(rewards, np.float64), q, bonus, terminations, mask, agent.gamma)
    return q, returns, counts
