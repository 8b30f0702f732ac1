"""The action of the largest value: NumPy, TensorFlow, Keras and a plain loop agree, with quantiles, atoms and masks too."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.by_hand import log_softmax

from rlgrad import gradients
from rlgrad.distributions import Categorical, Greedy
from rlgrad.distributions.protocol import IMPOSSIBLE
from rlgrad.gradients import Chosen

ACTIONS = 4
KINDS = {
    "one number": Greedy(ACTIONS),
    "counted from 3": Greedy(ACTIONS, start=3),
    "quantiles": Greedy(ACTIONS, width=5),
    "atoms": Greedy(ACTIONS, start=-2, width=6, support=(-2.0, 3.0)),
}
each = pytest.mark.parametrize("greedy", KINDS.values(), ids=KINDS)


def parameters_of(greedy, rows=200, seed=0, masked=False):
    """What a network says, and which actions are allowed; one at least of each row."""
    rng = np.random.default_rng(seed)
    shape = (rows, ACTIONS, greedy.width) if greedy.width else (rows, ACTIONS)
    values = rng.normal(size=shape, scale=2.0).astype(np.float32)
    allowed = rng.random((rows, ACTIONS)) < (0.5 if masked else 1.0)
    allowed[np.arange(rows), rng.integers(ACTIONS, size=rows)] = True
    mask = allowed[..., None] if greedy.width else allowed
    return np.where(mask, values, np.float32(IMPOSSIBLE)), allowed


def expected_by_hand(greedy, parameters, allowed):
    found = np.full(allowed.shape, -np.inf)
    for n, k in zip(*np.nonzero(allowed), strict=True):
        said = parameters[n, k].astype(float)
        if greedy.support is not None:
            said = (np.exp(log_softmax(said)) * np.linspace(*greedy.support, greedy.width)).sum()
        found[n, k] = said.mean()
    return found


@each
@pytest.mark.parametrize("masked", [False, True])
def test_numpy_tensorflow_and_keras_take_the_action_of_the_largest_expected_return(greedy, masked):
    parameters, allowed = parameters_of(greedy, masked=masked)
    by_hand = expected_by_hand(greedy, parameters, allowed)
    best = by_hand.argmax(-1)
    for found in (greedy.expected(parameters).numpy(), greedy.numpy_expected(parameters)):
        np.testing.assert_allclose(found[allowed], by_hand[allowed], rtol=1e-4, atol=1e-5)
        assert (found[~allowed] < -1e8).all()
    np.testing.assert_array_equal(greedy.allowed(parameters), allowed)
    np.testing.assert_allclose(greedy.state_value(parameters), by_hand.max(-1), rtol=1e-4, atol=1e-5)
    seeds = tf.zeros((len(best), 2), tf.int32)
    in_numpy, in_tensorflow = greedy.mode(parameters)[0], greedy.most_likely(parameters)
    for actions in (in_numpy, greedy.pick(parameters, None), in_tensorflow, greedy.draw(parameters, seeds)):
        np.testing.assert_array_equal(actions, best)
    exported = greedy.keras_actions(keras.ops.convert_to_tensor(parameters), "action")["action"]
    for actions in (greedy.to_environment(in_numpy), greedy.for_environment(in_tensorflow), exported):
        np.testing.assert_array_equal(actions, best + greedy.start)


def test_forbidden_atoms_are_not_taken_for_the_middle_of_the_support():
    """All their logits are −1e9, which a softmax makes uniform: here the mean, ½, is more than the allowed action has."""
    greedy = Greedy(2, width=3, support=(0.0, 1.0))
    parameters = np.array([[[3.0, 0.0, 0.0], [IMPOSSIBLE] * 3]], np.float32)
    assert greedy.mode(parameters)[0] == [0]
    assert greedy.most_likely(parameters).numpy() == [0]
    assert np.asarray(greedy.keras_actions(keras.ops.convert_to_tensor(parameters), "action")["action"]) == [0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_what_a_mask_forbids_stays_forbidden_in_any_precision(precision):
    """−1e9 is −998,244,352 in bfloat16, which is more, and −∞ in float16."""
    said = tf.cast(tf.cast([[2.0, IMPOSSIBLE, -3e4]], precision), tf.float32)
    for distribution in (Greedy(3), Categorical(3)):
        assert np.asarray(distribution.allowed(said)).tolist() == [[True, False, True]]
        assert np.asarray(distribution.allowed(said.numpy())).tolist() == [[True, False, True]]


def test_of_equal_values_the_first_is_taken():
    greedy, parameters = Greedy(3), np.array([[1.0, 2.0, 2.0]], np.float32)
    assert greedy.mode(parameters)[0] == [1]
    assert greedy.most_likely(parameters).numpy() == [1]
    exported = greedy.keras_actions(keras.ops.convert_to_tensor(parameters), "action")["action"]
    assert np.asarray(exported) == [1]


@each
def test_its_action_has_the_log_probability_0_and_the_others_none(greedy):
    parameters, _ = parameters_of(greedy, 6, masked=True)
    best = greedy.mode(parameters)[0]
    np.testing.assert_array_equal(greedy.mode(parameters)[1], np.zeros(6))
    for action in range(ACTIONS):
        actions = np.full(6, action)
        expected = np.where(best == action, 0.0, IMPOSSIBLE)
        np.testing.assert_array_equal(greedy.log_prob(parameters, actions), expected)
        np.testing.assert_array_equal(greedy.numpy_log_prob(parameters, actions), expected)
    np.testing.assert_array_equal(greedy.entropy(parameters), np.zeros(6))
    sampled, log_probs = greedy.sample(parameters, np.random.default_rng(0))
    np.testing.assert_array_equal(sampled, best)
    np.testing.assert_array_equal(log_probs, np.zeros(6))


@each
def test_leading_axes_stay(greedy):
    parameters, _ = parameters_of(greedy, 12, masked=True)
    deep = parameters.reshape(3, 4, *parameters.shape[1:])
    assert greedy.batch_rank(parameters) == 1
    assert greedy.batch_rank(deep) == 2
    best = greedy.mode(parameters)[0].reshape(3, 4)
    np.testing.assert_array_equal(greedy.mode(deep)[0], best)
    np.testing.assert_array_equal(greedy.most_likely(deep), best)
    np.testing.assert_array_equal(greedy.log_prob(deep, best), np.zeros((3, 4)))
    assert greedy.state_value(deep).shape == (3, 4)


def test_atoms_are_equally_far_apart_and_others_have_none():
    np.testing.assert_allclose(KINDS["atoms"].atoms, [-2, -1, 0, 1, 2, 3])
    for name in ("one number", "quantiles"):
        with pytest.raises(ValueError, match="have no atoms"):
            _ = KINDS[name].atoms


def test_what_makes_no_sense_of_it_is_refused():
    greedy, parameters = Greedy(3), np.zeros((2, 3), np.float32)
    for ask in (
        lambda: greedy.kl_divergence(parameters, parameters),
        lambda: greedy.fisher_product(parameters, parameters),
    ):
        with pytest.raises(ValueError, match="let Ascent move"):
            ask()
    for ask in (greedy.reparameterized, greedy.reparameterized_log_prob):
        with pytest.raises(TypeError):
            ask(parameters, None)
    for actions in ([3], [-1]):
        with pytest.raises(ValueError, match="Actions are 0 … 2"):
            greedy.check_actions(np.array(actions))
    with pytest.raises((TypeError, ValueError)):
        greedy.check_actions(np.array([0.5]))


def test_what_is_credited_is_what_the_network_says_of_the_action_taken():
    """The gradient of Σ_n c_n · z(x_n)[a_n] of one linear layer is Σ_n x_n ⊗ e_a ⊗ c_n."""
    layer = keras.layers.Dense(ACTIONS * 2, use_bias=False)
    model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Reshape((ACTIONS, 2))])
    rng = np.random.default_rng(0)
    x, a = rng.normal(size=(5, 3)).astype(np.float32), rng.integers(ACTIONS, size=5)
    c = rng.normal(size=(5, 2)).astype(np.float32)
    linear = gradients.linearize(model, x, output={"q": Chosen(None, a)})
    np.testing.assert_allclose(linear.outputs["q"], model(x).numpy()[np.arange(5), a], rtol=1e-6)
    (got,) = linear.gradient({"q": tf.constant(c)}).values()
    expected = np.zeros((3, ACTIONS, 2))
    for n in range(5):
        expected[:, a[n]] += np.outer(x[n], c[n])
    np.testing.assert_allclose(got, expected.reshape(3, -1), rtol=1e-4, atol=1e-6)
