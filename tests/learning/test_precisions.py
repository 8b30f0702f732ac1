"""Models of other precision than float32, and models without weights: each is trained, or refused in a sentence."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

import rlgrad
from rlgrad import gradients
from rlgrad.gradients import LogProb
from rlgrad.updates import NaturalGradient, TrustRegion

OBSERVATIONS, ACTIONS = spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Discrete(2)
X = np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(4, 3)


def model(dtype):
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype=dtype, kernel_initializer="ones")])


@pytest.mark.parametrize("dtype", ["float64", "mixed_float16", "mixed_bfloat16", "float16"])
@pytest.mark.parametrize("actions", [ACTIONS, spaces.Box(-1.0, 1.0, (2,))], ids=["discrete", "continuous"])
def test_a_policy_gives_float32_and_gradients_in_the_dtype_of_its_weights(dtype, actions):
    policy = rlgrad.make_policy(OBSERVATIONS, actions, model=model(dtype), hidden_sizes=(4,))
    heads = policy(X)
    assert {leaf.dtype for leaf in tf.nest.flatten(heads)} == {tf.float32}
    assert policy.value(X).dtype == tf.float32
    taken = policy.act(X)
    exact = rlgrad.make_policy(OBSERVATIONS, actions, model=model("float32"), hidden_sizes=(4,))
    found, expected = (list(gradients.gradient(p, X, output=LogProb(taken)).values()) for p in (policy, exact))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(tf.cast(one, tf.float32), other, atol=0.05)


@pytest.mark.parametrize("dtype", ["float64", "mixed_float16"])
def test_default_networks_follow_the_global_policy_of_keras(dtype):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        policy = rlgrad.make_policy(OBSERVATIONS, ACTIONS, hidden_sizes=(4,), normalize_observations=True)
        heads, value = policy(X), policy.value(X)
    finally:
        keras.config.set_dtype_policy(before)
    assert {leaf.dtype for leaf in tf.nest.flatten(heads)} == {value.dtype} == {tf.float32}


@pytest.mark.parametrize("dtype", ["float64", "mixed_float16"])
def test_an_ascent_moves_the_weights_in_their_own_dtype(dtype):
    network = model(dtype)
    ascent = rlgrad.Ascent(optimizer="sgd", learning_rate=0.5).build(network.trainable_variables)
    before = network.get_weights()
    ascent.apply_gradient({v.path: tf.ones(v.shape, v.dtype) for v in network.trainable_variables})
    for old, new in zip(before, network.get_weights(), strict=True):
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(new, old + 0.5)


@pytest.mark.parametrize("update", [NaturalGradient(), TrustRegion()])
def test_what_solves_in_float32_says_so(update):
    weights = model("float64").trainable_variables
    with pytest.raises(ValueError, match=r"solves for its step in float32, and .*kernel is float64"):
        update.build(weights, 1, {"log_prob": weights})


def test_a_model_that_was_never_called_is_given_as_it_is(tmp_path):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.out = keras.layers.Dense(2)

        def call(self, x):
            return self.out(x)

    class Stop(rlgrad.Callback):
        def on_start(self, run):
            run.stop = True

    quick = {"total_timesteps": 64, "num_envs": 2, "num_steps": 16, "evaluation_episodes": 0, "verbose": False}
    for i, given in enumerate((Own(), Own, lambda: Own())):
        run = rlgrad.train("a2c", "CartPole-v1", model=given, callbacks=Stop(), run_dir=tmp_path / str(i), **quick)
        run.close()
        with pytest.raises(ValueError, match="pass it as model="):
            rlgrad.load(run.path, verbose=False)
        loaded = rlgrad.load(run.path, model=Own, verbose=False)
        loaded.close()
        np.testing.assert_array_equal(loaded.policy.get_weights()[0], run.policy.get_weights()[0])


def test_a_model_without_weights_is_trained_beside_a_value(tmp_path):
    class Fixed(keras.Model):
        def call(self, x):
            return x[:, :2]

    quick = {"total_timesteps": 64, "num_envs": 2, "num_steps": 16, "evaluation_episodes": 0, "verbose": False}
    run = rlgrad.train("a2c", "CartPole-v1", model=Fixed(), hidden_sizes=(4,), run_dir=tmp_path / "run", **quick)
    assert run.updates == 2
    run.close()
