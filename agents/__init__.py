"""The agents that ship with rlgrad, one file each. They have no privilege that an agent of yours lacks."""

from rlgrad.agents.reinforce import Reinforce

__all__ = ["Reinforce"]
