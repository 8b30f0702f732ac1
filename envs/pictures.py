"""Pictures of states: by Gymnasium's own renderer of the same environment, and of grids."""

from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np

Picture = np.ndarray[Any, Any]


def by_gymnasium(env_id: str, state: Any, **attributes: Any) -> Picture:
    """Draw a state as Gymnasium draws it.

    Args:
        env_id: of Gymnasium's environment with such states.
        state: float (its shape).
        attributes: set on the environment besides `state`.

    Returns:
        uint8 (height, width, 3).
    """
    env = _renderer(env_id)
    for name, value in {"state": np.asarray(state, np.float64), **attributes}.items():
        setattr(env, name, value)
    picture: Picture = env.render()
    return picture


@lru_cache(maxsize=8)
def _renderer(env_id: str) -> Any:
    return gymnasium.make(env_id, render_mode="rgb_array").unwrapped


def of_grid(layers: Any, colours: Any, pixels: int = 20) -> Picture:
    """Draw the cells of a grid as squares.

    Args:
        layers: bool (rows, columns, layers). Where several hold, the last one is seen.
        colours: of each layer, three numbers from 0 to 255.
        pixels: along a square.

    Returns:
        uint8 (rows · pixels, columns · pixels, 3), black where no layer holds.
    """
    layers = np.asarray(layers, bool)
    cells = np.zeros((*layers.shape[:2], 3), np.uint8)
    for k, colour in enumerate(colours):
        cells[layers[..., k]] = colour
    return cells.repeat(pixels, axis=0).repeat(pixels, axis=1)
