"""Whatever stands before an action's own axes is a batch: sequences of steps give the numbers of their steps, one by one."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from rlgrad.distributions import Bernoulli, Categorical, MultiCategorical
from rlgrad.policies.actions import action_model

BOX = spaces.Box(-1.0, 2.0, (2,))
SPACES = {
    "discrete": (spaces.Discrete(3), {}),
    "multi_discrete": (spaces.MultiDiscrete([2, 3, 4]), {}),
    "multi_binary": (spaces.MultiBinary((2, 2)), {}),
    "box": (BOX, {}),
    "squashed": (BOX, {"squash": True}),
    "joint": (spaces.Tuple((spaces.Discrete(3), BOX)), {}),
}
each = pytest.mark.parametrize(("space", "options"), SPACES.values(), ids=SPACES)


def parameters_of(model, lead, seed):
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(*lead, *model.raw_shape)).astype(np.float32)
    shape = model.distribution.log_std_shape(model.raw_shape)
    log_std = None if shape is None else rng.normal(-0.5, 0.3, (*lead, *shape)).astype(np.float32)
    return model.distribution.assemble(raw, log_std)


def merged(tree):
    """The first two axes as one."""
    return tf.nest.map_structure(lambda x: np.asarray(x).reshape(-1, *np.shape(x)[2:]), tree)


def flat(tree):
    return tf.nest.map_structure(tf.constant, merged(tree))


@each
def test_two_leading_axes_give_the_numbers_of_one(space, options):
    model = action_model(space, **options)
    of = model.distribution
    arrays = parameters_of(model, (2, 3), 0)
    actions, numpy_log_probs = of.sample(arrays, np.random.default_rng(3))
    one, other, tangents = (tf.nest.map_structure(tf.constant, parameters_of(model, (2, 3), seed)) for seed in range(3))
    answers = {
        "log_prob": (of.log_prob(one, actions), of.log_prob(flat(one), merged(actions))),
        "numpy_log_prob": (numpy_log_probs, of.numpy_log_prob(merged(arrays), merged(actions))),
        "entropy": (of.entropy(one), of.entropy(flat(one))),
        "kl_divergence": (of.kl_divergence(one, other), of.kl_divergence(flat(one), flat(other))),
        "fisher_product": (of.fisher_product(one, tangents), of.fisher_product(flat(one), flat(tangents))),
        "mode": (of.mode(arrays)[0], of.mode(merged(arrays))[0]),
        "most_likely": (of.most_likely(one), of.most_likely(flat(one))),
    }
    for name, (mine, expected) in answers.items():
        tf.nest.assert_same_structure(mine, expected)
        for a, b in zip(tf.nest.flatten(merged(mine)), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)
    assert answers["log_prob"][0].shape == (2, 3), "one log-probability a step"


@each
def test_a_distribution_cannot_be_changed(space, options):
    """Programs are compiled for it."""
    of = action_model(space, **options).distribution
    for field in dataclasses.fields(of):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(of, field.name, getattr(of, field.name))


@pytest.mark.parametrize(
    ("distribution", "largest"),
    [(Categorical(3), 2), (Categorical(3, start=4), 2), (Bernoulli(), [1, 1]), (MultiCategorical((2, 3)), [1, 2])],
)
def test_actions_are_checked_against_the_largest_that_there_is(distribution, largest):
    """As they are stored: from 0, whatever the environment calls them."""
    np.testing.assert_array_equal(distribution.check_actions([largest, largest]), [largest, largest])
    for wrong in (np.add(largest, 1), np.multiply(largest, 0) - 1):
        with pytest.raises(ValueError, match="0 … "):
            distribution.check_actions([largest, wrong])


def test_the_parts_of_a_composite_action_are_checked():
    of = action_model(SPACES["joint"][0]).distribution  # a choice among three, and two numbers
    np.testing.assert_array_equal(of.check_actions([[2.0, 0.5, -9.0]]), [[2.0, 0.5, -9.0]])
    with pytest.raises(ValueError, match="0 … 2"):
        of.check_actions([[3.0, 0.5, 0.5]])
    for wrong in ([[2.0, 0.5]], [[2.0, 0.5, 0.5, 0.5]], [[2, 0, 0]]):
        with pytest.raises(TypeError, match="parts side by side"):
            of.check_actions(wrong)


def test_a_squashed_action_of_a_compiled_program_is_within_the_bounds():
    """low + (high − low) (tanh u + 1) / 2, by hand: half way for u = 0, and three quarters for tanh u = ½."""
    of = action_model(BOX, squash=True).distribution
    u = np.array([[0.0, np.arctanh(0.5)], [-20.0, 20.0]], np.float32)
    for acted in (of.for_environment(tf.constant(u)), of.to_environment(u)):
        np.testing.assert_allclose(acted, [[0.5, 1.25], [-1.0, 2.0]], rtol=1e-6)
