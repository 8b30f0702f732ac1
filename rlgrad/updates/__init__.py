"""How the weights move, given how much each gradient counts."""

from rlgrad.updates.ascent import Ascent, AscentState
from rlgrad.updates.natural_gradient import NaturalGradient
from rlgrad.updates.per_head import PerHead, PerHeadState
from rlgrad.updates.trust_region import TrustRegion

Update = Ascent | NaturalGradient | TrustRegion | PerHead
"""How the weights move: any of these, as the field `update` of an agent."""

UPDATES: dict[str, type[Update]] = {
    "ascent": Ascent,
    "natural_gradient": NaturalGradient,
    "trust_region": TrustRegion,
    "per_head": PerHead,
}
"""What `type:` under an agent's `update:` names, in YAML and on the command line."""

__all__ = [
    "UPDATES",
    "Ascent",
    "AscentState",
    "NaturalGradient",
    "PerHead",
    "PerHeadState",
    "TrustRegion",
    "Update",
]
