"""Memory limits, chunks, segments and wrong arguments of the per-sample functions; linearizations at other weights."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo
from helpers.slow import mostly_slow

from rlgrad.gradients import (
    LogProb,
    flatten,
    gradient,
    gram,
    linearize,
    per_sample_gradient,
    per_sample_norm,
    plan,
    unflatten,
)

ACTIONS = np.array([2, 0, 1, 1])


@pytest.fixture
def case():
    return zoo.make("functional"), zoo.inputs_for("functional")


def test_a_request_that_does_not_fit_says_its_size_and_what_to_ask_instead(case):
    model, x = case
    count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    with pytest.raises(
        MemoryError, match=rf"4 samples would take {4 * 4 * count / 1e6:.3g} MB.*per_sample_norm\(\) and gram"
    ):
        per_sample_gradient(model, x, memory_limit=4 * 4 * count - 1)
    assert per_sample_gradient(model, x, memory_limit=4 * 4 * count)
    with pytest.raises(MemoryError, match=r"Give chunk_size=\d+"):
        per_sample_norm(model, x, memory_limit=100)
    with pytest.raises(MemoryError, match="4 by 4 samples"):
        gram(model, x, memory_limit=60)
    rows = np.zeros((200_000, 4), np.float32)
    with pytest.raises(MemoryError, match="160 GB"):
        gram(model, rows)
    assert per_sample_norm(model, x, memory_limit=500, chunk_size=1).shape == (4,)


def test_chunks_are_traced_once_and_work_in_the_callers_function(case):
    model, x = case
    whole = per_sample_norm(model, x, output=LogProb(ACTIONS))
    run = tf.function(lambda x: per_sample_norm(model, x, output=LogProb(ACTIONS), chunk_size=3), autograph=False)
    np.testing.assert_allclose(run(tf.constant(x)), whole, rtol=1e-5)
    unknown = tf.function(lambda x: per_sample_norm(model, x, chunk_size=3), autograph=False)
    with pytest.raises(ValueError, match="static shape"):
        unknown.get_concrete_function(tf.TensorSpec((None, 4)))


def test_one_batch_against_another(case):
    model, x = case
    other = zoo.inputs_for("functional", rows=3, seed=9)
    every = np.concatenate([x, other])
    actions = np.array([2, 0, 1, 1, 0, 2, 1])
    kernel = gram(model, every, output=LogProb(actions))
    options = {"output": LogProb(actions[:4]), "output_y": LogProb(actions[4:])}
    for size in (None, 2):
        np.testing.assert_allclose(
            gram(model, x, other, chunk_size=size, **options), kernel[:4, 4:], rtol=1e-4, atol=1e-5
        )
    run = tf.function(lambda x, y: gram(model, x, y, **options), autograph=False, jit_compile=True)
    np.testing.assert_allclose(run(x, other), kernel[:4, 4:], rtol=1e-4, atol=1e-5)
    assert gram(model, x, other[:0], output=1).shape == (4, 0)
    with pytest.raises(ValueError, match="same kind of output"):
        gram(model, x, other, output=LogProb(actions[:4]), output_y=1)
    with pytest.raises(ValueError, match="y is missing"):
        gram(model, x, output_y=1)
    with pytest.raises(ValueError, match="takes neither"):
        gram(model, x, other, sample_weight=np.ones(4))


def test_segments_have_one_row_each_also_empty_ones_and_in_a_compiled_function(case):
    model, x = case
    ids = np.array([1, 0, 1, 3])
    rows = flatten(per_sample_gradient(model, x), batch_axes=1).numpy()
    expected = np.stack([rows[1], rows[0] + rows[2], 0 * rows[0], rows[3]])
    np.testing.assert_allclose(flatten(per_sample_gradient(model, x, segments=ids), batch_axes=1), expected, atol=1e-5)
    more = per_sample_norm(model, x, segments=ids, num_segments=6)
    np.testing.assert_allclose(more, [*np.linalg.norm(expected, axis=1), 0.0, 0.0], rtol=1e-4, atol=1e-5)
    run = tf.function(
        lambda x, ids: per_sample_norm(model, x, segments=ids, num_segments=4), autograph=False, jit_compile=True
    )
    np.testing.assert_allclose(run(x, ids), np.linalg.norm(expected, axis=1), rtol=1e-4, atol=1e-5)
    for wrong, message in (([0, 1], "one number for each row"), ([0, 1, 2, -1], "counts from 0")):
        with pytest.raises(ValueError, match=message):
            per_sample_norm(model, x, segments=wrong)
    with pytest.raises(ValueError, match="from 0 to 1, got numbers from 0 to 3"):
        per_sample_norm(model, x, segments=[0, 1, 2, 3], num_segments=2)
    with pytest.raises(TypeError, match="float64"):
        per_sample_norm(model, x, segments=np.ones(4))
    with pytest.raises(ValueError, match="segments= is missing"):
        per_sample_norm(model, x, num_segments=2)


@mostly_slow("mode, sizes", [("eager", (1, 2, 5)), ("graph", (5,)), ("xla", (5,))])
def test_chunks_hold_whole_segments_and_change_nothing(mode, sizes):
    model, x = zoo.make("functional"), zoo.inputs_for("functional", rows=8)
    ids, c, actions = np.array([4, 0, 4, 1, 1, 1, 4, 5]), np.linspace(-1, 1, 8), np.arange(8) % 3
    options = {"output": LogProb(actions), "sample_weight": c, "segments": ids, "num_segments": 7}

    def every(x, size):
        each = per_sample_gradient(model, x, chunk_size=size, **options)
        of_layers = per_sample_norm(model, x, chunk_size=size, per="layer", **options)
        return [gram(model, x, chunk_size=size, **options), *of_layers.values(), *each.values()]

    expected = every(x, None)
    run = every if mode == "eager" else tf.function(every, autograph=False, jit_compile=mode == "xla")
    for size in sizes:
        zoo.assert_close(run(tf.constant(x), size), expected)


def test_a_chunk_is_as_large_as_the_largest_segment_where_that_is_larger(case):
    from rlgrad.gradients.closed_forms.segments import pack_segments, prepare_segments

    packing = pack_segments(prepare_segments(np.array([3, 0, 3, 1, 3, 5, 5]), None, 7), 2)
    assert [rows.tolist() for rows, _ in packing.chunks] == [[1, 3], [0, 2, 4], [5, 6]]
    assert [numbers.tolist() for _, numbers in packing.chunks] == [[0, 1], [0, 0, 0], [0, 0]]
    assert (packing.present.tolist(), packing.count, packing.largest) == ([0, 1, 3, 5], 6, 3)
    model, x = case
    symbolic = tf.function(lambda ids: per_sample_norm(model, x, segments=ids, chunk_size=2), autograph=False)
    with pytest.raises(ValueError, match="must be known when tracing"):
        symbolic(tf.constant([0, 1, 1, 0]))
    count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    with pytest.raises(MemoryError, match="5 segments and rows of a chunk"):
        per_sample_gradient(model, x, segments=[0, 1, 1, 2], chunk_size=2, memory_limit=4 * 5 * count - 1)


@mostly_slow("name", ["convolution", "embedding", "subclassed", "layer_norm"], quick=2)
def test_no_samples_have_no_norms_and_an_empty_gram_matrix(name):
    model, x = zoo.make(name), zoo.inputs_for(name, 0)
    assert per_sample_norm(model, x).shape == (0,)
    assert gram(model, x).shape == (0, 0)
    norms = per_sample_norm(model, x, per="layer")
    assert {layer: tuple(n.shape) for layer, n in norms.items()} == dict.fromkeys(norms, (0,))
    lin = linearize(model, x)
    assert lin.norm().shape == (0,)
    zoo.assert_close(lin.vjp().values(), [np.zeros(v.shape) for v in model.trainable_variables])


def test_wrong_arguments_are_named(case):
    model, x = case
    for size in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="positive number of rows"):
            per_sample_norm(model, x, chunk_size=size)
    with pytest.raises(ValueError, match="'model', 'layer', 'variable'"):
        per_sample_norm(model, x, per="weight")
    lin = linearize(model, x, output=1)
    with pytest.raises(ValueError, match="exactly the keys"):
        lin.jvp({"first/kernel": np.ones((4, 6))})
    wrong = {v.path: np.ones((1, *v.shape)) for v in model.trainable_variables}
    for product in (lin.jvp, lin.fisher_vector_product):
        with pytest.raises(ValueError, match=r"'first/kernel' must have shape \(4, 6\)"):
            product(wrong)
    with pytest.raises(ValueError, match=r"one number per row, shape \(4,\)"):
        lin.sum_of_squares(np.ones(3))
    with pytest.raises(ValueError, match=r"no variable 'first/kernl'. Did you mean 'first/kernel'"):
        lin.at({"first/kernl": np.ones((4, 6))})
    with pytest.raises(ValueError, match=r"has shape \(4, 6\), got \(6, 4\)"):
        lin.at({"first/kernel": np.ones((6, 4))})


def test_a_linearization_at_other_weights_is_that_of_a_model_that_has_them(case):
    model, x = case
    before = model.get_weights()
    moved = {v.path: 0.5 * np.asarray(v) for v in model.trainable_variables if "out" not in v.path}

    def look(lin):
        like = lin.gradient()
        quantities = [lin.outputs, lin.norm(), lin.gram(), *like.values(), *lin.vjp().values(), lin.jvp(like)]
        return [np.asarray(q) for q in [*quantities, *lin.fisher_vector_product(like).values()]]

    ask = lambda: linearize(model, x, output=LogProb(ACTIONS))
    here = ask()
    elsewhere = look(here.at(moved))
    traced = tf.function(lambda: ask().at(moved).gram(), autograph=False, jit_compile=True)()
    for v, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(v, old)
    for v in model.trainable_variables:
        v.assign(moved.get(v.path, v))
    zoo.assert_close(elsewhere, look(ask()))
    zoo.assert_close([traced], [elsewhere[2]])
    with pytest.raises(ValueError, match="weights have changed since linearize"):
        here.norm()


def test_one_backward_pass_serves_everything_that_is_asked(case, monkeypatch):
    model, x = case
    lin = linearize(model, x, output=LogProb(ACTIONS))
    kernel = lin.gram()
    monkeypatch.setattr(type(model), "__call__", lambda *args, **kwargs: pytest.fail("the model ran again"))
    np.testing.assert_allclose(lin.norm() ** 2, np.diag(kernel), rtol=1e-5)
    like = {v.path: np.asarray(v) for v in model.trainable_variables}
    lin.jvp(like), lin.vjp(), lin.sum_of_squares(), lin.per_sample()


@mostly_slow("jit", [True, False])
def test_conjugate_gradients_run_inside_one_compiled_loop(case, jit):
    """Solves (F + JᵀJ + λI) s = g with everything asked for the first time in the loop's body."""
    model, x = case

    def solve(x):
        lin = linearize(model, x, output=LogProb(ACTIONS))
        like = lin.gradient()
        b = flatten(like)

        def product(v):
            tree = unflatten(v, like)
            exact, empirical = lin.fisher_vector_product(tree, damping=0.1), lin.vjp(lin.jvp(tree))
            return flatten(exact) + flatten(empirical)

        def step(i, s, r, p):
            moved = product(p)
            alpha = tf.reduce_sum(r * r) / tf.reduce_sum(p * moved)
            rest = r - alpha * moved
            return i + 1, s + alpha * p, rest, rest + tf.reduce_sum(rest * rest) / tf.reduce_sum(r * r) * p

        _, s, _, _ = tf.while_loop(lambda i, *_: i < 12, step, (0, tf.zeros_like(b), b, b), maximum_iterations=12)
        return b, product(s), lin.norm()

    b, back, norms = tf.function(solve, autograph=False, jit_compile=jit)(tf.constant(x))
    np.testing.assert_allclose(back, b, atol=1e-4 * np.abs(b).max())
    np.testing.assert_allclose(norms, per_sample_norm(model, x, output=LogProb(ACTIONS)), rtol=1e-4)


