"""Environments whose observations are not arrays, such as texts, with arrays in their place."""

from typing import Any

import gymnasium

from rlgrad.spaces.conversion import array_space, converts, to_arrays


class ArrayObservations(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Convert each observation by the encoders of its space (`rlgrad.spaces.Encoder.to_array`)."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.observation_space = array_space(env.observation_space)

    def observation(self, observation: Any) -> Any:
        """Return the arrays of one observation. Raise a ValueError if it is no value of the space."""
        return to_arrays(self.env.observation_space, observation)


def with_arrays(env: Any) -> Any:
    """Return an environment whose observations are arrays: itself if they are already."""
    return ArrayObservations(env) if converts(env.observation_space) else env


def require_arrays(vector: Any) -> None:
    """Raise a ValueError for a vector environment whose observations would have to be converted."""
    if converts(vector.single_observation_space):
        raise ValueError(
            f"Observations of {vector.single_observation_space} are converted to arrays one environment at a time, and this is "
            'a vector environment: use vectorization_mode="sync" or "async", or pass a function that makes one environment.'
        )
