"""Environments written in TensorFlow, behind Gymnasium's `FuncEnv` interface: pure functions with explicit seeds.

`gymnasium.register_envs(rlgrad.envs)` makes them ordinary Gymnasium environments; rlgrad's own commands find them without it.
"""

from rlgrad.envs.short_corridor import ShortCorridor
from rlgrad.rollouts.functional import register

register()

__all__ = ["ShortCorridor"]
