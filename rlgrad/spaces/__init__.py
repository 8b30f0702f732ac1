"""Spaces of observations and actions: walking their trees, storing their values, and the table of encoders.

Nothing here imports TensorFlow or Keras before it is needed, since processes that only step environments use it too.
"""

from rlgrad.spaces.encoder import Encoder
from rlgrad.spaces.table import register_encoder

__all__ = ["Encoder", "register_encoder"]
