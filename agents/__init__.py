"""The agents that ship with rlgrad, one file each. They have no privilege that an agent of yours lacks."""

from rlgrad.agents.a2c import A2C
from rlgrad.agents.npg import NPG
from rlgrad.agents.ppo import PPO
from rlgrad.agents.reinforce import Reinforce
from rlgrad.agents.trpo import TRPO

__all__ = ["A2C", "NPG", "PPO", "TRPO", "Reinforce"]
