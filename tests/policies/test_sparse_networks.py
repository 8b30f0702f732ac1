"""The default networks of streaming agents: sparse initial weights, normalization without weights, leaky ReLU."""

import copy
import math

import numpy as np
import pytest
from gymnasium import spaces

import rlgrad
from rlgrad.policies.actions import ActionValues
from rlgrad.policies.initializers import Sparse

OPTIONS = {
    "hidden_sizes": (30, 20),
    "layer_norm": True,
    "fixed_layer_norm": True,
    "sparsity": 0.9,
    "activation": "leaky_relu(0.01)",
}
VECTOR = spaces.Box(-9, 9, (7,))
X = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)


def test_as_many_inputs_of_each_unit_are_zero_and_the_others_uniform():
    kernel = np.asarray(Sparse(0.9, 3)((50, 4000), "float32"))
    assert ((kernel == 0.0).sum(axis=0) == math.ceil(0.9 * 50)).all()
    left = kernel[kernel != 0.0] * math.sqrt(50)
    assert np.abs(left).max() <= 1.0
    # A uniform number within ±1 has variance 1/3; of 20,000 the estimate is off by 0.002.
    assert left.var() == pytest.approx(1 / 3, abs=0.01)
    assert left.mean() == pytest.approx(0.0, abs=0.02)
    chosen = (kernel != 0.0).mean(axis=1)  # each input is kept by a tenth of the units
    np.testing.assert_allclose(chosen, 0.1, atol=0.02)
    assert not np.array_equal(kernel, np.asarray(Sparse(0.9, 4)((50, 4000), "float32")))
    np.testing.assert_array_equal(
        kernel, np.asarray(Sparse.from_config(Sparse(0.9, 3).get_config())((50, 4000), "float32"))
    )
    for inputs in (1, 2, 4):
        few = np.asarray(Sparse(0.9, 3)((inputs, 50), "float32"))
        assert ((few != 0.0).sum(axis=0) == 1).all(), f"of {inputs}: a unit without any input says nothing"
    convolution = np.asarray(Sparse(0.9, 3)((3, 3, 2, 8), "float32")).reshape(18, 8)
    assert ((convolution == 0.0).sum(axis=0) == math.ceil(0.9 * 18)).all()


def by_hand(weights, x):
    for i in range(0, len(weights), 2):
        x = x @ weights[i] + weights[i + 1]
        if i + 2 < len(weights):
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
            x = np.where(x > 0, x, 0.01 * x)
    return x


@pytest.mark.parametrize(
    "values", [None, ActionValues(), ActionValues(dueling=True)], ids=["policy", "values", "dueling"]
)
def test_the_network_is_what_the_paper_says_and_numpy_acts_as_it_does(values):
    policy = rlgrad.make_policy(VECTOR, spaces.Discrete(3), action_values=values, **OPTIONS)
    weights = policy.network.get_weights()
    assert [w.shape for w in weights[:4]] == [(7, 30), (30,), (30, 20), (20,)]
    for kernel in weights[::2]:
        assert ((kernel == 0.0).sum(axis=0) == min(math.ceil(0.9 * len(kernel)), len(kernel) - 1)).all()
    assert not any(bias.any() for bias in weights[1::2])
    said = policy(X)["policy"]
    y = by_hand([w.astype(float) for w in weights], X.astype(float))
    if values is not None and values.dueling:
        y = y[:, :1] + y[:, 1:] - y[:, 1:].mean(1, keepdims=True)
    np.testing.assert_allclose(said, y, rtol=1e-4, atol=1e-5)
    assert policy.acts_in == "numpy"
    np.testing.assert_allclose(policy.actor()(X), said, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(copy.deepcopy(policy)(X)["policy"], said, rtol=1e-6)


def test_seeds_and_networks_differ():
    same = [rlgrad.make_policy(VECTOR, spaces.Discrete(3), seed=1, **OPTIONS).get_weights() for _ in range(2)]
    for a, b in zip(*same, strict=True):
        np.testing.assert_array_equal(a, b)
    policy = rlgrad.make_policy(VECTOR, spaces.Discrete(3), seed=2, **OPTIONS)
    assert not np.array_equal(policy.get_weights()[0], same[0][0])
    assert not np.array_equal(policy.network.get_weights()[0], policy.value_network.get_weights()[0])


def test_a_shared_trunk_and_a_memory_take_the_options_too():
    for options in ({"shared_trunk": True}, {"memory": "gru", "memory_size": 3}):
        policy = rlgrad.make_policy(VECTOR, spaces.Discrete(3), **OPTIONS, **options)
        kernel = next(w for w in policy.network.get_weights() if w.shape == (7, 30))
        assert ((kernel == 0.0).sum(axis=0) == 6).all()


PICTURE = spaces.Box(0, 1, (7, 7, 3), np.float32)


@pytest.mark.parametrize(
    ("space", "with_memory"),
    [(PICTURE, False), (spaces.Dict(picture=PICTURE, vector=VECTOR), False), (PICTURE, True)],
    ids=["picture", "dict", "memory"],
)
def test_as_many_inputs_of_each_filter_are_zero(space, with_memory):
    """Algorithm 1: of the 27 weights of a filter of 3 × 3 × 3, ⌈0.9 · 27⌉ = 25 are 0, the other two within ±1/√27."""
    memory = {"memory": "gru", "memory_size": 3} if with_memory else {}
    kernels = []
    for seed in (1, 1, 2):
        policy = rlgrad.make_policy(space, spaces.Discrete(3), seed=seed, **OPTIONS, **memory)
        named = {v.path: v.numpy() for v in policy.network.trainable_variables}
        kernels.append(next(x for name, x in named.items() if x.ndim == 4).reshape(27, 16))
        features = next(x for name, x in named.items() if "features" in name and x.ndim == 2)
        assert ((features == 0.0).sum(axis=0) == math.ceil(0.9 * len(features))).all()
    assert ((kernels[0] == 0.0).sum(axis=0) == 25).all()
    assert 0.5 / math.sqrt(27) < np.abs(kernels[0]).max() <= 1 / math.sqrt(27)
    assert len({tuple(np.flatnonzero(column)) for column in kernels[0].T}) > 12, "each filter keeps inputs of its own"
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "sparsity"),
        ({"sparsity": -0.1}, "sparsity"),
        ({"fixed_layer_norm": True}, "fixed_layer_norm=True is about layer_norm, which is off"),
        ({"activation": "leaky_relu(x)"}, "activation is one that Keras knows"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rlgrad.make_policy(VECTOR, spaces.Discrete(3), **options)
