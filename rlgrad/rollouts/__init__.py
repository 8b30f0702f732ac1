"""Rollout collection: what the policy met, as a record of NumPy arrays."""

from rlgrad.rollouts.collector import ActingPolicy, GymCollector
from rlgrad.rollouts.episodes import Episode
from rlgrad.rollouts.rollout import Rollout

__all__ = ["ActingPolicy", "Episode", "GymCollector", "Rollout"]
