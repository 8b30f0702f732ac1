"""Environments written in TensorFlow, behind Gymnasium's `FuncEnv` interface: pure functions with explicit seeds.

`gymnasium.register_envs(rlgrad.envs)` makes them ordinary Gymnasium environments. rlgrad's own commands find them without it.
"""

from rlgrad.environments.ids import register
from rlgrad.envs.acrobot import Acrobot
from rlgrad.envs.breakout import Breakout
from rlgrad.envs.cartpole import CartPole
from rlgrad.envs.mountain_car import MountainCar
from rlgrad.envs.mountain_car_continuous import MountainCarContinuous
from rlgrad.envs.pendulum import Pendulum
from rlgrad.envs.short_corridor import ShortCorridor

register()

__all__ = ["Acrobot", "Breakout", "CartPole", "MountainCar", "MountainCarContinuous", "Pendulum", "ShortCorridor"]
