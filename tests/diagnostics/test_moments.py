"""Norms, means and squares of per-sample gradients against gradients that are written out."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.slow import mostly_slow, parameters

import rlgrad
from rlgrad import diagnostics as d
from rlgrad import gradients
from rlgrad.gradients import LogProb

N, RNG = 24, np.random.default_rng(0)
X = RNG.normal(size=(N, 3)).astype(np.float32)
CREDIT = RNG.normal(size=N).astype(np.float32)
SEGMENTS = RNG.integers(4, size=N)
MASK = np.arange(N) % 5 != 2


def shared_trunk():
    x = keras.Input((3,))
    h = keras.layers.Dense(6, "tanh", name="trunk")(x)
    return keras.Model(x, {"policy": keras.layers.Dense(3)(h), "value": keras.layers.Dense(1)(h)})


def convolution():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Reshape((3, 1)),
            keras.layers.Conv1D(4, 2, activation="tanh"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


@pytest.fixture(scope="module", params=parameters(["gaussian", "convolution", "mlp", "shared"], quick=2))
def case(request):
    """A policy with random weights, and actions for it."""
    box = spaces.Box(-1, 1, (3,))
    actions = spaces.Box(-1, 1, (2,)) if request.param == "gaussian" else spaces.Discrete(3)
    model = {"shared": shared_trunk, "convolution": convolution}.get(request.param)
    policy = rlgrad.make_policy(box, actions, model=model, hidden_sizes=(5, 4), seed=1)
    rng = np.random.default_rng(1)
    for v in policy.trainable_variables:
        v.assign(rng.normal(size=v.shape) * 0.5)
    taken = rng.normal(size=(N, 2)).astype(np.float32) if request.param == "gaussian" else rng.integers(3, size=N)
    return policy, taken


def written_out(policy, taken, credit, segments=None, mask=None):
    """g_n by layer and by path, float64; rows that do not count are left out, those of a segment added."""
    keep = np.ones(N, bool) if mask is None else mask
    g = gradients.per_sample_gradient(policy, X, output=LogProb(taken))
    weight = np.broadcast_to(credit, N).astype(np.float64)
    g = {k: np.einsum("n,n...->n...", weight, v.numpy().astype(np.float64))[keep] for k, v in g.items()}
    if segments is not None:
        ids = segments[keep]
        g = {k: np.stack([v[ids == s].sum(0) for s in range(4)]) for k, v in g.items()}
    return g


SAMPLES = {
    "steps": (None, None),
    "masked steps": (None, MASK),
    "segments": (SEGMENTS, None),
    "masked segments": (SEGMENTS, MASK),
}
compiled_or_not = mostly_slow(
    "segments, mask, compiled",
    {f"{name}-{on}": (*samples, on) for name, samples in SAMPLES.items() for on in (False, True)},
    quick=["masked steps-True", "masked segments-False"],
)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def flat(g):
    return np.concatenate([v.reshape(len(v), -1) for v in g.values()], axis=1)


@compiled_or_not
def test_moments_are_those_of_the_gradients_written_out(case, segments, mask, compiled):
    policy, taken = case

    def ask(x, taken, credit):
        options = {"mask": mask, "segments": segments, "num_segments": 4}
        return d.Samples(policy, x, output=LogProb(taken), **options).moments(credit)

    found = (tf.function(ask, autograph=False) if compiled else ask)(X, tf.constant(taken), tf.constant(CREDIT))
    g = written_out(policy, taken, CREDIT, segments, mask)
    assert list(found.mean) == list(g)
    for key, mean in found.mean.items():
        np.testing.assert_allclose(mean, g[key].mean(0), **CLOSE)
    layers = gradients.by_layer(g)
    assert list(found.squared_norms) == list(layers)
    for layer, of in layers.items():
        np.testing.assert_allclose(found.squared_norms[layer], (flat(of) ** 2).sum(1), **CLOSE)
    np.testing.assert_allclose(found.total, (flat(g) ** 2).sum(1), **CLOSE)


@mostly_slow("segments, mask", SAMPLES, quick=["steps", "masked segments"])
def test_noise_scale_and_cosines_are_those_of_the_gradients_written_out(case, segments, mask):
    policy, taken = case
    samples = d.Samples(policy, X, output=LogProb(taken), mask=mask, segments=segments, num_segments=4)
    found = samples.moments(CREDIT)
    inner = np.asarray(samples.inner_products(found.mean, CREDIT), np.float64)
    g = flat(written_out(policy, taken, CREDIT, segments, mask))
    mean = g.mean(0)
    if mask is not None:
        assert (inner[~mask] == 0).all()
        inner = inner[mask]
    if segments is not None:
        inner = np.bincount(segments if mask is None else segments[mask], weights=inner, minlength=4)
    np.testing.assert_allclose(inner, g @ mean, **CLOSE)
    squared = d.squared_norm(found.mean)
    assert d.variance(found.total, squared) == pytest.approx(np.trace(np.cov(g.T)), rel=1e-5)
    cosines = g @ mean / np.linalg.norm(g, axis=1) / np.linalg.norm(mean)
    np.testing.assert_allclose(d.cosines(found.total, inner, squared), cosines, **CLOSE)


@compiled_or_not
def test_score_moments_and_their_baselines_are_those_of_the_scores_written_out(case, segments, mask, compiled):
    policy, taken = case

    def ask(x, taken, credit):
        options = {"mask": mask, "segments": segments, "num_segments": 4}
        return d.Samples(policy, x, output=LogProb(taken), **options).score_moments(credit)

    found = (tf.function(ask, autograph=False) if compiled else ask)(X, tf.constant(taken), tf.constant(CREDIT))
    s, h = (written_out(policy, taken, c, segments, mask) for c in (1.0, CREDIT))
    assert int(found.count) == len(flat(s))
    for key in s:
        np.testing.assert_allclose(found.squares[key], (s[key] ** 2).sum(0), **CLOSE)
        np.testing.assert_allclose(found.products[key], (s[key] * h[key]).sum(0), **CLOSE)
        np.testing.assert_allclose(found.squared_returns[key], (h[key] ** 2).sum(0), **CLOSE)
    s, h = flat(s), flat(h)
    b = d.optimal_baseline(found)
    assert b == pytest.approx((s * h).sum() / (s * s).sum(), rel=1e-4)
    for baseline in (0.0, b, 7.0):
        expected = np.trace(np.cov((h - baseline * s).T))
        assert d.variance_with(found, baseline) == pytest.approx(expected, rel=1e-4)
    by_weight = (s * h).sum(0) / (s * s).sum(0)
    expected = np.trace(np.cov((h - by_weight * s).T))
    assert d.variance_with(found, d.componentwise_baseline(found)) == pytest.approx(expected, rel=1e-4)


def test_the_optimal_baseline_of_steps_needs_only_norms(case):
    policy, taken = case
    squared = np.asarray(gradients.per_sample_norm(policy, X, output=LogProb(taken), squared=True))
    found = d.optimal_baseline(d.Samples(policy, X, output=LogProb(taken)).score_moments(CREDIT))
    assert found == pytest.approx((squared * CREDIT).sum() / squared.sum(), rel=1e-4)


def test_one_step_and_one_segment_of_all_steps(case):
    policy, taken = case
    one = d.Samples(policy, X[:1], output=LogProb(taken[:1])).moments(2.0)
    assert d.squared_norm(one.mean) == pytest.approx(float(one.total[0]), rel=1e-5)
    whole = d.Samples(policy, X, output=LogProb(taken), segments=np.zeros(N, int)).moments()
    assert d.squared_norm(whole.mean) == pytest.approx(float(whole.total[0]), rel=1e-5)


def test_an_empty_segment_is_a_sample_with_gradient_zero(case):
    policy, taken = case
    segments = np.where(SEGMENTS == 2, 3, SEGMENTS)
    found = d.Samples(policy, X, output=LogProb(taken), segments=segments, num_segments=4).moments()
    assert float(found.total[2]) == 0.0


def test_what_masked_rows_hold_does_not_matter(case):
    policy, taken = case
    spoiled = np.where(MASK[:, None], X, 100.0).astype(np.float32)
    for segments in (None, SEGMENTS):
        a, b = (
            d.Samples(policy, x, output=LogProb(taken), mask=MASK, segments=segments).moments(CREDIT)
            for x in (X, spoiled)
        )
        np.testing.assert_allclose(a.total, b.total, rtol=1e-6)


@pytest.mark.parametrize("argument", ["mask", "segments"])
def test_arrays_of_another_length_are_refused(case, argument):
    policy, taken = case
    with pytest.raises(ValueError, match=f"{argument} has one number a row"):
        d.Samples(policy, X, output=LogProb(taken), **{argument: np.ones(N - 1, int)})
    with pytest.raises(ValueError, match="sample_weight has one number a row"):
        d.Samples(policy, X, output=LogProb(taken)).moments(CREDIT[1:])


def test_no_tensor_is_as_large_as_the_gradients_of_all_samples():
    """The largest kernel is 40 × 50; written out for 300 samples it would take 600,000 numbers."""
    box = spaces.Box(-1, 1, (3,))
    policy = rlgrad.make_policy(box, spaces.Discrete(3), hidden_sizes=(40, 50), value=False)
    rows = 300

    def ask(x, taken, credit):
        samples = d.Samples(policy, x, output=LogProb(taken))
        found = samples.moments(credit)
        return found, samples.score_moments(credit), samples.inner_products(found.mean, credit)

    specs = [tf.TensorSpec((rows, 3)), tf.TensorSpec((rows,), tf.int64), tf.TensorSpec((rows,))]
    graph = tf.function(ask, autograph=False).get_concrete_function(*specs).graph
    sizes = [t.shape.num_elements() or 0 for op in graph.get_operations() for t in op.outputs if t.shape.rank]
    assert max(sizes) <= rows * 50
