"""The action as a function of the weights: TD3's and SAC's policy gradients as credits, against tapes and by hand."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers import zoo
from helpers.slow import mostly_slow

from rlgrad import gradients
from rlgrad.distributions import Categorical, DiagonalGaussian
from rlgrad.gradients import Action, ActionLogProb, Each, LogProb, input_gradient, linearize
from rlgrad.policies import make_policy

layers = keras.layers
ROWS, SIZE, ALPHA = 4, 2, 0.3
LOW, HIGH = np.array([-2.0, -1.0], np.float32), np.array([2.0, 3.0], np.float32)
SQUASHED = DiagonalGaussian(LOW, HIGH, squash=True)


def body(kind):
    if kind == "conv":
        x = keras.Input((5, 5, 2), name="observations")
        return x, layers.Flatten()(layers.Conv2D(2, 3, activation="tanh")(x))
    if kind == "memory":
        x = keras.Input((3, 4), name="observations")
        return x, layers.GRU(3)(x)
    x = keras.Input((4,), name="observations")
    return x, layers.Dense(5, "tanh")(x)


def drawn(model, seed=0):
    """The model with weights at which no tanh is saturated: there the textbook's log(1 − tanh² u) is −∞."""
    rng = np.random.default_rng(seed)
    for v in model.variables:
        if tf.as_dtype(v.dtype).is_floating:
            v.assign(rng.uniform(-0.5, 0.5, v.shape))
    return model


def gaussian_actor(kind="dense"):
    x, h = body(kind)
    heads = {"mean": layers.Dense(SIZE)(h), "log_std": layers.Dense(SIZE)(h)}
    model = drawn(keras.Model(x, {"policy": heads, "value": layers.Dense(1)(h)}))
    model.distribution = SQUASHED
    return model


def deterministic_actor(kind="dense"):
    x, h = body(kind)
    return drawn(keras.Model(x, layers.Dense(SIZE, "tanh")(h)))


def critic(kind="dense"):
    """Q of an action as it is stored, which the critic itself squashes."""
    x, h = body(kind)
    u = keras.Input((SIZE,), name="actions")
    a = keras.ops.tanh(u) * (HIGH - LOW) / 2 + (HIGH + LOW) / 2
    joined = layers.Dense(6, "tanh")(layers.Concatenate()([h, a]))
    return drawn(keras.Model({"observations": x, "actions": u}, layers.Dense(2)(joined)), seed=1)


def numbers(kind="dense"):
    rng = np.random.default_rng(3)
    shape = {"conv": (5, 5, 2), "memory": (3, 4)}.get(kind, (4,))
    return tf.constant(zoo.normal(rng, ROWS, *shape)), zoo.normal(rng, ROWS, SIZE)


def smaller(y):
    return tf.reduce_min(y, axis=-1)


def by_path(model, found):
    return {v.path: g for v, g in zip(model.trainable_variables, found, strict=True) if g is not None}


def same(found, expected):
    assert list(found) == list(expected)
    zoo.assert_close(found.values(), expected.values())


def textbook_log_prob(mean, log_std, noise, u):
    """log π of a = tanh u, scaled to the bounds, each part as the papers write it."""
    normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    return tf.reduce_sum(normal - tf.math.log((1 - tf.tanh(u) ** 2) * (HIGH - LOW) / 2), axis=-1)


