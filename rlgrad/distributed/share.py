"""A learner beside the first: it computes the outputs of its share of a step's rows, and their gradient, in its own process."""

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

Arrays = Sequence[np.ndarray[Any, Any]]


class Share:
    """Answers for some rows of each step. Ray makes one in each process.

    Args:
        work: pickled: the function that linearizes rows, the policy, and the device. It is read in `ready`, whose errors reach
            the driver.
        path: where the driver's modules are found.
    """

    def __init__(self, work: bytes, path: Sequence[str] = ()) -> None:
        self._work, self._path, self._policy = work, path, None
        self._linearization: Any = None

    def ready(self) -> dict[str, Any]:
        """Build the policy, and return where this learner runs: `pid`, `node`.

        Raises:
            ValueError: the model cannot be imported here.
        """
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        sys.path += [place for place in self._path if place not in sys.path and Path(place).is_dir()]
        try:
            self._linearize, self._policy, self._device = cloudpickle.loads(self._work)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"A learner on {platform.node()} cannot import the model ({error}): install its package on every machine, or "
                "have its file there at the same path."
            ) from error
        return {"pid": os.getpid(), "node": platform.node()}

    def outputs(self, asked: Any, weights: Arrays, rows: Arrays) -> list[Any]:
        """Return the outputs of some rows, in the order of their names, and keep what their gradient needs.

        Args:
            asked: which outputs, and the variables of the gradient.
            weights: values of the policy's variables.
            rows: leaves of the observations, actions and seeds.
        """
        if self._policy is None:
            self.ready()
        import tensorflow as tf

        policy: Any = self._policy
        with tf.device(self._device):
            for variable, value in zip(policy.variables, weights, strict=True):
                variable.assign(value)
            tree = tf.nest.pack_sequence_as(asked.rows, [tf.constant(leaf) for leaf in rows])
            variables = [policy.variables[i] for i in asked.variables]
            self._linearization = self._linearize(policy, tree, asked.names, variables)
            return [self._linearization.outputs[name].numpy() for name in asked.names]

    def gradient(self, names: Sequence[str], credits: Arrays) -> list[Any]:
        """Return Σ credit · ∇f over the rows of the last `outputs`, for each variable.

        Args:
            names: of outputs.
            credits: of each of them, numbers of each row.
        """
        import tensorflow as tf

        with tf.device(self._device):
            credit = dict(zip(names, map(tf.constant, credits), strict=True))
            return [g.numpy() for g in self._linearization.gradient(credit).values()]
