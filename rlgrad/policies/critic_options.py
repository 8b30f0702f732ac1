"""The default networks of critics, where they differ from the policy's."""

from typing import Literal

from rlgrad.core.checks import require
from rlgrad.hyperparameters import Record


class CriticNetwork(Record):
    """Settings of the default critics beside the run's own, such as `hidden_sizes`.

    Dropout, and statistics of the batch, are for agents that run their critics in training mode.
    """

    hidden_sizes: tuple[int, ...] | None = None
    """Widths of the critics' hidden layers. `None`: those of the policy."""
    layer_norm: bool = False
    """Normalize each hidden layer of the critics before its activation, also if the policy's are not."""
    dropout: float = 0.0
    """Share of the units of each hidden layer that is dropped, before it is normalized."""
    batch_norm: Literal["batch", "renorm"] | None = None
    """Normalize the input and each hidden layer, after its activation, by the batch's statistics; `renorm` corrects these
    towards the moving ones. `None`: neither."""
    momentum: float = 0.99
    """Share of the moving statistics that a gradient step keeps."""

    def __post_init__(self) -> None:
        """Check the fields, each with its name in the message."""
        if self.hidden_sizes is not None:
            sizes = self.hidden_sizes
            require(len(sizes) <= 256, "hidden_sizes", "at most 256 layers", len(sizes))
            require(all(1 <= size <= 2**16 for size in sizes), "hidden_sizes", "widths from 1 to 65,536", sizes)
        require(0.0 <= self.dropout < 1.0, "dropout", "at least 0, below 1", self.dropout)
        require(0.0 <= self.momentum < 1.0, "momentum", "at least 0, below 1", self.momentum)

    @property
    def needs_training(self) -> bool:
        """True if a layer computes something else in training mode."""
        return self.dropout > 0.0 or self.batch_norm is not None


PLAIN_CRITICS = CriticNetwork()
"""Critics with the layers that the policy has."""
