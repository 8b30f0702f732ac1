"""The parts that a policy is built of, and a policy from them: for copies of one, and for other processes."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def parts_of(policy: Any, taken: Callable[[Any], Any]) -> tuple[dict[str, Any], Any, dict[str, Any], list[np.ndarray]]:
    """Return the networks, the distribution, the options and the values of the variables that make another such policy.

    Args:
        policy: a `Policy`.
        taken: makes of a network what is handed on: its twin, or something that can be pickled.
    """
    networks = {
        "network": taken(policy.network),
        "value_network": None if policy.value_network is None else taken(policy.value_network),
        "critics": [taken(critic) for critic in policy.critics],
    }
    options = {
        "observation_space": policy.observation_space,
        "action_spec": policy.action_spec,
        "scalars": dict.fromkeys(policy.scalars, 0.0),
        "normalize_observations": any(n is not None for n in policy.preparation.normalizers),
        "from_logits": policy.from_logits,
    }
    return networks, policy.distribution, options, [variable.numpy() for variable in policy.variables]


def rebuilt(kind: Any, networks: Any, distribution: Any, options: dict[str, Any], weights: list[np.ndarray]) -> Any:
    """Return a policy of a class, from its `parts_of`."""
    made = {
        name: [*map(_network, part)] if isinstance(part, list) else None if part is None else _network(part)
        for name, part in networks.items()
    }
    policy = kind(distribution=distribution, **made, **options)
    for variable, value in zip(policy.variables, weights, strict=True):
        variable.assign(value)
    return policy


def _network(part: Any) -> Any:
    return part if isinstance(part, keras.Model) else part.model()
