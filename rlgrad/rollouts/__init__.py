"""Rollout collection: what the policy met, as a record of NumPy arrays."""

from rlgrad.data import Episode, Rollout
from rlgrad.rollouts.gym import ActingPolicy, GymCollector

__all__ = ["ActingPolicy", "Episode", "GymCollector", "Rollout"]
