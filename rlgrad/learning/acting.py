"""How acting for training differs from the policy: what an agent's exploration asks for, and which policies can do it."""

from typing import Any

import tensorflow as tf

from rlgrad.agent import Agent
from rlgrad.distributions import Exploring, StateDependentNoise
from rlgrad.policies.policy import Policy
from rlgrad.replay.records import Exploration
from rlgrad.rollouts.explorer import Explorer

_NONE = Exploration()  # made once: fields are checked whenever one is made, and this is asked before every rollout


def acting_policy(agent: Agent, policy: Policy, progress: Any, timesteps: Any, decided: Any = None) -> Any:
    """Return what acts for training: the policy, or where the agent explores, the policy with random actions or noise.

    Args:
        agent: explores.
        policy: acts.
        progress: share of the run already done, 0 … 1; a tensor in programs.
        timesteps: environment steps taken so far, likewise.
        decided: actions that were decided ahead; see `Explorer`.
    """
    if agent.replay is not None and agent.replay.data is not None:  # nothing is played
        return policy
    exploration = agent.exploration
    warmup = 0 if agent.replay is None else agent.replay.warmup
    if not warmup and decided is None and exploration == _NONE:
        return policy
    share = exploration.share(progress)
    if warmup:
        early = timesteps < warmup
        share = tf.where(early, 1.0, share) if tf.is_tensor(early) else 1.0 if early else share
    return Explorer(policy, share, exploration.deviation(progress) if exploration.noise != 0.0 else None, decided)


def require_explorable(agent: Agent, policy: Policy) -> None:
    """Raise a ValueError for random actions in a space without bounds, and for noise that a policy does not take."""
    if agent.replay is not None and agent.replay.data is not None:
        return
    if isinstance(policy.distribution, StateDependentNoise) and agent.num_steps == 1:
        raise ValueError(
            "state_dependent_noise stays for several steps of a rollout, and num_steps is 1: set num_steps to as many or more."
        )
    if agent.exploration.random != 0.0 or (agent.replay is not None and agent.replay.warmup):
        Exploring(policy.distribution, 1.0).require_bounds()
    if agent.exploration.noise == 0.0 or hasattr(policy.distribution, "noisy"):
        return
    if hasattr(policy.distribution, "allowed"):
        raise ValueError(
            "exploration.noise is Gaussian, for continuous actions, and these are Discrete: set exploration.random instead."
        )
    raise ValueError(
        "exploration.noise is for deterministic policies, and this one's actions are random by themselves: leave it out."
    )
