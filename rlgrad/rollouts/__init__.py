"""Rollouts: playing a policy in environments, and recording its steps as arrays."""

from rlgrad.data import Episode, Rollout
from rlgrad.rollouts.base import ActingPolicy, Collector
from rlgrad.rollouts.explorer import Explorer
from rlgrad.rollouts.gym import GymCollector

__all__ = ["ActingPolicy", "Collector", "Episode", "Explorer", "GymCollector", "Rollout"]
