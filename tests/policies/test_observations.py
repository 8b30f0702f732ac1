"""What an environment shows becomes what a network sees: every kind of leaf, and trees of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from rlgrad import gradients
from rlgrad.gradients import LogProb
from rlgrad.policies import make_policy
from rlgrad.policies.observations import Preparation

TWO = spaces.Discrete(2)
TREE = spaces.Dict(
    x=spaces.Box(-1, 1, (3,)),
    d=spaces.Discrete(4, start=1),
    t=spaces.Tuple((spaces.MultiBinary(2), spaces.Box(0, 255, (12, 12, 3), np.uint8))),
)
KINDS = {
    "vector": spaces.Box(-1, 1, (3,)),
    "scalar": spaces.Box(-1, 1, ()),
    "matrix": spaces.Box(-1, 1, (2, 3)),
    "discrete": spaces.Discrete(5),
    "multi_discrete": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "multi_binary": spaces.MultiBinary((2, 2)),
    "integers": spaces.Box(0, 9, (4,), np.int32),
    "small_image": spaces.Box(0, 1, (10, 10, 4), bool),
    "image": spaces.Box(0, 255, (40, 44, 3), np.uint8),
    "image_channels_first": spaces.Box(0, 255, (3, 40, 44), np.uint8),
    "frames": spaces.Box(0, 255, (4, 40, 44, 3), np.uint8),
    "tuple": spaces.Tuple((spaces.Box(-1, 1, (3,)), TWO)),
    "tree": TREE,
}


QUICK = ("discrete", "multi_discrete", "small_image", "frames", "tree")


def kinds():
    return [pytest.param(KINDS[k], id=k, marks=() if k in QUICK else pytest.mark.slow) for k in KINDS]


def batch(space, rows, seed=0):
    space.seed(seed)
    return tf.nest.map_structure(lambda *leaves: np.stack(leaves), *(space.sample() for _ in range(rows)))


@pytest.mark.parametrize("space", kinds())
def test_a_default_network_takes_every_space_alone_and_with_time_and_environment_axes(space):
    policy = make_policy(space, TWO, seed=1)
    x = batch(space, 6)
    heads = policy(x)
    assert heads["policy"].shape == (6, 2)
    assert heads["value"].shape == (6,)
    by_time = policy(tf.nest.map_structure(lambda leaf: leaf.reshape(3, 2, *leaf.shape[1:]), x))
    np.testing.assert_allclose(tf.reshape(by_time["policy"], (6, 2)), heads["policy"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(policy.actor()(x), heads["policy"], rtol=1e-4, atol=1e-6)
    single = tf.nest.map_structure(lambda leaf: leaf[0], x)
    assert policy.act(single, greedy=True) == policy.act(x, greedy=True)[0]


@pytest.mark.parametrize("space", kinds())
def test_the_network_looks_at_every_leaf(space):
    """Another observation, another output: nothing is dropped on the way in."""
    policy = make_policy(space, TWO, seed=1)
    x = batch(space, 2)
    for i, leaf in enumerate(tf.nest.flatten(x)):
        leaves = [np.array(other) for other in tf.nest.flatten(x)]
        leaves[i][0] = leaf[1]
        if not np.array_equal(leaf[0], leaf[1]):
            changed = policy(tf.nest.pack_sequence_as(x, leaves))["value"]
            assert float(changed[0]) != float(policy(x)["value"][0])


def test_scores_go_through_a_tree_of_observations():
    policy = make_policy(TREE, TWO)
    x = batch(TREE, 4)
    score = gradients.gradient(policy, x, output=LogProb(np.array([0, 1, 1, 0])))
    one_by_one = gradients.per_sample_gradient(policy, x, output=LogProb(np.array([0, 1, 1, 0])))
    for key, value in score.items():
        np.testing.assert_allclose(tf.reduce_sum(one_by_one[key], axis=0), value, rtol=1e-4, atol=1e-6)


def test_bytes_become_shares_and_choices_stay_integers():
    seen = Preparation(TREE)(batch(TREE, 2))
    assert seen["t"][1].dtype == tf.float32
    assert 0.0 <= float(tf.reduce_min(seen["t"][1])) <= float(tf.reduce_max(seen["t"][1])) <= 1.0
    assert seen["d"].dtype == tf.int32
    assert seen["x"].dtype == tf.float32


def test_only_numbers_are_normalized_each_by_its_own_statistics():
    space = spaces.Dict(a=spaces.Box(-9, 9, (2,)), b=spaces.Box(-9, 9, (1,)), c=TWO)
    policy = make_policy(space, TWO, normalize_observations=True)
    x = {"a": np.full((4, 2), 3.0, np.float32), "b": np.full((4, 1), -2.0, np.float32), "c": np.ones(4, np.int64)}
    policy.normalize(x, tf.ones(4))
    means = [n.mean.numpy() for n in policy.preparation.normalizers if n is not None]
    np.testing.assert_allclose(np.concatenate(means), [3.0, 3.0, -2.0])
    assert len([v for v in policy.variables if "normalizer" in v.path]) == 6


def test_a_model_of_ones_own_takes_the_same_tree():
    x, d = keras.Input((3,), name="x"), keras.Input((), dtype="int32", name="d")
    hidden = keras.layers.Concatenate()([x, keras.layers.Embedding(5, 2)(d)])
    model = keras.Model({"x": x, "d": d}, keras.layers.Dense(2)(hidden))
    space = spaces.Dict(x=spaces.Box(-1, 1, (3,)), d=spaces.Discrete(5))
    policy = make_policy(space, TWO, model=model)
    assert policy(batch(space, 3))["policy"].shape == (3, 2)


def test_an_observation_of_another_shape_is_refused():
    policy = make_policy(TREE, TWO)
    x = tf.nest.map_structure(lambda leaf: leaf[0], batch(TREE, 1))
    with pytest.raises(ValueError, match="Expected one observation of shape"):
        policy.act({**x, "x": np.zeros(4)})
