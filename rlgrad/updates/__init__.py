"""How the weights move, given how much each gradient counts. `rlgrad.updates.base` has the contract, for a rule of your own."""

from rlgrad.updates.ascent import Ascent
from rlgrad.updates.base import NoSlots, Objective, State, Update
from rlgrad.updates.moves import all_finite, assign_if, values_after
from rlgrad.updates.natural_gradient import NaturalGradient
from rlgrad.updates.per_head import PerHead, PerHeadState
from rlgrad.updates.steps import AscentState
from rlgrad.updates.trace_state import TraceState
from rlgrad.updates.traces import Traces
from rlgrad.updates.trust_region import TrustRegion

__all__ = [
    "Ascent",
    "AscentState",
    "NaturalGradient",
    "NoSlots",
    "Objective",
    "PerHead",
    "PerHeadState",
    "State",
    "TraceState",
    "Traces",
    "TrustRegion",
    "Update",
    "all_finite",
    "assign_if",
    "values_after",
]