@mostly_slow("kind", ["dense", "conv", "memory"])
def test_the_deterministic_policy_gradient_is_the_slope_of_the_critic_as_credit(kind):
    actor, q, (x, _) = deterministic_actor(kind), critic(kind), numbers(kind)
    variables = [v.value for v in actor.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        mu = actor(x)
        value = tf.reduce_sum(q({"observations": x, "actions": mu})[:, 0])
        units = [tf.unstack(mu[:, k]) for k in range(SIZE)]
    slope = input_gradient(q, {"observations": x, "actions": mu}, output=0, inputs="actions")
    expected = by_path(actor, tape.gradient(value, variables))
    same(gradients.gradient(actor, x, output=Action(), sample_weight=slope), expected)
    same(gradients.gradient(actor, x, output=Each(), sample_weight=slope), expected)
    # ∇θ Q(s, μ(s)) = Σ_n Σ_k ∂Q/∂a_nk ∇θ μ_k(s_n), unit by unit
    parts = [
        [float(slope[n, k]) * g for g in tape.gradient(units[k][n], variables)]
        for n in range(ROWS)
        for k in range(SIZE)
    ]
    same(by_path(actor, [sum(part) for part in zip(*parts, strict=True)]), expected)


@mostly_slow("kind", ["dense", "conv", "memory"])
def test_sacs_credits_are_the_gradient_of_its_loss(kind):
    actor, q, (x, noise) = gaussian_actor(kind), critic(kind), numbers(kind)
    with tf.GradientTape() as tape:
        p = actor(x)["policy"]
        u = p["mean"] + tf.exp(p["log_std"]) * noise
        loss = ALPHA * textbook_log_prob(p["mean"], p["log_std"], noise, u) - smaller(
            q({"observations": x, "actions": u})
        )
    found = tape.gradient(loss, [v.value for v in actor.trainable_variables])
    expected = by_path(actor, [None if g is None else -g for g in found])
    lin = linearize(actor, x, output={"action": Action(noise), "action_log_prob": ActionLogProb(noise)})
    zoo.assert_close([lin.outputs["action"]], [u])
    zoo.assert_close([lin.outputs["action_log_prob"]], [textbook_log_prob(p["mean"], p["log_std"], noise, u)])
    slope = input_gradient(q, {"observations": x, "actions": u}, output=smaller, inputs="actions")
    same(lin.gradient({"action": slope, "action_log_prob": -ALPHA}), expected)


def test_sacs_closed_formulas_are_the_same_credits():
    actor, q, (x, noise) = gaussian_actor(), critic(), numbers()
    lin = linearize(actor, x, output={"action": Action(noise), "action_log_prob": ActionLogProb(noise)})
    u = lin.outputs["action"]
    slope = input_gradient(q, {"observations": x, "actions": u}, output=smaller, inputs="actions")
    c_mean = slope - 2.0 * ALPHA * np.tanh(u)
    sigma = np.exp(actor(x)["policy"]["log_std"])
    # log|da/du| = log(1 − tanh²u) + …, whose slope is −2 tanh u; −α ∂ log π/∂u = −α · 2 tanh u, and −α ∂ log π/∂ log σ = α.
    both = linearize(actor, x, output={"mean": Each("policy/mean"), "log_std": Each("policy/log_std")})
    expected = both.gradient({"mean": c_mean, "log_std": ALPHA + c_mean * sigma * noise})
    same(lin.gradient({"action": slope, "action_log_prob": -ALPHA}), expected)


@mostly_slow("function", ["per_sample_gradient", "per_sample_norm", "jacobian", "gram", "input_gradient"], quick=2)
def test_actions_and_their_log_probs_with_every_function(function):
    actor, (x, noise) = gaussian_actor(), numbers()
    ask = getattr(gradients, function)

    def action(y):
        return y["policy"]["mean"] + tf.exp(y["policy"]["log_std"]) * tf.gather(noise, ORDER["rows"])

    def log_prob(y):
        u = action(y)
        return textbook_log_prob(y["policy"]["mean"], y["policy"]["log_std"], tf.gather(noise, ORDER["rows"]), u)

    for output, plain in ((Action(noise), action), (ActionLogProb(noise), log_prob)):
        rows = []
        for n in range(ROWS):  # each sample by itself, with a function that sums the units
            ORDER["rows"] = [n]
            one = (lambda y, plain=plain: plain(y)) if function == "jacobian" else _summed(plain)
            call = gradients.jacobian if function == "jacobian" else gradients.gradient
            if function == "input_gradient":
                call = gradients.input_gradient
            rows.append(call(actor, x[n : n + 1], output=one))
        found = ask(actor, x, output=output)
        if function in ("per_sample_norm", "gram"):
            flat = np.stack([np.asarray(gradients.flatten(row)) for row in rows])
            zoo.assert_close(
                [found], [np.linalg.norm(flat, axis=1) if function == "per_sample_norm" else flat @ flat.T]
            )
        elif function == "input_gradient":
            zoo.assert_close([found], [np.concatenate(rows)])
        else:
            join = np.concatenate if function == "jacobian" else np.stack
            same(found, {key: join([np.asarray(row[key]) for row in rows]) for key in rows[0]})


ORDER = {}


def _summed(plain):
    return lambda y: tf.reduce_sum(tf.reshape(plain(y), [1, -1]), axis=1)


def test_the_log_prob_of_a_narrow_gaussian_keeps_its_digits():
    """log π(μ + σ ε) of σ = e⁻¹², μ = 1000: u − μ is 0 or far off in float32, and −½ε² is not."""
    x = keras.Input((1,))
    model = keras.Model(x, {"mean": layers.Dense(1)(x) + 1000.0, "log_std": layers.Dense(1)(x) - 12.0})
    model.distribution = DiagonalGaussian()
    data, noise = np.array([[1.0], [-1.0]], np.float32), np.array([[0.5], [-2.0]], np.float32)
    lin = linearize(model, data, output=ActionLogProb(noise))
    log_std = model(data)["log_std"].numpy()[:, 0]
    zoo.assert_close([lin.outputs], [-0.5 * noise[:, 0] ** 2 - log_std - 0.5 * np.log(2 * np.pi)])
    found = lin.gradient([1.0, 1.0])
    by_log_std = gradients.gradient(model, data, output="log_std", sample_weight=[-1.0, -1.0])  # ∂ log π/∂ log σ = −1
    for path, g in found.items():
        zoo.assert_close([g], [by_log_std.get(path, np.zeros(g.shape))])


def test_without_noise_it_is_the_most_likely_action():
    actor, (x, _) = gaussian_actor(), numbers()
    zeros = np.zeros((ROWS, SIZE), np.float32)
    outputs = {"none": Action(), "zeros": Action(zeros), "log": ActionLogProb(), "log_zeros": ActionLogProb(zeros)}
    found = linearize(actor, x, output=outputs).outputs
    zoo.assert_close([found["none"], found["zeros"]], [actor(x)["policy"]["mean"]] * 2)
    zoo.assert_close([found["log"]], [found["log_zeros"]])
    zoo.assert_close([found["log"]], [linearize(actor, x, output=LogProb(found["none"])).outputs])


def test_the_distribution_and_the_head_can_be_named():
    x, h = body("dense")
    pi = {"mean": layers.Dense(SIZE)(h), "log_std": layers.Dense(SIZE)(h)}
    model = drawn(keras.Model(x, {"pi": pi, "other": layers.Dense(SIZE)(h)}))
    data, noise = numbers()
    p = model(data)["pi"]
    found = gradients.evaluate(model, data, output=Action(noise, DiagonalGaussian(), head="pi"))
    zoo.assert_close([found], [p["mean"] + np.exp(p["log_std"]) * noise])
    zoo.assert_close([gradients.evaluate(model, data, output=Action(head="other"))], [model(data)["other"]])
    with pytest.raises(TypeError, match="does not say which distribution"):
        gradients.gradient(model, data, output=Action(noise, head="pi"))
    with pytest.raises(TypeError, match="does not say which distribution"):
        gradients.gradient(model, data, output=ActionLogProb(noise, head="other"))


@pytest.mark.parametrize("output", [Action, ActionLogProb])
def test_actions_that_are_one_of_several_are_refused(output):
    model, (x, noise) = zoo.make("sequential"), numbers()
    for given in (noise, None):
        with pytest.raises(TypeError, match="one of several, which cannot be reparameterized"):
            gradients.gradient(model, x, output=output(given, Categorical(3)))


@pytest.mark.parametrize("shape", [(ROWS, 1), (ROWS,), (SIZE,), (1, SIZE), (ROWS, SIZE, 1)])
def test_noise_of_any_other_shape_is_refused(shape):
    actor, (x, _) = gaussian_actor(), numbers()
    with pytest.raises(ValueError, match=r"shape|rows"):
        gradients.gradient(actor, x, output=Action(np.ones(shape, np.float32)))
    with pytest.raises(TypeError, match="floating-point"):
        gradients.gradient(actor, x, output=ActionLogProb(np.ones((ROWS, SIZE), int)))


class Laplace:
    """Another library's distribution: no more than a caller needs."""

    def entropy(self, parameters):
        return tf.reduce_sum(1.0 + np.log(2.0) + parameters["log_std"] + 0.0 * parameters["mean"], axis=-1)

    def log_prob(self, parameters, actions):
        z = tf.abs(actions - parameters["mean"]) * tf.exp(-parameters["log_std"])
        return tf.reduce_sum(-z - parameters["log_std"] - np.log(2.0), axis=-1)

    def check_actions(self, actions):
        return tf.convert_to_tensor(actions)


class MovableLaplace(Laplace):
    def reparameterized(self, parameters, noise):
        return parameters["mean"] + tf.exp(parameters["log_std"]) * noise


def test_another_librarys_distribution_works_as_far_as_its_methods_reach():
    actor, (x, noise) = gaussian_actor(), numbers()
    actor.distribution = Laplace()
    gradients.gradient(actor, x, output=LogProb(noise))  # its batch axes are those of its entropy
    with pytest.raises(NotImplementedError, match="no method reparameterized"):
        gradients.gradient(actor, x, output=Action(noise))
    actor.distribution = MovableLaplace()
    found = linearize(actor, x, output=ActionLogProb(noise))
    p = actor(x)["policy"]
    zoo.assert_close([found.outputs], [tf.reduce_sum(-np.abs(noise) - p["log_std"] - np.log(2.0), axis=-1)])
    assert gradients.evaluate(actor, x, output=Action(noise)).shape == (ROWS, SIZE)


def test_axes_are_not_counted_by_an_entropy_that_a_distribution_may_not_have():
    @dataclasses.dataclass(frozen=True)
    class Values(DiagonalGaussian):
        def entropy(self, parameters):
            raise AssertionError("the entropy was asked for")

    actor, (x, noise) = gaussian_actor(), numbers()
    actor.distribution = Values()
    gradients.gradient(actor, x, output=Action(noise))
    gradients.gradient(actor, x, output="value")


@mostly_slow("squash", [False, True], quick=[True])
def test_a_policy_of_rlgrad_by_hand(squash):
    box = spaces.Box(LOW, HIGH)
    policy = make_policy(spaces.Box(-1, 1, (4,)), box, squash_actions=squash)
    rng = np.random.default_rng(0)
    x, noise, slope = zoo.normal(rng, 3, 2, 4), zoo.normal(rng, 3, 2, SIZE), zoo.normal(rng, 3, 2, SIZE)
    p = policy(x)["policy"]
    zoo.assert_close([gradients.evaluate(policy, x, output=Action(noise))], [p["mean"] + np.exp(p["log_std"]) * noise])
    with tf.GradientTape() as tape:
        p = policy(x)["policy"]
        u = p["mean"] + tf.exp(p["log_std"]) * noise
        value = tf.reduce_sum(slope * u) - ALPHA * tf.reduce_sum(policy.distribution.log_prob(p, u))
    expected = by_path(policy, tape.gradient(value, [v.value for v in policy.trainable_variables]))
    lin = linearize(policy, x, output={"a": Action(noise), "l": ActionLogProb(noise)})
    same(lin.gradient({"a": slope, "l": -ALPHA}), expected)
    assert lin.outputs["l"].shape == (3, 2)


@pytest.mark.xla
def test_a_compiled_step_of_sac_has_one_program():
    actor, q, (x, noise) = gaussian_actor(), critic(), numbers()

    @tf.function(jit_compile=True, autograph=False)
    def step(x, noise):
        lin = linearize(actor, x, output={"action": Action(noise), "l": ActionLogProb(noise)})
        arguments = {"observations": x, "actions": lin.outputs["action"]}
        slope = input_gradient(q, arguments, output=smaller, inputs="actions")
        same_slope = linearize(q, arguments, output=smaller).input_gradient(inputs="actions")
        return lin.gradient({"action": slope, "l": -ALPHA}), slope, same_slope

    found, slope, same_slope = step(tf.constant(x), tf.constant(noise))
    lin = linearize(actor, x, output={"action": Action(noise), "l": ActionLogProb(noise)})
    arguments = {"observations": x, "actions": lin.outputs["action"]}
    expected = input_gradient(q, arguments, output=smaller, inputs="actions")
    zoo.assert_close([slope, same_slope], [expected, expected])
    same({key: found[key] for key in lin.gradient()}, lin.gradient({"action": expected, "l": -ALPHA}))


def test_fisher_products_find_the_distribution_of_an_action():
    actor, (x, noise) = gaussian_actor(), numbers()
    v = linearize(actor, x, output=LogProb(noise)).gradient()
    expected = linearize(actor, x, output=LogProb(noise)).fisher_vector_product(v)
    for output in (ActionLogProb(noise), Action(noise), Action()):
        same(linearize(actor, x, output=output).fisher_vector_product(v), expected)
