"""Acting where some actions are decided already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlgrad.core.importing import lazy

if TYPE_CHECKING:
    import tensorflow as tf
else:  # acting needs none
    tf = lazy("tensorflow")


@dataclass(frozen=True)
class Decided:
    """Discrete actions of another distribution, but for the slots whose next action was drawn before the weights moved.

    Args:
        acting: the distribution of the other slots.
        actions: an int64 variable or array (N,), −1 where nothing is decided. It is read where an action is picked.
    """

    acting: Any
    actions: Any

    def pick(self, parameters: Any, noise: Any) -> np.ndarray:
        """Return the decided actions, and the other distribution's where there are none."""
        chosen = self.acting.pick(parameters, noise)
        decided = np.asarray(self.actions)
        mixed: np.ndarray = np.where(decided >= 0, decided, chosen)
        return mixed

    def draw(self, parameters: Any, seeds: Any) -> tf.Tensor:
        """TensorFlow: return what `pick` does."""
        chosen = self.acting.draw(parameters, seeds)
        decided = tf.convert_to_tensor(self.actions)
        return tf.where(decided >= 0, tf.cast(decided, chosen.dtype), chosen)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by libraries, before there is a distribution
            raise AttributeError(name)
        return getattr(self.acting, name)
