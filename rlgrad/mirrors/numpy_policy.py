"""A policy in NumPy: all that collecting rollouts needs of one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlgrad.distributions.protocol import IMPOSSIBLE
from rlgrad.mirrors.chains import Chain, Function, standardize
from rlgrad.spaces.encoder import Encoder, as_float32
from rlgrad.spaces.masks import MASK, remove_mask

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class NumpyPolicy:
    """A policy without memory, at some weights. It can be pickled.

    Args:
        chain: the network; after its weights come the moments of the normalizer, and the log standard deviations.
        encoder: prepares observations.
        limit: of the normalizer, in standard deviations; `None`: there is none.
        distribution: over actions.
        has_log_std: log standard deviations of actions are numbers of the policy.
        mask_axes: axes of an action's numbers, of a policy that obeys masks; `None`: it takes none.
        packed: all numbers, float32 (P,).
    """

    chain: Chain
    encoder: Encoder
    limit: float | None
    distribution: Any
    has_log_std: bool
    mask_axes: int | None
    packed: Array

    acts_in = "numpy"

    def actor(self) -> Callable[[Any], Any]:
        """Return a function from stored observations (N, …) to distribution parameters."""
        forward, rest = self.chain.at(self.packed)
        log_std = rest.pop()[None] if self.has_log_std else None
        prepare, assemble = self._preparation(rest), self.distribution.assemble
        if self.mask_axes is None:
            return lambda x: assemble(forward(prepare(x)), log_std)
        axes = (1,) * self.mask_axes

        def act(x: Any) -> Any:
            output, allowed = forward(prepare(remove_mask(x))), x[MASK]
            return np.where(allowed.reshape(*allowed.shape, *axes), output, np.float32(IMPOSSIBLE))

        return act

    def _preparation(self, moments: list[Array]) -> Function:
        prepare = self.encoder.numpy_prepare()
        assert prepare is not None
        if self.limit is None:
            return prepare
        standardized = standardize(self.limit, *moments)
        return (
            standardized if prepare is as_float32 else lambda x: standardized(prepare(x))
        )  # which are float32 already
