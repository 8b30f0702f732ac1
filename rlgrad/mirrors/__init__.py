"""Policies that act in NumPy, as plain data: they mirror a Keras policy, and need neither TensorFlow nor Keras."""

from rlgrad.mirrors.chains import Chain, Stage
from rlgrad.mirrors.numpy_policy import NumpyPolicy

__all__ = ["Chain", "NumpyPolicy", "Stage"]
