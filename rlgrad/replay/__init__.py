"""The replay: steps that were played earlier, kept in variables, from which batches are drawn."""

from rlgrad.replay.disk import Segments
from rlgrad.replay.drawn import Drawn
from rlgrad.replay.records import Exploration, Linear, Replay, Target
from rlgrad.replay.ring import Ring

__all__ = ["Drawn", "Exploration", "Linear", "Replay", "Ring", "Segments", "Target"]
