"""The agents that ship with rlgrad, one file each, imported on demand. They have no privilege that an agent of yours lacks."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlgrad.agents.a2c import A2C
    from rlgrad.agents.awac import AWAC
    from rlgrad.agents.bc import BC
    from rlgrad.agents.c51 import C51
    from rlgrad.agents.crossq import CrossQ
    from rlgrad.agents.ddpg import DDPG
    from rlgrad.agents.discretesac import DiscreteSAC
    from rlgrad.agents.dqn import DQN
    from rlgrad.agents.droq import DroQ
    from rlgrad.agents.impala import IMPALA
    from rlgrad.agents.iql import IQL
    from rlgrad.agents.npg import NPG
    from rlgrad.agents.ppo import PPO
    from rlgrad.agents.pqn import PQN
    from rlgrad.agents.qrdqn import QRDQN
    from rlgrad.agents.redq import REDQ
    from rlgrad.agents.reinforce import Reinforce
    from rlgrad.agents.sac import SAC
    from rlgrad.agents.streamac import StreamAC
    from rlgrad.agents.streamq import StreamQ
    from rlgrad.agents.streamsarsa import StreamSARSA
    from rlgrad.agents.td3 import TD3
    from rlgrad.agents.tqc import TQC
    from rlgrad.agents.trpo import TRPO

__all__ = [
    "A2C",
    "AWAC",
    "BC",
    "C51",
    "DDPG",
    "DQN",
    "IMPALA",
    "IQL",
    "NPG",
    "PPO",
    "PQN",
    "QRDQN",
    "REDQ",
    "SAC",
    "TD3",
    "TQC",
    "TRPO",
    "CrossQ",
    "DiscreteSAC",
    "DroQ",
    "Reinforce",
    "StreamAC",
    "StreamQ",
    "StreamSARSA",
]


def __getattr__(name: str) -> Any:
    """Import an agent's module, named like its class in small letters, when the class is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{name.lower()}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
