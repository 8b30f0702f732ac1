"""Actions as a function of parameters and noise, and how many of the parameters' axes are a batch."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from rlgrad.distributions import DiagonalGaussian
from rlgrad.policies.actions import action_model

BOX, TALL = spaces.Box(-1.0, 2.0, (2,)), spaces.Box(-1.0, 1.0, (3, 2))
MOVABLE = {
    "box": (BOX, {}),
    "squashed": (BOX, {"squash": True}),
    "matrix": (TALL, {}),
    "number": (spaces.Box(-1.0, 1.0, ()), {}),
    "two_boxes": (spaces.Tuple((BOX, TALL)), {}),
    "two_squashed": (spaces.Dict({"a": BOX, "b": TALL}), {"squash": True}),
}
FIXED = {
    "discrete": (spaces.Discrete(3), {}),
    "multi_discrete": (spaces.MultiDiscrete([2, 3, 4]), {}),
    "multi_binary": (spaces.MultiBinary((2, 2)), {}),
    "joint": (spaces.Tuple((spaces.Discrete(3), BOX)), {}),
}


def made(space, options, lead):
    model, rng = action_model(space, **options), np.random.default_rng(0)
    raw = rng.normal(size=(*lead, *model.raw_shape)).astype(np.float32)
    shape = model.distribution.log_std_shape(model.raw_shape)
    log_std = None if shape is None else rng.normal(-0.5, 0.3, (*lead, *shape)).astype(np.float32)
    parameters = tf.nest.map_structure(tf.constant, model.distribution.assemble(raw, log_std))
    actions, _ = model.distribution.sample(tf.nest.map_structure(np.asarray, parameters), rng)
    return model.distribution, parameters, actions


@pytest.mark.parametrize("lead", [(4,), (3, 2), ()])
@pytest.mark.parametrize(("space", "options"), (MOVABLE | FIXED).values(), ids=MOVABLE | FIXED)
def test_a_distribution_counts_the_batch_axes_of_its_parameters(space, options, lead):
    distribution, parameters, _ = made(space, options, lead)
    assert distribution.batch_rank(parameters) == len(lead) == distribution.entropy(parameters).shape.rank


@pytest.mark.parametrize("lead", [(4,), (3, 2)])
@pytest.mark.parametrize(("space", "options"), MOVABLE.values(), ids=MOVABLE)
def test_a_reparameterized_action_is_the_sample_of_its_noise(space, options, lead):
    distribution, parameters, actions = made(space, options, lead)
    noise = np.random.default_rng(1).standard_normal(actions.shape).astype(np.float32)
    found = distribution.reparameterized(parameters, noise)
    if isinstance(distribution, DiagonalGaussian):
        numpy = tf.nest.map_structure(np.asarray, parameters)
        np.testing.assert_allclose(found, distribution.pick(numpy, noise), rtol=1e-5, atol=1e-6)
    assert found.shape == actions.shape
    np.testing.assert_allclose(
        distribution.reparameterized_log_prob(parameters, noise),
        distribution.log_prob(parameters, found),
        rtol=1e-4,
        atol=1e-4,
    )
    np.testing.assert_allclose(
        distribution.reparameterized(parameters, 0.0 * noise), distribution.most_likely(parameters), rtol=1e-6
    )


def test_parts_move_with_their_own_noise():
    distribution, parameters, actions = made(*MOVABLE["two_boxes"], (4,))
    noise = np.zeros(actions.shape, np.float32)
    noise[:, 3] = 1.0
    moved = distribution.reparameterized(parameters, noise) - distribution.most_likely(parameters)
    expected = np.zeros(actions.shape)
    expected[:, 3] = np.exp(parameters["log_std"])[:, 3]
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("space", "options"), FIXED.values(), ids=FIXED)
def test_actions_that_are_one_of_several_do_not_move(space, options):
    distribution, parameters, actions = made(space, options, (4,))
    for method in (distribution.reparameterized, distribution.reparameterized_log_prob):
        with pytest.raises(TypeError, match="one of several"):
            method(parameters, actions.astype(np.float32))


@pytest.mark.parametrize("shape", [(4, 1), (2,), (1, 2), ()])
def test_noise_that_would_broadcast_is_refused(shape):
    distribution, parameters, _ = made(BOX, {}, (4,))
    with pytest.raises(ValueError, match=r"shape of the actions, \(4, 2\)"):
        distribution.reparameterized(parameters, np.ones(shape, np.float32))
    with pytest.raises(TypeError, match="floating-point"):
        distribution.reparameterized_log_prob(parameters, np.ones((4, 2), np.int32))
