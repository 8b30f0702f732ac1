"""Ascent moves weights along the gradient, clips once, and never takes a step that is not finite."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import rlgrad
from rlgrad.agents import PPO
from rlgrad.updates import Ascent, PerHead


def variables(*values):
    return [keras.Variable(np.asarray(v, np.float32), name=f"v{i}") for i, v in enumerate(values)]


class Slope:
    """An objective that rises by 1 with its one weight."""

    metric_names = ()

    def __init__(self, progress=0.0, weights=None):
        self.batch = SimpleNamespace(
            progress=tf.constant(progress), weights=tf.ones([4]) if weights is None else weights
        )

    def gradient(self):
        return {"v": tf.constant([1.0])}, {}


def test_one_step_of_plain_gradient_ascent_by_hand():
    (v,) = built = variables([1.0, 2.0])
    Ascent(optimizer="sgd", learning_rate=0.5).build(built).apply_gradient({"v": tf.constant([2.0, -4.0])})
    np.testing.assert_allclose(v, [2.0, 0.0])


def test_the_step_is_clipped_to_the_norm_over_all_variables_together():
    a, b = built = variables([0.0], [0.0])
    state = Ascent(optimizer="sgd", learning_rate=1.0, max_grad_norm=1.0).build(built)
    metrics = state.apply_gradient({"a": tf.constant([3.0]), "b": tf.constant([4.0])})
    # ‖(3, 4)‖ = 5, so a fifth of it is taken; the metric is the norm before clipping.
    np.testing.assert_allclose([a.numpy()[0], b.numpy()[0]], [0.6, 0.8], rtol=1e-6)
    assert float(metrics["gradient_norm"]) == pytest.approx(5.0)


def test_a_gradient_below_the_limit_is_left_alone():
    (v,) = built = variables([0.0])
    Ascent(optimizer="sgd", learning_rate=1.0, max_grad_norm=1.0).build(built).apply_gradient({"v": tf.constant([0.5])})
    np.testing.assert_allclose(v, [0.5])


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "XLA"])
def test_a_network_too_large_for_one_vector_moves_as_its_optimizer_says(xla):
    rng = np.random.default_rng(0)
    start, gradient = (rng.normal(size=(400, 300)).astype(np.float32) for _ in range(2))
    (v,) = built = variables(start)
    (w,) = alone = variables(start)
    state = Ascent(optimizer=keras.optimizers.RMSprop(0.01), max_grad_norm=1.0).build(built)
    optimizer = keras.optimizers.RMSprop(0.01)
    step = tf.function(lambda g: state.apply_gradient({"v": g}), jit_compile=xla, autograph=False)
    for scale in (1.0, 0.5):
        metrics = step(tf.constant(scale * gradient))
        optimizer.apply([tf.constant(-gradient / np.linalg.norm(gradient))], alone)
        assert float(metrics["gradient_norm"]) == pytest.approx(scale * np.linalg.norm(gradient), rel=1e-5)
    np.testing.assert_allclose(v, w, rtol=1e-5, atol=1e-6)
    before = v.numpy()
    step(tf.constant(np.where(gradient > 3.0, np.nan, gradient)))
    np.testing.assert_array_equal(v, before)


@pytest.mark.parametrize("name", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_clipping_in_two_places_is_refused(name):
    with pytest.raises(ValueError, match=f"clips by {name}"):
        Ascent(optimizer=keras.optimizers.Adam(**{name: 1.0}), max_grad_norm=1.0)


def test_every_build_has_an_optimizer_of_its_own():
    update = Ascent(optimizer=keras.optimizers.Adam(0.1))
    first, second = update.build(variables([0.0])), update.build(variables([0.0]))
    assert first.optimizer is not second.optimizer
    assert first.optimizer is not update.optimizer
    assert float(first.optimizer.learning_rate) == pytest.approx(0.1)


def test_weight_constraints_are_honoured():
    layer = keras.layers.Dense(2, use_bias=False, kernel_initializer="ones", kernel_constraint="non_neg")
    layer.build((None, 1))
    v = layer.kernel
    Ascent(optimizer="sgd", learning_rate=1.0).build([v]).apply_gradient({"v": tf.constant([[-5.0, 5.0]])})
    np.testing.assert_allclose(v, [[0.0, 6.0]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_moves_nothing_and_is_named(bad):
    a, b = built = variables([1.0], [1.0])
    state = Ascent(optimizer="adam").build(built)
    with pytest.raises(FloatingPointError, match=r"of second is not finite"):
        state.apply_gradient({"first": tf.constant([1.0]), "second": tf.constant([bad])})
    np.testing.assert_allclose([a.numpy()[0], b.numpy()[0]], [1.0, 1.0])
    assert int(state.optimizer.iterations) == 0


def test_a_gradient_of_other_variables_is_refused():
    state = Ascent().build(variables([1.0, 2.0]))
    with pytest.raises(ValueError, match="of shapes"):
        state.apply_gradient({"v": tf.constant([1.0])})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adan"}, "'adan'. Did you mean 'adam'"),
        ({"num_epochs": 0}, "num_epochs is at least 1"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is above 0"),
        ({"target_kl": 0.0, "num_epochs": 2}, "target_kl is above 0"),
        ({"target_kl": 0.01}, "take more steps"),
        ({"optimizer": keras.optimizers.Adam(), "learning_rate": 0.1}, "belongs to the optimizer"),
        ({"optimizer": keras.optimizers.Adam(), "optimizer_options": {"beta_1": 0.5}}, "is made already"),
        ({"optimizer_options": {"rho": 0.5}}, "has 'rho', which 'adam' does not take there. It takes: .*beta_1"),
        ({"optimizer_options": {"learning_rate": 0.5}}, "the step size is learning_rate"),
        ({"optimizer_options": {"beta_1": "much"}}, "beta_1 of 'adam' is a number, such as 0.9"),
        (
            {
                "optimizer": keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)),
                "learning_rate_schedule": "linear",
            },
            "schedule of its own",
        ),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Ascent(**options)


def test_options_of_the_optimizer_are_its_own_until_it_is_another():
    named = Ascent(optimizer="rmsprop", optimizer_options={"rho": 0.5, "epsilon": 0.01}, learning_rate=0.1)
    variable, other = keras.Variable([1.0]), keras.Variable([1.0])
    named.build([variable]).apply_gradient({"x": tf.constant([2.0])})
    np.testing.assert_allclose(variable, [1.0 + 0.1 * 2.0 / np.sqrt(0.5 * 4.0 + 0.01)], rtol=1e-6)
    named.with_optimizer("sgd").build([other]).apply_gradient({"x": tf.constant([2.0])})
    np.testing.assert_allclose(other, [1.2], rtol=1e-6)


def test_a_target_kl_is_refused_where_no_policy_moves():
    from helpers.by_hand import policy_of

    steps = Ascent(num_epochs=2, target_kl=0.01)
    with pytest.raises(ValueError, match="this ascent moves a value alone"):
        rlgrad.Learner(PPO(update=PerHead(policy=Ascent(), value=steps)), policy_of("discrete"), num_envs=8)


def test_a_schedule_of_the_optimizer_reports_the_rate_of_the_step_that_was_taken():
    (v,) = built = variables([0.0])
    rate = keras.optimizers.schedules.PolynomialDecay(1.0, decay_steps=10, end_learning_rate=0.0)
    state = Ascent(optimizer=keras.optimizers.SGD(rate)).build(built)
    for taken, at in ((1.0, 1.0), (0.9, 1.9)):
        state.apply_gradient({"v": tf.constant([1.0])})
        assert float(state.last_rate) == pytest.approx(taken)
        assert float(v[0]) == pytest.approx(at)


@pytest.mark.parametrize(("schedule", "rate"), [("constant", 0.4), ("linear", 0.1)])
def test_a_linear_schedule_lowers_the_rate_with_the_progress_of_training(schedule, rate):
    (v,) = built = variables([0.0])
    update = Ascent(optimizer="sgd", learning_rate=0.4, learning_rate_schedule=schedule)
    state = update.build(built)
    metrics = update.apply(Slope(progress=0.75), state, None)
    assert float(metrics["learning_rate"]) == pytest.approx(rate)
    assert float(v[0]) == pytest.approx(rate)
    state.optimizer.learning_rate.assign(7.0)  # as a checkpoint of other settings would
    state.renew()
    assert float(state.optimizer.learning_rate) == pytest.approx(0.4 if schedule == "constant" else 7.0)


def test_minibatches_that_do_not_divide_a_rollout_are_refused_with_what_is_divided():
    update = Ascent(num_minibatches=3)
    with pytest.raises(ValueError, match="does not divide the 8 steps of a rollout"):
        update.apply(Slope(weights=tf.ones([8])), update.build(variables([0.0])), None)
    with pytest.raises(ValueError, match="does not divide the 8 sequences of a rollout"):
        update.apply(Slope(weights=tf.ones([8, 4])), update.build(variables([0.0])), None)


@pytest.mark.parametrize("shape", [(1,), (64,), (65,), (3, 43), (7, 5, 11), (256, 31)])
def test_the_norm_of_a_gradient_counts_each_number_once(shape):
    gradient = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    state = Ascent(optimizer="sgd", learning_rate=0.1).build(variables(np.zeros(shape)))
    length = state.apply_gradient({"v": tf.constant(gradient)})["gradient_norm"]
    assert float(length) == pytest.approx(np.linalg.norm(gradient.astype(np.float64)), rel=1e-6)
