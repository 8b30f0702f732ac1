"""How the weights move, given how much each gradient counts."""

from rlgrad.updates.ascent import Ascent, AscentState
from rlgrad.updates.per_head import PerHead, PerHeadState

# What `type:` under an agent's `update:` names, in YAML and on the command line.
UPDATES: dict[str, type[Ascent] | type[PerHead]] = {"ascent": Ascent, "per_head": PerHead}

__all__ = ["UPDATES", "Ascent", "AscentState", "PerHead", "PerHeadState"]
