"""How a policy's weights are distributed, and what they changed by, as TensorBoard shows it."""

from typing import Any

import numpy as np

from rlgrad.gradients.questions.selection import keys_of
from rlgrad.policies.policy import Policy

BINS = 30
Arrays = dict[str, "np.ndarray[Any, Any]"]


class Histograms:
    """`weights/…` and `changes/…` of every trainable variable; a change is since the row before, or since the start."""

    def __init__(self) -> None:
        self._before: Arrays = {}

    def start(self, policy: Policy) -> None:
        """Changes count from here."""
        self._before = _weights(policy)

    def summaries(self, policy: Policy) -> list[Any]:
        """TensorBoard's protocol buffers, two for each variable."""
        now = _weights(policy)
        changes = {name: value - self._before[name] for name, value in now.items()}
        self._before = now
        return [
            _summary(f"{kind}/{name}", value)
            for kind, values in (("weights", now), ("changes", changes))
            for name, value in values.items()
        ]


def bins(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Left edge, right edge and count of each bin, float64 (BINS, 3); what is not finite is in none.

    Args:
        values: of any shape.
    """
    flat = np.asarray(values, np.float64).ravel()
    counts, edges = np.histogram(flat[np.isfinite(flat)], BINS)
    return np.stack([edges[:-1], edges[1:], counts], axis=1)


def _weights(policy: Policy) -> Arrays:
    trainable = {id(variable) for variable in policy.trainable_variables}
    return {key: variable.numpy() for variable, key in keys_of(policy) if id(variable) in trainable}


def _summary(tag: str, values: "np.ndarray[Any, Any]") -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_DOUBLE

    kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="histograms"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=n) for n in (BINS, 3)])
    tensor = TensorProto(dtype=DT_DOUBLE, tensor_shape=shape, tensor_content=bins(values).astype("<f8").tobytes())
    return Summary.Value(tag=tag, tensor=tensor, metadata=kind)
