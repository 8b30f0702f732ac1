"""A policy is a Keras model, a distribution over actions and an observation normalizer."""

from rlgrad.policies.build import make_policy
from rlgrad.policies.critic_options import CriticNetwork
from rlgrad.policies.normalizer import RunningNormalizer
from rlgrad.policies.policy import Policy

__all__ = ["CriticNetwork", "Policy", "RunningNormalizer", "make_policy"]