def test_named_outputs_are_asked_by_name():
    model = zoo.randomized(zoo.two_heads())
    x = zoo.inputs_for("functional", rows=3)
    lin = linearize(model, x, output={"a": LogProb([0, 2, 1]), "v": "value"})
    for name, output in (("a", LogProb([0, 2, 1])), ("v", "value")):
        zoo.assert_close([lin.norm()[name]], [per_sample_norm(model, x, output=output)])
        zoo.assert_close([lin.gram()[name]], [gram(model, x, output=output)])
        zoo.assert_close(lin.vjp({name: 2.0}).values(), [2 * g for g in gradient(model, x, output=output).values()])
    both = lin.vjp({"a": 1.0, "v": np.array([1.0, -1.0, 2.0])})
    zoo.assert_close(both.values(), lin.gradient({"a": 1.0, "v": np.array([1.0, -1.0, 2.0])}).values())
    assert list(lin.sum_of_squares({"v": 1.0})) == ["v"]


def test_a_plan_prints_a_line_per_layer_and_its_bytes():
    found = plan(zoo.make("convolution"), zoo.inputs_for("convolution"))
    conv, out = found.rows
    assert (conv.layer, conv.route, conv.positions, out.positions) == ("conv", "closed form", 9, 1)
    assert conv.gradient_bytes == 4 * (3 * 3 * 2 * 3 + 3)
    assert conv.factor_bytes == 4 * (9 * 18 + 9 * 3 + 3)
    assert "conv   closed form  9" in str(found)
    assert "bytes for 4 samples" in str(found)
    (looped, _) = plan(zoo.make("recurrent"), zoo.inputs_for("recurrent")).rows
    assert (looped.route, looped.reason) == (
        "looped",
        "it runs inside a loop, a branch or another compiled function (a recurrent layer: give it unroll=True)",
    )
