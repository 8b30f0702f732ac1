"""A share of uniformly random actions: how often, which, with what probability, and never a forbidden one."""

import numpy as np
import pytest
import tensorflow as tf

from rlgrad import random
from rlgrad.distributions import (
    Bernoulli,
    Categorical,
    Deterministic,
    DiagonalGaussian,
    Exploring,
    Greedy,
    MultiCategorical,
)
from rlgrad.distributions.protocol import IMPOSSIBLE

ACTIONS = 4
POLICIES = {
    "greedy": Greedy(ACTIONS, start=2),
    "quantiles": Greedy(ACTIONS, width=3),
    "atoms": Greedy(ACTIONS, width=3, support=(-1.0, 1.0)),
    "categorical": Categorical(ACTIONS),
}
each = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
ALLOWED = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]], bool)
DRAWS = 4000


def parameters_of(policy, rows=ALLOWED):
    rng = np.random.default_rng(0)
    width = getattr(policy, "width", 0)
    values = rng.normal(size=(*rows.shape, width) if width else rows.shape).astype(np.float32)
    return np.where(rows[..., None] if width else rows, values, np.float32(IMPOSSIBLE))


def probabilities_of(policy, parameters, share):
    """(rows, actions): of the mixture, from the policy's own and the uniform one over what is allowed."""
    count = len(parameters)
    own = np.stack([np.exp(policy.numpy_log_prob(parameters, np.full(count, a))) for a in range(ACTIONS)], axis=1)
    return (1 - share) * own + share * ALLOWED / ALLOWED.sum(1, keepdims=True)


def drawn_by_numpy(mixed, parameters, count=DRAWS):
    noise = mixed.noise(parameters, np.random.default_rng(1), count)
    return np.stack([mixed.pick(parameters, noise[i]) for i in range(count)])


def drawn_by_tensorflow(mixed, parameters, count=DRAWS, jit=None):
    program = tf.function(mixed.draw, jit_compile=jit)
    seeds = random.split(tf.constant([3, 4]), count * len(parameters))
    repeated = np.tile(parameters, (count, *[1] * (parameters.ndim - 1)))
    return program(tf.constant(repeated), seeds).numpy().reshape(count, len(parameters))


@each
@pytest.mark.parametrize("drawn", [drawn_by_numpy, drawn_by_tensorflow])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_actions_are_as_frequent_as_the_mixture_says_and_none_is_forbidden(policy, drawn, share):
    parameters = parameters_of(policy)
    actions = drawn(Exploring(policy, share), parameters)
    frequencies = (actions[..., None] == np.arange(ACTIONS)).mean(0)
    expected = probabilities_of(policy, parameters, share)
    deviation = np.sqrt(expected * (1 - expected) / DRAWS)
    assert (np.abs(frequencies - expected) <= 4.5 * deviation + 1e-12).all(), (frequencies, expected)
    assert (frequencies[~ALLOWED] == 0).all()


@each
def test_without_random_actions_it_is_the_policy(policy):
    parameters = parameters_of(policy)
    mixed = Exploring(policy, 0.0)
    noise = mixed.noise(parameters, np.random.default_rng(1), 50)
    for i in range(50):
        np.testing.assert_array_equal(mixed.pick(parameters, noise[i]), policy.pick(parameters, noise[i].own))
    actions = policy.mode(parameters)[0]
    np.testing.assert_allclose(
        mixed.numpy_log_prob(parameters, actions), policy.numpy_log_prob(parameters, actions), atol=1e-6
    )


@each
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_log_probabilities_are_those_of_the_mixture_in_numpy_and_in_tensorflow(policy, share):
    parameters = parameters_of(policy)
    expected = probabilities_of(policy, parameters, share)
    mixed = Exploring(policy, share)
    for action in range(ACTIONS):
        actions = np.full(len(parameters), action)
        found = mixed.numpy_log_prob(parameters, actions)
        np.testing.assert_allclose(found, mixed.log_prob(parameters, actions), rtol=1e-5, atol=1e-5)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        possible = ALLOWED[:, action]
        np.testing.assert_allclose(np.exp(found[possible]), expected[possible, action], rtol=1e-5, atol=1e-30)


