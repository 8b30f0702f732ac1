"""What holds for the distribution over every action space: NumPy agrees with TensorFlow, and both with sums and integrals."""

import itertools
import math

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.slow import mostly_slow

from rlgrad import random
from rlgrad.distributions import DiagonalGaussian, Joint
from rlgrad.policies.actions import action_model

BOX = spaces.Box(-1.0, 2.0, (2,))
DISCRETE = {
    "discrete": spaces.Discrete(3, start=2),
    "multi_discrete": spaces.MultiDiscrete([2, 3, 4]),
    "multi_discrete_2d": spaces.MultiDiscrete([[2, 3], [1, 2]], start=[[0, 5], [1, 0]]),
    "multi_binary": spaces.MultiBinary(3),
    "multi_binary_2d": spaces.MultiBinary((2, 2)),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(2))),
    "nested": spaces.Dict(b=spaces.Discrete(2), a=spaces.Tuple((spaces.MultiDiscrete([2, 2]), spaces.Discrete(3)))),
}
CONTINUOUS = {
    "box": BOX,
    "unbounded": spaces.Box(-np.inf, np.inf, (3,)),
    "scalar": spaces.Box(0.0, 1.0, ()),
    "matrix": spaces.Box(-1.0, 1.0, (2, 2), np.float64),
    "integers": spaces.Box(0, 9, (2,), np.int32),
}
MIXED = {
    "mixed_tuple": spaces.Tuple((spaces.Discrete(3), BOX)),
    "mixed_dict": spaces.Dict(
        x=spaces.Box(-1, 1, (2, 1)), n=spaces.Dict(y=spaces.Box(0, 1, ()), z=spaces.MultiBinary(2))
    ),
}
ALL = {**DISCRETE, **CONTINUOUS, **MIXED}
each = pytest.mark.parametrize("space", ALL.values(), ids=ALL)


