"""output=: heads, units, distributions, their sums and scalings, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo

from rlgrad.distributions import Categorical, DiagonalGaussian
from rlgrad.gradients import Entropy, LogProb, Output, gradient, input_gradient, jacobian, value_and_gradient

layers = keras.layers
ACTIONS = np.array([2, 0, 1, 1])


@pytest.fixture(scope="module")
def plain():
    return zoo.make("sequential"), zoo.inputs_for("sequential")


@pytest.fixture(scope="module")
def heads():
    return zoo.randomized(zoo.two_heads()), zoo.inputs_for("functional")


def value(model, x, output):
    return np.asarray(value_and_gradient(model, x, output=output)[0])


def test_a_head_of_one_unit_is_one_number_per_sample(heads):
    model, x = heads
    y = model(x)
    np.testing.assert_allclose(value(model, x, "value"), y["value"][:, 0], rtol=1e-5)
    np.testing.assert_allclose(value(model, x, "policy"), np.sum(y["policy"], axis=1), rtol=1e-5)
    np.testing.assert_allclose(value(model, x, Output.of("policy", unit=2)), y["policy"][:, 2], rtol=1e-5)
    np.testing.assert_allclose(
        value(model, x, Output.of("policy", unit=ACTIONS)), np.asarray(y["policy"])[range(4), ACTIONS], rtol=1e-5
    )


def test_heads_in_a_list_have_the_names_keras_gives_them_and_nested_ones_a_path():
    x = keras.Input((4,))
    a, b = layers.Dense(2, name="a")(x), layers.Dense(1, name="b")(x)
    model, data = keras.Model(x, [a, b]), zoo.inputs_for("functional")
    np.testing.assert_allclose(value(model, data, "b"), np.asarray(model(data)[1])[:, 0], rtol=1e-5)
    policy = zoo.randomized(zoo.TimeMajorPolicy())
    policy.call = lambda x: {
        "policy": {"mean": policy.actor(x), "log_std": tf.zeros(3)},
        "value": policy.critic(x)[:, 0],
    }
    policy.distribution = DiagonalGaussian()
    np.testing.assert_allclose(value(policy, data, "policy/mean"), np.sum(policy.actor(data), axis=1), rtol=1e-5)
    with pytest.raises(ValueError, match=r"consists of \['mean', 'log_std'\].*output='policy/mean'"):
        gradient(policy, data, output="policy")


def test_outputs_add_subtract_negate_and_scale(plain):
    model, x = plain
    log_prob, entropy = value(model, x, LogProb(ACTIONS)), value(model, x, Entropy())
    y = np.asarray(model(x))
    for output, expected in [
        (LogProb(ACTIONS) + Entropy(), log_prob + entropy),
        (LogProb(ACTIONS) - 2.0 * Entropy(), log_prob - 2 * entropy),
        (-(LogProb(ACTIONS) / 4), -log_prob / 4),
        (0.5 * (LogProb(ACTIONS) + 3 * Output.of(1)), 0.5 * (log_prob + 3 * y[:, 1])),
        (1 + LogProb(ACTIONS), y[:, 1] + log_prob),
        (2 - LogProb(ACTIONS), y[:, 2] - log_prob),
        (LogProb(ACTIONS) + (lambda y: y[:, 0] ** 2), log_prob + y[:, 0] ** 2),
        (sum([LogProb(ACTIONS), Entropy()]), log_prob + entropy),
        (tf.constant(2.0) * Entropy(), 2 * entropy),
        (np.float32(2.0) * Entropy(), 2 * entropy),
    ]:
        np.testing.assert_allclose(value(model, x, output), expected, rtol=1e-4, atol=1e-6)


def test_a_head_joins_a_sum_by_its_name(heads):
    model, x = heads
    expected = value(model, x, LogProb(ACTIONS)) + value(model, x, "value")
    np.testing.assert_allclose(value(model, x, LogProb(ACTIONS) + "value"), expected, rtol=1e-5)
    np.testing.assert_allclose(value(model, x, "value" + LogProb(ACTIONS)), expected, rtol=1e-5)


def test_a_scale_per_sample_is_refused():
    with pytest.raises(TypeError, match="sample_weight="):
        np.ones(4) * LogProb(ACTIONS)
    with pytest.raises(TypeError, match="scaled by one number"):
        LogProb(ACTIONS) * Entropy()


def test_the_distribution_is_the_argument_else_the_models_own_else_categorical(plain, heads):
    model, x = plain
    a = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)

    class Unit(DiagonalGaussian):
        def log_prob(self, mean, actions):
            return super().log_prob({"mean": mean, "log_std": tf.zeros(3)}, actions)

    expected = -0.5 * np.sum((a - np.asarray(model(x))) ** 2 + np.log(2 * np.pi), axis=1)
    np.testing.assert_allclose(value(model, x, LogProb(a, Unit())), expected, rtol=1e-5)
    logits = np.asarray(model(x), np.float64)
    expected = logits[range(4), ACTIONS] - np.log(np.sum(np.exp(logits), axis=1))
    np.testing.assert_allclose(value(model, x, LogProb(ACTIONS)), expected, rtol=1e-4)
    policy = zoo.randomized(zoo.TimeMajorPolicy(Categorical(3)))
    np.testing.assert_allclose(value(policy, x, LogProb(ACTIONS)), value(policy.actor, x, LogProb(ACTIONS)), rtol=1e-5)
    np.testing.assert_allclose(value(*heads, Entropy(head="policy")), value(*heads, Entropy()))


def test_a_units_number_sums_over_positions_of_a_convolution():
    model, x = zoo.make("convolution"), zoo.inputs_for("convolution")
    f, _ = value_and_gradient(model, x, layer="conv", output=[0, 1, 2, 0])
    maps = np.asarray(model.layers[0](x))
    np.testing.assert_allclose(f, maps.sum(axis=(1, 2))[range(4), [0, 1, 2, 0]], rtol=1e-4)


def test_several_outputs_must_be_chosen_from(heads):
    model, x = heads
    with pytest.raises(ValueError, match=r"several outputs: 'policy', 'value'. Name one, as in output='policy'"):
        gradient(model, x)
    with pytest.raises(ValueError, match=r"no output 'vlue', only 'policy', 'value'. Did you mean 'value'"):
        gradient(model, x, output="vlue")


def test_actions_that_cannot_be_actions_are_refused(plain):
    model, x = plain
    for actions, error, message in [
        ([0, 1, 2, 3], ValueError, r"Actions are 0 … 2, got values from 0 to 3"),
        ([0, 1, -1, 2], ValueError, "got values from -1 to 2"),
        (
            [0, 1],
            ValueError,
            r"The input has 4 rows, so there must be 4 actions \(or units, weights, targets\); got shape \(2,\)",
        ),
        ([0], ValueError, "got shape"),
        (ACTIONS[:, None], ValueError, r"Actions of shape \(4,\) were expected.*got \(4, 1\)"),
        (ACTIONS.astype(float), TypeError, "Pass the distribution.*or integer actions"),
    ]:
        with pytest.raises(error, match=message):
            gradient(model, x, output=LogProb(actions))
    with pytest.raises(TypeError, match="takes integer actions"):
        gradient(model, x, output=LogProb(ACTIONS * 1.0, Categorical(3)))
    with pytest.raises(ValueError, match="Actions are 0 … 2"):
        tf.function(lambda x: gradient(model, x, output=LogProb([0, 1, 2, 3])), autograph=False)(x)


def test_gaussian_actions_of_another_shape_do_not_broadcast():
    x = keras.Input((4,))
    model = keras.Model(x, {"mean": layers.Dense(2)(x), "log_std": layers.Dense(2)(x)})
    data, gaussian = zoo.inputs_for("functional"), DiagonalGaussian()
    with pytest.raises(ValueError, match=r"Actions of shape \(4, 2\) were expected.*got \(4, 1\)"):
        gradient(model, data, output=LogProb(np.zeros((4, 1), np.float32), gaussian))
    with pytest.raises(TypeError, match="floating-point actions"):
        gradient(model, data, output=LogProb(ACTIONS, gaussian))
    with pytest.raises(TypeError, match=r"consists of \['mean', 'log_std'\].*LogProb\(actions, rlgrad"):
        gradient(model, data, output=Entropy())


def test_units_that_do_not_exist_are_refused(plain):
    model, x = plain
    for unit, error, message in [
        (3, ValueError, "0 … 2, or −1 … −3 from the end; got 3"),
        (-4, ValueError, "from the end; got -4"),
        ([0, 1, 2, 3], ValueError, "got values from 0 to 3"),
        ([0, 1, 2, -1], ValueError, "got values from -1 to 2"),
        ([0, 1], ValueError, "4 rows"),
        (True, TypeError, "got a bool"),
        (1.5, TypeError, "got float"),
        (np.ones(4), TypeError, "Units are integers"),
        ("nothing", ValueError, "has one output, without a name"),
        (object(), TypeError, "output= takes None, a unit number"),
    ]:
        with pytest.raises(error, match=message):
            gradient(model, x, output=unit)
    gradient(model, x, output=2)
    with pytest.raises(ValueError, match="from the end; got 3"):  # also when it is compiled already
        gradient(model, x, output=3)


def test_functions_that_leave_tensorflow_or_the_batch_are_refused(plain):
    model, x = plain
    for function, error, message in [
        (lambda y: y.numpy()[:, 0], TypeError, "is a ndarray, not a tensor"),
        (lambda y: tf.argmax(y, axis=-1), TypeError, "dtype int64; only floating-point"),
        (lambda y: tf.reduce_sum(y), ValueError, "batch axis is gone"),
        (lambda y: tf.reduce_mean(y, axis=0), ValueError, "batch axis is gone"),
        (lambda y: y[:2, 0], ValueError, "batch axis is gone"),
    ]:
        with pytest.raises(error, match=message):
            gradient(model, x, output=function)


def test_an_integer_output_has_no_gradient():
    x = keras.Input((4,))
    model = keras.Model(x, keras.ops.argmax(layers.Dense(3)(x), axis=-1))
    with pytest.raises(TypeError, match="only floating-point outputs have a gradient"):
        gradient(model, zoo.inputs_for("functional"))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_log_prob_of_a_model_that_ends_in_probabilities_is_refused_with_the_fix(activation):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation)], name="net")
    for output in (LogProb(ACTIONS), Entropy(), LogProb(ACTIONS, Categorical(3))):
        with pytest.raises(
            ValueError, match=f"'net' ends in '{activation}'.*Remove the activation from the last layer"
        ):
            gradient(model, zoo.inputs_for("functional"), output=output)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    with pytest.raises(ValueError, match=r"logits \(N, K\) with K ≥ 2, got \(4, 1\)"):
        gradient(model, zoo.inputs_for("functional"), output=LogProb([0, 0, 0, 0]))


def test_inputs_that_the_model_does_not_take_are_refused():
    model, x = zoo.make("sequential"), zoo.inputs_for("sequential")
    two, pair = zoo.make("two_inputs"), zoo.inputs_for("two_inputs")
    for m, data, message in [
        (model, x[0], r"takes input x of shape \(N, 4\), got \(4,\). The batch axis is missing: pass x\[None\]"),
        (model, x[:, :3], r"of shape \(N, 4\), got \(4, 3\). Its axes after the first"),
        (model, x[None], "several leading axes: flatten them into one"),
        (two, x, "takes a dict with the keys .*; got one array"),
        (two, {"a": pair["a"]}, "got a dict with the keys"),
        (two, {"a": pair["a"], "b": pair["b"][:2]}, r"same number of rows.*x\['a'\]: 4, x\['b'\]: 2"),
        (two, {"a": pair["a"], "b": pair["b"][:, :2]}, r"x\['b'\] of shape \(N, 3\), got \(4, 2\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            gradient(m, data)
    with pytest.raises(TypeError, match="not of numbers"):
        gradient(model, np.array([["a"] * 4]))
    with pytest.raises(TypeError, match="symbolic"):
        gradient(model, keras.Input((4,)))


def test_sample_weights_have_exactly_the_outputs_shape(plain):
    model, x = plain
    for weight in (np.ones(3), np.ones((4, 1)), np.ones((1, 4)), 2.0):
        with pytest.raises(ValueError, match="sample_weight"):
            gradient(model, x, sample_weight=weight)
    with pytest.raises(ValueError, match="one number per sample"):
        jacobian(model, x, sample_weight=np.ones((4, 3)))
    integers = gradient(model, x, sample_weight=np.array([1, 2, 3, 4]))
    zoo.assert_close(integers.values(), gradient(model, x, sample_weight=[1.0, 2.0, 3.0, 4.0]).values())


def test_an_input_that_the_output_ignores_is_named():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    model = keras.Model([a, b], [layers.Dense(2, name="of_a")(a), layers.Dense(2, name="of_b")(b)])
    data = list(zoo.inputs_for("two_inputs").values())
    with pytest.raises(ValueError, match=r"does not depend on input x\[1\]. It depends on inputs=0"):
        input_gradient(model, data, output="of_a")


def test_models_that_are_not_built_or_keep_state_are_refused():
    with pytest.raises(ValueError, match=r"not built.*keras\.Input"):
        gradient(keras.Sequential([layers.Dense(2)]), np.ones((1, 4)))
    stateful = keras.Sequential([keras.Input((3, 2), batch_size=4), layers.LSTM(2, stateful=True, name="memory")])
    with pytest.raises(ValueError, match=r"\['memory'\] keep their state"):
        gradient(stateful, np.ones((4, 3, 2)))
