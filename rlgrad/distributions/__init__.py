"""Action distributions: pure functions of the parameters that a policy's network returns.

A layer returns tensors, never a distribution object; the object here only knows what those tensors mean. What is
differentiated is written in TensorFlow, what runs at every environment step in NumPy; tests hold the two together.
"""

from rlgrad.distributions.base import Distribution
from rlgrad.distributions.bernoulli import Bernoulli
from rlgrad.distributions.categorical import Categorical
from rlgrad.distributions.gaussian import DiagonalGaussian
from rlgrad.distributions.joint import Joint, Part
from rlgrad.distributions.multi_categorical import MultiCategorical

__all__ = ["Bernoulli", "Categorical", "DiagonalGaussian", "Distribution", "Joint", "MultiCategorical", "Part"]