def parameters_of(model, rows, seed, dtype=np.float32):
    """Random parameters as a policy assembles them, one row of log σ for each."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(rows, *model.raw_shape)).astype(dtype)
    shape = model.distribution.log_std_shape(model.raw_shape)
    return model.distribution.assemble(
        raw, None if shape is None else rng.normal(-0.5, 0.3, (rows, *shape)).astype(dtype)
    )


def all_actions(model, space):
    """Every action of a discrete space, as it is stored."""
    if isinstance(model.distribution, Joint):
        parts = [all_leaf_actions(part) for part in model.distribution.parts]
        return np.array(
            [np.concatenate([np.ravel(a) for a in combined]) for combined in itertools.product(*parts)], np.float32
        )
    return np.array(all_leaf_actions(space))


def all_leaf_actions(leaf):
    space = leaf if isinstance(leaf, spaces.Space) else None
    if space is None:  # a Part: count what its distribution has
        counts = getattr(leaf.distribution, "counts", None)
        if counts is None:
            counts = (
                [leaf.distribution.num_actions]
                if hasattr(leaf.distribution, "num_actions")
                else [2] * math.prod(leaf.shape)
            )
        return [np.reshape(c, leaf.shape) for c in itertools.product(*map(range, counts))]
    if isinstance(space, spaces.Discrete):
        return list(range(int(space.n)))
    counts = space.nvec.ravel() if isinstance(space, spaces.MultiDiscrete) else [2] * math.prod(space.shape)
    return [np.reshape(c, space.shape) for c in itertools.product(*map(range, counts))]


@each
def test_the_environment_gets_an_action_of_its_space(space):
    model = action_model(space)
    for draw in (lambda p: model.distribution.sample(p, np.random.default_rng(1)), model.distribution.mode):
        actions, log_probs = draw(parameters_of(model, 5, 0))
        assert log_probs.shape == (5,)
        assert actions.shape == (5, *model.spec.shape[1:])
        batch = model.distribution.to_environment(actions)
        for one in gymnasium.vector.utils.iterate(gymnasium.vector.utils.batch_space(space, 5), batch):
            assert space.contains(one), one


@each
@pytest.mark.parametrize("how", ["sample", "mode"])
def test_log_probs_are_the_same_in_numpy_and_tensorflow(space, how):
    model = action_model(space)
    parameters = parameters_of(model, 40, 2)
    draw = model.distribution
    actions, log_probs = draw.mode(parameters) if how == "mode" else draw.sample(parameters, np.random.default_rng(3))
    checked = draw.check_actions(actions.astype(model.spec.dtype.as_numpy_dtype))
    np.testing.assert_allclose(draw.log_prob(parameters, checked), log_probs, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("space", DISCRETE.values(), ids=DISCRETE)
def test_entropy_and_divergence_are_sums_over_all_actions(space):
    model = action_model(space)
    p, q = (parameters_of(model, 1, seed, np.float64) for seed in (0, 1))
    actions = all_actions(model, space)
    repeated = [tf.nest.map_structure(lambda x: np.repeat(x, len(actions), axis=0), x) for x in (p, q)]
    log_p, log_q = (model.distribution.log_prob(x, actions).numpy() for x in repeated)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1.0, rtol=1e-10)
    np.testing.assert_allclose(model.distribution.entropy(p), [-(np.exp(log_p) * log_p).sum()], rtol=1e-10)
    np.testing.assert_allclose(
        model.distribution.kl_divergence(p, q), [(np.exp(log_p) * (log_p - log_q)).sum()], rtol=1e-9
    )


@each
def test_the_fisher_matrix_is_the_curvature_of_the_divergence(space):
    model = action_model(space)
    p = tf.nest.map_structure(tf.constant, parameters_of(model, 1, 4, np.float64))
    leaves = tf.nest.flatten(p)
    tangent = [tf.constant(np.random.default_rng(5).normal(size=leaf.shape)) for leaf in leaves]
    with tf.GradientTape() as outer:
        outer.watch(leaves)
        with tf.GradientTape() as inner:
            inner.watch(leaves)
            kl = model.distribution.kl_divergence(
                tf.nest.map_structure(tf.stop_gradient, p), tf.nest.pack_sequence_as(p, leaves)
            )
        slope = sum(tf.reduce_sum(g * v) for g, v in zip(inner.gradient(kl, leaves), tangent, strict=True))
    curvature = outer.gradient(slope, leaves, unconnected_gradients="zero")
    product = tf.nest.flatten(model.distribution.fisher_product(p, tf.nest.pack_sequence_as(p, tangent)))
    for a, b in zip(product, curvature, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


@each
def test_a_sample_has_the_log_probability_that_its_frequency_says(space):
    """E[log π(a)] over samples is −H."""
    model = action_model(space)
    p = parameters_of(model, 1, 6)
    many = tf.nest.map_structure(lambda x: np.repeat(x, 40_000, axis=0), p)
    _, log_probs = model.distribution.sample(many, np.random.default_rng(7))
    error = 4 * log_probs.std() / math.sqrt(len(log_probs))
    np.testing.assert_allclose(-log_probs.mean(), model.distribution.entropy(p)[0], atol=error + 1e-4)


def test_a_joint_action_is_the_sum_of_its_parts():
    model = action_model(MIXED["mixed_tuple"])
    p = parameters_of(model, 6, 8)
    first, second = action_model(spaces.Discrete(3)).distribution, action_model(BOX).distribution
    own = p["heads"][:, :3], {"mean": p["heads"][:, 3:], "log_std": p["log_std"]}
    actions = np.random.default_rng(9).normal(size=(6, 3)).astype(np.float32)
    actions[:, 0] = [0, 1, 2, 0, 1, 2]
    total = first.log_prob(own[0], actions[:, 0].astype(int)) + second.log_prob(own[1], actions[:, 1:])
    np.testing.assert_allclose(model.distribution.log_prob(p, actions), total, rtol=1e-5)
    np.testing.assert_allclose(model.distribution.entropy(p), first.entropy(own[0]) + second.entropy(own[1]), rtol=1e-5)


def squashed(**options):
    return DiagonalGaussian(low=np.float64(-1.0), high=np.float64(3.0), squash=True, **options)


ONE = {"mean": np.array([[0.4]]), "log_std": np.array([[-0.3]])}


def test_a_squashed_density_integrates_to_one_over_the_bounds():
    u = np.linspace(-12.0, 12.0, 200_001)[:, None]
    a = squashed(dtype=np.float64).to_environment(u)[:, 0]
    many = tf.nest.map_structure(lambda x: np.repeat(x, len(u), axis=0), ONE)
    density = np.exp(squashed().log_prob(many, u).numpy())  # π(a) of the action, at stored u
    assert a.min() >= -1.0
    assert a.max() <= 3.0
    np.testing.assert_allclose(np.trapezoid(density, a), 1.0, rtol=1e-6)
    # H = −∫ π(a) log π(a) da
    inside = density > 0
    entropy = -np.trapezoid((density * np.log(np.where(inside, density, 1.0))), a)
    np.testing.assert_allclose(squashed().entropy(ONE), [entropy], rtol=1e-5)


def test_a_squashed_entropy_falls_as_the_policy_presses_against_a_bound_and_an_unsquashed_one_does_not():
    pressed = {"mean": np.array([[4.0]]), "log_std": np.array([[-0.3]])}
    assert squashed().entropy(pressed)[0] < squashed().entropy(ONE)[0] - 1.0
    plain = squashed(entropy_of="unsquashed")
    np.testing.assert_allclose(plain.entropy(pressed), plain.entropy(ONE))


def test_squashing_does_not_change_a_divergence():
    other = {"mean": np.array([[-0.2]]), "log_std": np.array([[0.1]])}
    np.testing.assert_allclose(squashed().kl_divergence(ONE, other), DiagonalGaussian().kl_divergence(ONE, other))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Text(3), "map each text to a number"),
        (spaces.Sequence(spaces.Discrete(2)), "fixed length"),
        (spaces.OneOf((spaces.Discrete(2), BOX)), "a Tuple of a choice and its parts"),
        (spaces.Tuple((spaces.Discrete(2), spaces.Text(3))), "map each text"),
    ],
)
def test_a_space_without_fixed_shape_is_refused_with_what_to_wrap_it_in(space, message):
    with pytest.raises(ValueError, match=message):
        action_model(space)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(1, start=3),
        spaces.MultiDiscrete([[1], [1]]),
        spaces.Box(-1.0, 1.0, (2, 0)),
        spaces.Tuple((spaces.Discrete(1), spaces.Dict(a=spaces.Discrete(1)))),
    ],
)
def test_a_space_of_one_action_is_refused_and_may_be_part_of_another(space):
    with pytest.raises(ValueError, match="nothing to choose"):
        action_model(space)
    if 0 not in (space.shape or ()):
        action_model(spaces.Tuple((space, spaces.Discrete(2))))


def test_squashing_needs_bounds():
    with pytest.raises(ValueError, match="finite bounds"):
        action_model(CONTINUOUS["unbounded"], squash=True)
    with pytest.raises(ValueError, match="there are none"):
        action_model(spaces.Discrete(2), squash=True)


@mostly_slow("space", ALL, quick=["integers", "multi_discrete", "mixed_dict", "matrix"])
def test_actions_of_compiled_programs_are_those_of_numpy(space):
    model = action_model(space)
    parameters = parameters_of(model, 50, seed=4)

    @tf.function(jit_compile=True)
    def compiled(parameters):
        chosen = model.distribution.most_likely(parameters)
        return chosen, model.distribution.for_environment(chosen)

    chosen, acted = compiled(tf.nest.map_structure(tf.constant, parameters))
    expected, _ = model.distribution.mode(parameters)
    np.testing.assert_array_equal(chosen, expected)
    assert chosen.dtype == model.spec.dtype
    tf.nest.map_structure(
        lambda a, b: (np.testing.assert_allclose(a, b, rtol=1e-6), np.testing.assert_equal(a.dtype.name, b.dtype.name)),
        acted,
        model.distribution.to_environment(expected),
    )


@mostly_slow("space", ALL, quick=["discrete", "box", "multi_binary", "nested"])
def test_compiled_programs_and_numpy_draw_from_the_same_distribution(space):
    model, many = action_model(space), 40_000
    parameters = tf.nest.map_structure(lambda x: np.repeat(x, many, axis=0), parameters_of(model, 1, seed=5))
    seeds = random.split(tf.constant([1, 2]), many)
    drawn = tf.function(model.distribution.draw, jit_compile=True)(parameters, seeds).numpy().reshape(many, -1)
    other = model.distribution.sample(parameters, np.random.default_rng(0))[0].reshape(many, -1)
    for power in (1, 2):
        a, b = drawn.astype(np.float64) ** power, other.astype(np.float64) ** power
        tolerance = 5 * np.sqrt((a.var(axis=0) + b.var(axis=0)) / many) + 1e-12
        assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < tolerance).all()
    if drawn.shape[1] > 1:  # parts are independent
        with np.errstate(invalid="ignore"):  # a choice among one action does not vary
            correlation = np.corrcoef(drawn.T) - np.eye(drawn.shape[1])
        assert np.abs(correlation[np.isfinite(correlation)]).max() < 5 / np.sqrt(many)
