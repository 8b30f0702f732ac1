"""Action distributions: pure functions of the parameters that a policy's network returns.

A layer returns tensors, never a distribution object; the object here only knows what those tensors mean. Functions that are
differentiated are written in TensorFlow, those that run at every environment step in NumPy; tests hold the two together.
"""

from rlgrad.distributions.bernoulli import Bernoulli
from rlgrad.distributions.categorical import Categorical
from rlgrad.distributions.decided import Decided
from rlgrad.distributions.deterministic import Deterministic
from rlgrad.distributions.exploring import Exploring
from rlgrad.distributions.gaussian import DiagonalGaussian
from rlgrad.distributions.greedy import Greedy
from rlgrad.distributions.joint import Joint, Part
from rlgrad.distributions.multi_categorical import MultiCategorical
from rlgrad.distributions.protocol import Distribution
from rlgrad.distributions.state_dependent_noise import StateDependentNoise

__all__ = [
    "Bernoulli",
    "Categorical",
    "Decided",
    "Deterministic",
    "DiagonalGaussian",
    "Distribution",
    "Exploring",
    "Greedy",
    "Joint",
    "MultiCategorical",
    "Part",
    "StateDependentNoise",
]
