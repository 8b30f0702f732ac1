"""What an encoder of a user's own computes, alone and in a tree, and what is said of one that is wrong."""

import subprocess
import sys

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

import rlgrad
from rlgrad.exporting.standalone import model_inputs, standalone
from rlgrad.spaces import Encoder, register_encoder


class Angle(spaces.Box):
    """An angle, which a network had better see as a point on the circle."""

    def __init__(self):
        super().__init__(-np.pi, np.pi, (1,))


class Circle(Encoder):
    serves = Angle

    def prepare(self, x):
        x = keras.ops.cast(x, "float32")
        return keras.ops.concatenate([keras.ops.cos(x), keras.ops.sin(x)], axis=-1)


class Wheel(gymnasium.Env):
    observation_space = spaces.Dict(angle=Angle(), speed=spaces.Box(-1, 1, (2,)), gear=spaces.Discrete(3))
    action_space = spaces.Discrete(2)


@pytest.mark.parametrize("space", [Angle(), Wheel.observation_space], ids=["alone", "in a tree"])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_space_of_ones_own_is_prepared_by_its_encoder_wherever_the_policy_computes(space, normalize):
    """Its `prepare` is not that of a Box, so NumPy does not take the network's place; the normalizer comes after it."""
    register_encoder(Circle)
    policy = rlgrad.make_policy(space, spaces.Discrete(2), seed=1, normalize_observations=normalize)
    assert policy.mirror is None
    space.seed(0)
    draws = [space.sample() for _ in range(6)]
    x = tf.nest.map_structure(lambda *rows: np.stack(rows), *draws)
    if normalize:
        policy.normalize(x, tf.ones(6))
        angle = np.asarray(tf.nest.flatten(x)[0], np.float64)
        expected = [np.cos(angle).mean(), np.sin(angle).mean()]
        np.testing.assert_allclose(policy.preparation.normalizers[0].mean.numpy(), expected, rtol=1e-6)
    around = tf.nest.map_structure(np.array, x)
    tf.nest.flatten(around)[0][...] += np.float32(2 * np.pi)
    np.testing.assert_allclose(policy(around)["policy"], policy(x)["policy"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(policy.actor()(x), policy(x)["policy"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(standalone(policy)(model_inputs(policy, x))["logits"], policy(x)["policy"], atol=1e-5)


def test_weights_of_an_encoder_follow_the_seed_of_the_policy(home):
    from reading import Letters, Reading

    register_encoder(Letters)

    def weights(seed):
        return rlgrad.make_policy(Reading.observation_space, Reading.action_space, seed=seed).get_weights()

    one, again, other = weights(0), weights(0), weights(1)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])


def test_an_encoder_in_plain_tensorflow_trains_and_its_export_says_what_to_change():
    class Plain(Circle):
        def prepare(self, x):
            return tf.raw_ops.Cos(x=tf.convert_to_tensor(x))

    register_encoder(Plain)
    policy = rlgrad.make_policy(Angle(), spaces.Discrete(2))
    with pytest.raises(ValueError, match=r"Plain\.prepare takes no Keras tensors: write it with keras\.ops"):
        standalone(policy)


def test_mistakes_in_an_encoder_are_said(home):
    from reading import Letters, Reading

    class Other(Letters):
        pass

    register_encoder(Letters)
    register_encoder(Letters)  # the same once more
    with pytest.raises(ValueError, match="is registered for Text already: pass replace=True"):
        register_encoder(Other)
    assert register_encoder(Other, replace=True) is Other

    class Short(Letters):
        def to_array(self, text):
            return super().to_array(text)[:-1]

    register_encoder(Short, replace=True)
    policy = rlgrad.make_policy(Reading.observation_space, Reading.action_space)
    with pytest.raises(ValueError, match=r"Short\.to_array gives shape \(4,\), and its layout says \(5,\)"):
        policy.act("ab")
    with pytest.raises(ValueError, match=r"An observation is a value of Text.*got 'xyz'"):
        policy.act("xyz")

    class Empty(Encoder):
        serves = spaces.Graph

    register_encoder(Empty)
    with pytest.raises(NotImplementedError, match=r"Empty needs a layout\(\): Graph"):
        rlgrad.make_policy(spaces.Graph(spaces.Box(-1, 1, (2,)), None), Reading.action_space)
    for wrong, message in (
        (Reading, "is a subclass of rlgrad.spaces.Encoder"),
        (Encoder, "says in `serves` which class"),
    ):
        with pytest.raises(ValueError, match=message):
            register_encoder(wrong)


def test_a_vector_environment_of_texts_is_refused(package):
    from reading import Reading

    vector = gymnasium.vector.SyncVectorEnv([Reading, Reading])
    with pytest.raises(ValueError, match="converted to arrays one environment at a time"):
        rlgrad.GymCollector(vector, num_steps=2)


def test_an_environment_that_leaves_its_space_is_blamed_with_its_slot(package):
    from reading import Reading

    class Foreign(Reading):
        def step(self, action):
            return ("z", *super().step(action)[1:])

    collector = rlgrad.GymCollector(Foreign, num_envs=2, num_steps=2)
    policy = rlgrad.make_policy(collector.observation_space, collector.action_space)
    with pytest.raises(rlgrad.EnvironmentFault, match=r"slot 0 raised ValueError.*value of Text.*'z'"):
        collector.collect(policy)


def test_stepping_environments_needs_no_tensorflow():
    code = "import sys, rlgrad.environments.making; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
