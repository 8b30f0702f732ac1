"""From observations that are not arrays, such as texts and graphs, to the arrays that are stored in their place."""

from typing import Any

import numpy as np
from gymnasium import Space, spaces

from rlgrad.spaces.array_space import ArraySpace, stored
from rlgrad.spaces.branches import branch, leaves, map_leaves, match
from rlgrad.spaces.encoder import Encoder
from rlgrad.spaces.table import encoder_for, find_encoder
from rlgrad.spaces.trees import map_arrays


def converts(space: Space[Any]) -> bool:
    """Return whether observations have to be converted to arrays before they can be stored."""
    found = (find_encoder(leaf) for _, leaf in leaves(space) if not isinstance(leaf, ArraySpace))
    return any(encoder is not None and encoder.converts for encoder in found)


def array_space(space: Space[Any]) -> Space[Any]:
    """Return the space of the arrays that `to_arrays` makes of a space's observations."""
    parts = branch(space)
    if parts is None:
        return ArraySpace(encoder_for(space)) if converts(space) else space
    below = {key: array_space(part) for key, part in parts.parts.items()}
    return spaces.Dict(below) if parts.kind is dict else spaces.Tuple(below.values())


def to_arrays(space: Space[Any], observation: Any) -> Any:
    """Return an observation with the leaves that are no arrays converted by their encoders.

    Raises:
        ValueError: the observation does not fit the space; says where.
    """
    misfit = next((found for found in match(space, observation, "observation") if found[3] is not None), None)
    if misfit is not None:
        raise ValueError(f"Expected {misfit[3]} as {misfit[0]}, got {misfit[2]!r}.")

    def convert(leaf: Space[Any], value: Any) -> Any:
        return stored(encoder_for(leaf), value) if converts(leaf) else value

    return map_arrays(convert, map_leaves(lambda leaf: leaf, space), observation)


def as_stored(encoder: Encoder, value: Any) -> Any:
    """Return an observation of one leaf as it is stored. It may be raw, stored already, or a batch of either.

    Raises:
        ValueError: a raw observation is no value of its space.
    """
    if not encoder.converts:
        return value
    if encoder.space.contains(value):
        return stored(encoder, value)
    if isinstance(value, list | tuple) and not all(isinstance(each, np.ndarray) for each in value):
        return np.stack([stored(encoder, each) for each in value])
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        return (
            stored(encoder, value) if array.ndim == 0 else np.stack([stored(encoder, each) for each in array.tolist()])
        )
    return array
