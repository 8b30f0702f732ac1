"""One forward pass, its outputs, and one backward pass per credit."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo
from helpers.slow import mostly_slow

from rlgrad.gradients import (
    DisconnectedGradientError,
    Entropy,
    LogProb,
    Output,
    gradient,
    jacobian,
    linearize,
    per_sample_gradient,
)

OUTPUTS = ("log_prob", "entropy", "value")


def ask(model, x, actions, weights=None):
    return linearize(
        model, x, output={"log_prob": LogProb(actions), "entropy": Entropy(), "value": "value"}, weights=weights
    )


def data(model, *leading):
    generator = np.random.default_rng(2)
    credit = {name: zoo.normal(generator, *leading) for name in OUTPUTS}
    return zoo.normal(generator, *leading, 4), generator.integers(0, 3, leading), credit


def plain(model, x, actions, credit):
    """The surrogate that a textbook would differentiate: Σ c log π + c H + c v, on one tape."""
    with tf.GradientTape() as tape:
        y = model(x, training=False)
        log_probs = tf.nn.log_softmax(y["policy"])
        values = {
            "log_prob": tf.reduce_sum(tf.one_hot(actions, 3) * log_probs, axis=-1),
            "entropy": -tf.reduce_sum(tf.exp(log_probs) * log_probs, axis=-1),
            "value": tf.reshape(y["value"], actions.shape),
        }
        total = tf.add_n([tf.reduce_sum(credit[name] * values[name]) for name in credit])
    return values, tape.gradient(total, [v.value for v in model.trainable_variables])


@pytest.fixture(params=["two_heads", "policy", "policy_time_major"])
def case(request):
    model = zoo.randomized(zoo.two_heads() if request.param == "two_heads" else zoo.TimeMajorPolicy())
    return model, *data(model, *((3, 2) if request.param == "policy_time_major" else (5,)))


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@mostly_slow("named", [False, True], quick=[True])
def test_credits_give_the_gradient_of_the_surrogate_eager_traced_and_compiled(case, mode, named):
    model, x, actions, credit = case
    variables = list(model.trainable_variables) if named else None

    def step(x, actions, credit):
        lin = ask(model, x, actions, variables)
        return lin.outputs, list(lin.gradient(credit).values())

    run = step if mode == "eager" else tf.function(step, autograph=False, jit_compile=mode == "xla")
    values, gradients = run(x, actions, credit)
    expected_values, expected = plain(model, x, actions, credit)
    zoo.assert_close([values[name] for name in OUTPUTS], [expected_values[name] for name in OUTPUTS])
    zoo.assert_close(gradients, expected)


def test_the_compiled_step_runs_the_model_once_forward_and_once_backward():
    model = zoo.randomized(zoo.two_heads())
    x, actions, credit = data(model, 5)

    def ours(x, actions, credit):
        return list(ask(model, x, actions).gradient(credit).values())

    def hand_written(x, actions, credit):
        return plain(model, x, actions, credit)[1]

    def products(function):
        graph = tf.function(function, autograph=False).get_concrete_function(x, actions, credit).graph
        return sum(op.type == "MatMul" for op in graph.get_operations())

    assert products(ours) == products(hand_written)


def test_a_credit_may_depend_on_the_outputs_and_nothing_leaks_through_it():
    model = zoo.randomized(zoo.two_heads())
    x, actions, _ = data(model, 5)
    with tf.GradientTape(persistent=True) as tape:
        lin = ask(model, x, actions)
        seen = tf.reduce_sum(lin.outputs["value"])
    assert tape.gradient(seen, [v.value for v in model.trainable_variables]) == [None] * 6
    got = lin.gradient({"log_prob": 1.0 - lin.outputs["value"]})
    _, expected = plain(model, x, actions, {"log_prob": 1.0 - np.asarray(lin.outputs["value"])})
    zoo.assert_close(got.values(), expected[:4])


def test_several_credits_share_one_forward_pass():
    model = zoo.randomized(zoo.two_heads())
    x, actions, credit = data(model, 5)
    lin = ask(model, x, actions)
    once, again = lin.gradient(credit), lin.gradient(credit)
    parts = [lin.gradient({name: c}) for name, c in credit.items()]
    for path, total in once.items():
        np.testing.assert_array_equal(total, again[path])
        np.testing.assert_allclose(sum(np.asarray(p[path]) for p in parts if path in p), total, rtol=1e-4, atol=1e-5)


def test_outputs_left_out_do_not_count_and_numbers_broadcast():
    model = zoo.randomized(zoo.two_heads())
    x, actions, _ = data(model, 5)
    lin = ask(model, x, actions)
    assert list(lin.gradient({"value": 1})) == ["body/kernel", "body/bias", "v/kernel", "v/bias"]
    zoo.assert_close(
        lin.gradient({"value": 0.5}).values(),
        gradient(model, x, output="value", sample_weight=np.full(5, 0.5)).values(),
    )
    zoo.assert_close(
        linearize(model, x, output="value").gradient().values(), gradient(model, x, output="value").values()
    )


@pytest.mark.parametrize("traced", [False, True])
def test_variables_are_those_that_an_output_depends_on(traced):
    model = zoo.randomized(zoo.TimeMajorPolicy())
    x, actions, _ = data(model, 5)
    found = {}

    def look(x):
        found["both"] = ask(model, x, actions).variables
        found["value"] = linearize(model, x, output={"value": "value"}).variables
        found["named"] = ask(model, x, actions, weights=[model.critic, model.actor]).variables
        return x

    (tf.function(look, autograph=False) if traced else look)(tf.constant(x))
    same = lambda a, b: [id(v) for v in a] == [id(v) for v in b]
    assert same(found["both"], model.trainable_variables)
    assert same(found["value"], model.critic.trainable_variables)
    assert same(found["named"], model.trainable_variables)


@pytest.mark.parametrize("traced", [False, True])
def test_a_named_variable_must_be_connected_to_a_credited_output(traced):
    model = zoo.randomized(zoo.TimeMajorPolicy())
    x, actions, _ = data(model, 5)

    def step(x):
        lin = ask(model, x, actions, weights=model.trainable_variables)
        assert len(lin.gradient({"log_prob": 1.0, "value": 1.0})) == 8
        with pytest.raises(DisconnectedGradientError, match=r"critic.*Connected are: actor/dense") as error:
            lin.gradient({"log_prob": 1.0, "entropy": 1.0})
        assert "'log_prob', 'entropy'" in str(error.value)
        return x

    (tf.function(step, autograph=False) if traced else step)(tf.constant(x))


@pytest.mark.parametrize("make", [zoo.two_heads, zoo.TimeMajorPolicy])
def test_per_sample_gives_the_rows_of_each_output(make):
    model = zoo.randomized(make())
    x, actions, _ = data(model, 5)
    rows = ask(model, x, actions).per_sample()
    for name, output in {"log_prob": LogProb(actions), "entropy": Entropy(), "value": "value"}.items():
        assert list(rows[name]) == list(gradient(model, x, output=output))
        zoo.assert_close(rows[name].values(), per_sample_gradient(model, x, output=output).values())
        whole = gradient(model, x, output=output)
        zoo.assert_close([np.sum(g, axis=0) for g in rows[name].values()], whole.values())
    single = linearize(model, x, output="value").per_sample()
    zoo.assert_close(single.values(), rows["value"].values())


def test_functions_of_several_time_axes_take_weights_of_the_same_axes():
    model = zoo.randomized(zoo.TimeMajorPolicy())
    x, actions, credit = data(model, 3, 2)
    output = LogProb(actions) + 0.1 * Entropy() + 0.5 * Output.of("value")
    got = gradient(model, x, output=output, sample_weight=credit["value"])
    c = credit["value"]
    _, expected = plain(
        model, x, actions, {"log_prob": c, "entropy": np.float32(0.1) * c, "value": np.float32(0.5) * c}
    )
    zoo.assert_close(got.values(), expected)
    _, of_unit = plain(model, x, actions, {"value": c})
    zoo.assert_close(gradient(model, x, output="value", sample_weight=c).values(), of_unit[4:])
    with pytest.raises(ValueError, match=r"shape \(3, 2\), got \(3, 1\)"):
        gradient(model, x, output="value", sample_weight=c[:, :1])
    for function in (per_sample_gradient, jacobian):
        with pytest.raises(ValueError, match="Flatten the time and environment axes first"):
            function(model, x, output=LogProb(actions))


def test_a_single_environment_is_not_mistaken_for_a_unit():
    model = zoo.randomized(zoo.TimeMajorPolicy())
    x, actions, _ = data(model, 3, 1)
    assert ask(model, x, actions).outputs["value"].shape == (3, 1)


def test_a_credit_that_does_not_fit_is_refused():
    model = zoo.randomized(zoo.two_heads())
    x, actions, _ = data(model, 5)
    lin = ask(model, x, actions)
    with pytest.raises(ValueError, match=r"'vlue'.*Did you mean 'value'"):
        lin.gradient({"vlue": 1.0})
    with pytest.raises(ValueError, match=r"credit of 'value' must have the output's shape \(5,\), got \(5, 1\)"):
        lin.gradient({"value": np.ones((5, 1))})
    with pytest.raises(ValueError, match=r"shape \(5,\), got \(1,\)"):
        lin.gradient({"value": np.ones(1)})
    with pytest.raises(ValueError, match="a dict with keys among"):
        lin.gradient(1.0)
    with pytest.raises(ValueError, match="empty"):
        lin.gradient({})
    with pytest.raises(ValueError, match="not in a dict"):
        linearize(model, x, output="value").gradient({"value": 1.0})
    with pytest.raises(ValueError, match="names nothing"):
        linearize(model, x, output={})