@each
def test_evaluation_and_environments_get_what_the_policy_gives(policy):
    parameters, mixed = parameters_of(policy), Exploring(policy, 0.9)
    for mine, theirs in zip(mixed.mode(parameters), policy.mode(parameters), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    actions = np.arange(3)
    np.testing.assert_array_equal(mixed.most_likely(parameters), policy.most_likely(parameters))
    np.testing.assert_array_equal(mixed.to_environment(actions), policy.to_environment(actions))
    np.testing.assert_array_equal(mixed.for_environment(tf.constant(actions)), policy.to_environment(actions))


def test_the_share_may_be_a_tensor_that_a_program_is_given():
    policy = POLICIES["greedy"]
    parameters = tf.constant(parameters_of(policy))
    seeds = random.split(tf.constant([3, 4]), len(ALLOWED))
    program = tf.function(lambda share: Exploring(policy, share).draw(parameters, seeds))
    for share in (0.0, 0.5, 1.0):
        expected = Exploring(policy, share).draw(parameters, seeds)
        np.testing.assert_array_equal(program(tf.constant(share, tf.float32)), expected)


@pytest.mark.xla
@each
def test_a_program_of_xla_draws_what_a_plain_graph_does(policy):
    mixed, parameters = Exploring(policy, 0.5), parameters_of(policy)
    plain, compiled = (drawn_by_tensorflow(mixed, parameters, 200, jit) for jit in (None, True))
    assert (plain == compiled).mean() > 0.995  # a logarithm of Gumbel noise may be rounded in another way


def test_samples_have_random_numbers_of_their_own():
    mixed, parameters = Exploring(POLICIES["greedy"], 1.0), parameters_of(POLICIES["greedy"])
    noise = mixed.noise(parameters, np.random.default_rng(1), 40)
    assert len({tuple(mixed.pick(parameters, noise[i])) for i in range(40)}) > 5
    again = mixed.noise(parameters, np.random.default_rng(1), 40)
    for i in range(40):
        np.testing.assert_array_equal(mixed.pick(parameters, noise[i]), mixed.pick(parameters, again[i]))


@pytest.mark.parametrize("policy", [Bernoulli(), MultiCategorical((2, 3), (2,))])
def test_actions_of_other_kinds_are_refused_with_what_to_set(policy):
    with pytest.raises(ValueError, match=r"in Discrete and Box spaces.*set replay\.warmup to 0"):
        Exploring(policy, 0.5)


LOW, HIGH = np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32)
CONTINUOUS = {
    "clipped": (DiagonalGaussian(LOW, HIGH), "environment"),
    "squashed": (DiagonalGaussian(LOW, HIGH, squash=True), "environment"),
    "of the network": (DiagonalGaussian(LOW, HIGH, squash=True, scale="network", unit="half-width"), "half-width"),
    "deterministic": (Deterministic(LOW, HIGH, deviation=0.3), "half-width"),
}
numbers_of = pytest.mark.parametrize(("policy", "unit"), CONTINUOUS.values(), ids=CONTINUOUS)


def continuous_parameters(policy):
    mean = np.array([[0.2, 0.4], [-0.5, 0.1]], np.float32)
    return mean if isinstance(policy, Deterministic) else {"mean": mean, "log_std": np.full((2, 2), -1.0, np.float32)}


def as_tensors(parameters):
    return tf.nest.map_structure(tf.constant, parameters)


@numbers_of
@pytest.mark.parametrize("compiled", [False, True])
def test_random_actions_are_uniform_between_the_bounds(policy, unit, compiled):
    parameters, mixed = continuous_parameters(policy), Exploring(policy, 1.0)
    if compiled:
        seeds = random.split(tf.constant([3, 4]), 2 * DRAWS)
        repeated = tf.nest.map_structure(lambda x: tf.tile(x, (DRAWS, 1)), as_tensors(parameters))
        stored = tf.function(mixed.draw, autograph=False)(repeated, seeds).numpy().reshape(DRAWS, 2, 2)
    else:
        stored = drawn_by_numpy(mixed, parameters)
    given = (policy.to_environment(stored) - LOW) / (HIGH - LOW)
    for share in np.linspace(0.1, 0.9, 9):  # of the interval: as many of the draws
        np.testing.assert_allclose((given < share).mean(axis=0), share, atol=0.04)


@numbers_of
def test_the_density_of_the_mixture_is_of_both_parts_in_the_unit_of_the_policy(policy, unit):
    parameters = continuous_parameters(policy)
    widths = HIGH - LOW if unit == "environment" else np.full(2, 2.0)
    inside = np.array([[0.3, 0.7], [-0.1, 0.2]], np.float32)
    own = np.exp(policy.numpy_log_prob(parameters, inside))
    for share in (0.0, 0.25, 1.0):
        mixed = Exploring(policy, share)
        expected = np.log((1 - share) * own + share / np.prod(widths))
        np.testing.assert_allclose(mixed.numpy_log_prob(parameters, inside), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mixed.log_prob(as_tensors(parameters), inside), expected, rtol=1e-4, atol=1e-5)


@numbers_of
def test_half_of_the_actions_are_random_and_the_mode_is_the_policys(policy, unit):
    parameters, mixed = continuous_parameters(policy), Exploring(policy, 0.5)
    quiet = Exploring(policy, 0.0)
    noise = mixed.noise(parameters, np.random.default_rng(0), DRAWS)
    same = [mixed.pick(parameters, noise[i]) == quiet.pick(parameters, noise[i]) for i in range(DRAWS)]
    whole = np.stack(same)
    assert (whole.all(-1) == whole.any(-1)).all()  # an action is random as a whole
    np.testing.assert_allclose(whole.mean(), 0.5, atol=0.04)
    np.testing.assert_array_equal(mixed.mode(parameters)[0], policy.mode(parameters)[0])


def test_random_actions_without_bounds_are_refused_with_what_to_set():
    with pytest.raises(ValueError, match=r"not finite: set exploration\.random and replay\.warmup to 0"):
        Exploring(DiagonalGaussian(), 0.5).require_bounds()
