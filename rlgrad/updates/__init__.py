"""How the weights move, given how much each gradient counts."""

from rlgrad.updates.ascent import Ascent, AscentState

__all__ = ["Ascent", "AscentState"]
