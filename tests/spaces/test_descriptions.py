"""Spaces as plain data: what JSON holds gives the same space again, and what describes none is refused."""

import json

import numpy as np
import pytest
from gymnasium import spaces

from rlgrad.spaces.descriptions import describe, described


class Own(spaces.Box):
    """A kind that Gymnasium does not know."""


SPACES = [
    spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    spaces.Box(np.array([-4.8, -np.inf], np.float32), np.array([4.8, np.inf], np.float32)),
    spaces.Box(0, 255, (4, 4, 1), np.uint8),
    spaces.Box(-(2**40), 2**40, (), np.int64),
    spaces.Box(0.0, 1e-300, (1,), np.float64),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [2, 3]]),
    spaces.MultiDiscrete([2, 3], dtype=np.int32),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Dict(b=spaces.Discrete(2), a=spaces.Tuple([spaces.MultiBinary(1), spaces.Box(-np.inf, 0.5, (2,))])),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_comes_back_from_json(space):
    text = json.dumps(describe(space), allow_nan=False)
    again = described(json.loads(text))
    assert again == space
    assert (again.shape, again.dtype) == (space.shape, space.dtype)
    assert again.contains(space.sample())


@pytest.mark.parametrize(
    "space", [Own(-1, 1, (2,)), spaces.Text(3), spaces.Dict(a=Own(-1, 1, (2,))), spaces.Dict({1: spaces.Discrete(2)})]
)
def test_other_kinds_are_not_described(space):
    assert describe(space) is None


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"type": "Sphere"},
        {"type": "Box", "shape": [10**9], "dtype": "float32", "low": 0, "high": 1},
        {"type": "Box", "shape": [2], "dtype": "float32", "low": [0, 1, 2], "high": 1},
        {"type": "Box", "shape": [2], "dtype": "nothing", "low": 0, "high": 1},
        {"type": "Discrete", "n": 0, "start": 0, "dtype": "int64"},
        {"type": "MultiBinary", "n": [10**6, 10**6]},
        {"type": "Tuple", "parts": [{"type": "Dict"}]},
    ],
)
def test_what_describes_no_space_is_refused(content):
    with pytest.raises(ValueError, match="describes no space"):
        described(content)
