"""Walks over spaces: in the order of the space, with paths, and with a sentence where a value does not fit."""

import copy
import pickle

import numpy as np
import pytest
from gymnasium import spaces

from rlgrad.spaces.array_space import ArraySpace
from rlgrad.spaces.branches import branch, branches, leaves, map_leaves, match
from rlgrad.spaces.conversion import array_space, converts, to_arrays
from rlgrad.spaces.encoder import Encoder
from rlgrad.spaces.table import find_encoder
from rlgrad.spaces.trees import ranges, storage

NUMBERS, CHOICE = spaces.Box(-1, 1, (2,), np.float64), spaces.Discrete(3, start=2)
TREE = spaces.Dict(
    b=NUMBERS, a=spaces.Tuple((CHOICE, spaces.MultiBinary(2))), c=spaces.Dict(d=spaces.MultiDiscrete([2, 4]))
)


class Packed(Encoder):
    """Whole numbers as eight bits each."""

    serves = spaces.Box

    def layout(self):
        return (*self.space.shape, 8), bool

    def to_array(self, observation):
        return np.unpackbits(observation[..., None], axis=-1).astype(bool)


def test_leaves_and_branches_come_with_their_paths_in_the_order_of_the_space():
    assert [(path, type(leaf).__name__) for path, leaf in leaves(TREE)] == [
        (("b",), "Box"),
        (("a", 0), "Discrete"),
        (("a", 1), "MultiBinary"),
        (("c", "d"), "MultiDiscrete"),
    ]
    assert [(path, level.kind) for path, level in branches(TREE)] == [((), dict), (("a",), tuple), (("c",), dict)]
    assert (list(leaves(CHOICE)), branch(CHOICE), list(branches(CHOICE))) == ([((), CHOICE)], None, [])
    assert map_leaves(lambda leaf: leaf.shape, TREE) == {"a": ((), (2,)), "b": (2,), "c": {"d": (2,)}}


def test_a_value_of_another_structure_is_matched_up_to_where_it_differs():
    value = {"a": (2, [0, 1]), "b": [0.0, 0.0], "c": {"d": [0, 0]}}
    assert [(name, expected) for name, _, _, expected in match(TREE, value, "x")] == [
        ("x['b']", None),
        ("x['a'][0]", None),
        ("x['a'][1]", None),
        ("x['c']['d']", None),
    ]
    for wrong, name, expected in (
        ({**value, "a": (2,)}, "x['a']", "a tuple of 2"),
        ({**value, "c": 3}, "x['c']", "a dict with 'd'"),
        (3, "x", "a dict with 'b', 'a', 'c'"),
    ):
        assert [(n, e) for n, _, _, e in match(TREE, wrong, "x") if e is not None] == [(name, expected)]


def test_storage_and_ranges_are_those_of_the_leaves():
    zeros = storage(TREE, (5,))
    assert {key: x.dtype for key, x in (("b", zeros["b"]), ("d", zeros["c"]["d"]))} == {"b": np.float32, "d": np.int64}
    assert (zeros["a"][0].shape, zeros["a"][1].shape, zeros["b"].shape) == ((5,), (5, 2), (5, 2))
    known = ranges(TREE, "x")
    assert (known["x['a'][0]"], known["x['a'][1]"]) == ((2, 4), (0, 1))
    np.testing.assert_array_equal(known["x['c']['d']"], [[0, 0], [1, 3]])
    assert "x['b']" not in known


def test_an_array_space_stands_for_another_one(monkeypatch):
    from rlgrad.spaces import table

    monkeypatch.setattr(table, "_registered", {spaces.Box: Packed})
    table._kind_of.cache_clear()
    numbers = spaces.Box(0, 255, (2,), np.uint8)
    space = ArraySpace(Packed(numbers))
    space.seed(4)
    numbers.seed(4)
    first = numbers.sample()
    space.seed(4)
    np.testing.assert_array_equal(space.sample(), np.unpackbits(first[:, None], axis=-1).astype(bool))
    assert (space.shape, space.dtype) == ((2, 8), bool)
    assert space.contains(np.ones((2, 8), bool))
    assert not space.contains(first)
    assert space == copy.deepcopy(space) == pickle.loads(pickle.dumps(space))
    assert space != ArraySpace(Packed(spaces.Box(0, 254, (2,), np.uint8)))
    assert find_encoder(space) is space.encoder
    table._kind_of.cache_clear()


def test_only_leaves_whose_encoder_converts_are_converted(monkeypatch):
    from rlgrad.spaces import table

    class Half(Packed):
        serves = spaces.MultiBinary

        def layout(self):
            return (1,), np.float32

        def to_array(self, observation):
            return observation[:1] / 2

        def range(self):
            return 0.0, 0.5

    assert not converts(TREE)
    assert array_space(TREE) == TREE
    monkeypatch.setattr(table, "_registered", {spaces.MultiBinary: Half})
    table._kind_of.cache_clear()
    space = array_space(TREE)
    assert (converts(TREE), converts(space)) == (True, False)
    assert (space["b"], space["a"][0], type(space["a"][1])) == (NUMBERS, CHOICE, ArraySpace)
    assert ranges(space)["observation['a'][1]"] == (0.0, 0.5)
    value = {"a": (2, np.array([1, 0], np.int8)), "b": np.zeros(2), "c": {"d": np.zeros(2, int)}}
    arrays = to_arrays(TREE, value)
    np.testing.assert_array_equal(arrays["a"][1], np.float32([0.5]))
    assert arrays["b"] is value["b"]
    with pytest.raises(ValueError, match=r"Expected a tuple of 2 as observation\['a'\], got 3"):
        to_arrays(TREE, {**value, "a": 3})
    table._kind_of.cache_clear()
