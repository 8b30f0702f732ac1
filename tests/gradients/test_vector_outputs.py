"""Vector outputs with every function, against plain tapes: one backward pass for each sample and each unit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import zoo
from helpers.slow import mostly_slow

from rlgrad import gradients
from rlgrad.gradients import Chosen, Each, LogProb, Output, PerSequence
from rlgrad.gradients.programs import program

layers = keras.layers
ROWS = 3


def dense():
    return zoo.sequential()


def quantiles():
    x = keras.Input((4,))
    h = layers.Dense(5, "tanh", name="body")(x)
    return keras.Model(x, {"z": layers.Reshape((3, 2))(layers.Dense(6, name="out")(h)), "v": layers.Dense(1)(h)})


def memory():
    return keras.Sequential([keras.Input((3, 2)), layers.GRU(3, return_sequences=True), layers.Dense(2)])


def picture_and_action():
    picture, action = keras.Input((4, 4, 1), dtype="uint8", name="picture"), keras.Input((2,), name="action")
    seen = layers.Flatten()(layers.Conv2D(2, 2, activation="tanh")(layers.Rescaling(1 / 255)(picture)))
    return keras.Model({"picture": picture, "action": action}, layers.Dense(3)(layers.Concatenate()([seen, action])))


def critics():
    observations, actions = keras.Input((4,), name="observations"), keras.Input((2,), name="actions")
    both = layers.Concatenate()([observations, actions])
    each = [layers.Dense(1)(layers.Dense(4, "tanh")(both)) for _ in range(2)]
    return keras.Model({"observations": observations, "actions": actions}, layers.Concatenate()(each))


MODELS = {
    "dense": dense,
    "quantiles": quantiles,
    "conv": zoo.convolution,
    "memory": memory,
    "embedding": zoo.embedding,
    "picture_and_action": picture_and_action,
    "critics": critics,
    "subclassed": zoo.subclassed,
}
HEADS = {"quantiles": "z"}


def inputs_for(name):
    rng = np.random.default_rng(1)
    if name == "picture_and_action":
        return {"picture": rng.integers(0, 256, (ROWS, 4, 4, 1)).astype(np.uint8), "action": zoo.normal(rng, ROWS, 2)}
    if name == "critics":
        return {"observations": zoo.normal(rng, ROWS, 4), "actions": zoo.normal(rng, ROWS, 2)}
    if name == "memory":
        return zoo.normal(rng, ROWS, 3, 2)
    return zoo.inputs_for(
        {"dense": "sequential", "quantiles": "sequential", "conv": "convolution"}.get(name, name), ROWS
    )


class Case:
    """A model, its input, a vector output, and the Jacobian of that from plain tapes."""

    def __init__(self, name, kind="each"):
        self.model, self.x, head = zoo.randomized(MODELS[name]()), inputs_for(name), HEADS.get(name)
        leaves = tf.nest.map_structure(tf.constant, self.x)
        self.floating = [leaf for leaf in tf.nest.flatten(leaves) if leaf.dtype.is_floating]
        self.inputs = None if name != "picture_and_action" else "action"
        actions = np.array([2, 0, 1]) if kind == "chosen" else None
        self.output = Each(head) if actions is None else Chosen(head, actions)
        variables = [v.value for v in self.model.trainable_variables]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(self.floating)
            y = self.model(leaves, training=False)
            y = y[head] if head else y
            f = y if actions is None else tf.gather(y, actions, axis=1, batch_dims=1)
        self.f, cotangents = f.numpy(), np.eye(tf.size(f), dtype=np.float32)
        rows = []
        for cotangent in cotangents:  # of all samples together, so that N · K rows have N · K cotangents
            found = tape.gradient(f, variables + self.floating, cotangent.reshape(f.shape))
            rows.append([None if g is None else tf.convert_to_tensor(g).numpy() for g in found])
        count = len(variables)
        self.kept = [i for i in range(count) if rows[0][i] is not None]
        self.keys = [self.model.trainable_variables[i].path for i in self.kept]
        self.j = [np.stack([row[i] for row in rows]).reshape(*f.shape, *rows[0][i].shape) for i in self.kept]
        by_input = [np.stack([row[count + k] for row in rows]) for k in range(len(self.floating))]
        self.by_input = [g.reshape(*f.shape, *g.shape[1:]) for g in by_input]  # (N, units…, N, …)
        self.units = tuple(range(1, f.shape.rank))

    def per_sample(self, c):
        """Σ_k c_nk ∇f_nk, for each variable (N, …)."""
        c = np.broadcast_to(np.asarray(c, np.float32), self.f.shape)
        return [np.sum(c.reshape(*c.shape, *[1] * (j.ndim - c.ndim)) * j, axis=self.units) for j in self.j]

    def flat(self, c=1.0):
        return np.concatenate([g.reshape(ROWS, -1) for g in self.per_sample(c)], axis=1)

    def of_inputs(self, c):
        n, c = np.arange(ROWS), np.broadcast_to(np.asarray(c, np.float32), self.f.shape)
        found = []
        for g in self.by_input:
            own = np.moveaxis(g, len(self.f.shape), 1)[n, n]  # (N, units…, …)
            found.append(np.sum(c.reshape(*c.shape, *[1] * (own.ndim - c.ndim)) * own, axis=self.units))
        return found

    def weights(self):
        """c as the caller gives it, and as it counts for each unit."""
        rng = np.random.default_rng(7)
        per_sample, per_unit = zoo.normal(rng, ROWS), zoo.normal(rng, *self.f.shape)
        yield None, np.ones(self.f.shape)
        yield per_sample, per_sample.reshape(-1, *[1] * (self.f.ndim - 1)) * np.ones(self.f.shape)
        yield per_unit, per_unit

    def close(self, got, expected, rtol=1e-3):
        if isinstance(got, dict):
            assert list(got) == self.keys
            got = list(got.values())
        zoo.assert_close(got, expected, rtol=rtol, atol=1e-4)


_CASES = {}


def case_of(name, kind):
    if (name, kind) not in _CASES:
        _CASES[name, kind] = Case(name, kind)
    return _CASES[name, kind]


def check_gradient(case):
    for given, c in case.weights():
        sums = [g.sum(0) for g in case.per_sample(c)]
        case.close(gradients.gradient(case.model, case.x, output=case.output, sample_weight=given), sums)
        f, g = gradients.value_and_gradient(case.model, case.x, output=case.output, sample_weight=given)
        case.close([f], [case.f])
        case.close(g, sums)


def check_per_sample_gradient(case):
    for given, c in case.weights():
        found = gradients.per_sample_gradient(case.model, case.x, output=case.output, sample_weight=given)
        case.close(found, case.per_sample(c))


def check_per_sample_norm(case):
    for given, c in case.weights():
        found = gradients.per_sample_norm(case.model, case.x, output=case.output, sample_weight=given)
        case.close([found], [np.linalg.norm(case.flat(c), axis=1)])


def check_gram(case):
    for given, c in case.weights():
        found = gradients.gram(case.model, case.x, output=case.output, sample_weight=given)
        case.close([found], [case.flat(c) @ case.flat(c).T])


def check_clipped_gradient(case):
    lengths = np.linalg.norm(case.flat(), axis=1)
    bound = float(np.median(lengths))
    found = gradients.clipped_gradient(case.model, case.x, output=case.output, max_norm=bound)
    scale = np.minimum(1.0, bound / lengths).reshape(-1, *[1] * (case.f.ndim - 1))
    case.close(found, [g.sum(0) for g in case.per_sample(scale * np.ones(case.f.shape))])


def check_input_gradient(case):
    if not case.floating:
        with pytest.raises(TypeError, match="floating-point"):
            gradients.input_gradient(case.model, case.x, output=case.output)
        return
    lin = gradients.linearize(case.model, case.x, output=case.output)
    for given, c in case.weights():
        found = gradients.input_gradient(
            case.model, case.x, output=case.output, inputs=case.inputs, sample_weight=given
        )
        case.close(tf.nest.flatten(found), case.of_inputs(c))
        case.close(tf.nest.flatten(lin.input_gradient(given, inputs=case.inputs)), case.of_inputs(c))


def check_jacobian(case):
    case.close(gradients.jacobian(case.model, case.x, output=case.output), case.j)


def check_jacobian_gram(case):
    flat = np.concatenate([j.reshape(case.f.size, -1) for j in case.j], axis=1)
    case.close([gradients.jacobian_gram(case.model, case.x, output=case.output)], [flat @ flat.T])


def check_linearize(case):
    lin = gradients.linearize(case.model, case.x, output=case.output)
    case.close([lin.outputs], [case.f])
    assert [v.path for v in lin.variables] == case.keys
    for given, c in case.weights():
        case.close(lin.gradient(given), [g.sum(0) for g in case.per_sample(c)])
        case.close(lin.vjp(given), [g.sum(0) for g in case.per_sample(c)])
    case.close(lin.per_sample(), case.per_sample(1.0))
    case.close([lin.norm(), lin.gram()], [np.linalg.norm(case.flat(), axis=1), case.flat() @ case.flat().T])
    case.close(lin.sum_of_squares(), [np.sum(g**2, axis=0) for g in case.per_sample(1.0)])
    v = lin.gradient()
    moved = sum(
        np.tensordot(j, np.asarray(v[key]), axes=np.asarray(v[key]).ndim)
        for key, j in zip(case.keys, case.j, strict=True)
    )
    case.close([lin.jvp(v)], [moved])


def check_hessian(case):
    v, c = gradients.gradient(case.model, case.x, output=case.output), list(case.weights())[2][0]
    variables = [case.model.trainable_variables[i].value for i in case.kept]
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            y = case.model(tf.nest.map_structure(tf.constant, case.x), training=False)
            total = tf.reduce_sum(c * y)
        found = inner.gradient(total, variables)
        along = tf.add_n([tf.reduce_sum(tf.convert_to_tensor(g) * d) for g, d in zip(found, v.values(), strict=True)])
    expected = [tf.convert_to_tensor(g) for g in outer.gradient(along, variables, unconnected_gradients="zero")]
    options = {"output": case.output, "sample_weight": c}
    case.close(gradients.hessian_vector_product(case.model, case.x, v, **options), expected)
    lin = gradients.linearize(case.model, case.x, output={"f": case.output})
    case.close(lin.hessian_vector_product(v, {"f": c}), expected)


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}
PAIRS = {f"{check}-{name}": (check, name) for check in CHECKS for name in MODELS}
PAIRS = {pair: value for pair, value in PAIRS.items() if value[0] != "hessian" or value[1] in ("dense", "conv")}
QUICK = ["gradient-critics", "gradient-memory", "per_sample_gradient-conv", "per_sample_norm-picture_and_action"]
QUICK += ["gram-quantiles", "input_gradient-picture_and_action", "jacobian-dense", "jacobian_gram-dense"]
QUICK += ["linearize-dense", "linearize-critics", "hessian-dense", "clipped_gradient-embedding", "gradient-subclassed"]


@mostly_slow(("check, name"), PAIRS, quick=QUICK)
def test_all_units_of_a_head_with_every_function(check, name):
    CHECKS[check](case_of(name, "each"))


WITH_ACTIONS = {
    f"{check}-{name}": (check, name)
    for check in CHECKS
    for name in ("dense", "quantiles", "embedding")
    if check != "hessian"
}


@mostly_slow(("check, name"), WITH_ACTIONS, quick=["gradient-quantiles", "linearize-quantiles", "jacobian-dense"])
def test_the_entry_of_an_action_with_every_function(check, name):
    CHECKS[check](case_of(name, "chosen"))


def test_the_entry_of_an_action_has_the_axes_that_follow_it():
    model, x = zoo.randomized(quantiles()), inputs_for("quantiles")
    assert gradients.linearize(model, x, output=Chosen("z", [1, 0, 2])).outputs.shape == (ROWS, 2)
    assert gradients.linearize(zoo.make("sequential"), x, output=Chosen(None, [1, 0, 2])).outputs.shape == (ROWS,)


def test_actions_of_the_steps_of_sequences_choose_at_each_step():
    model, x, actions = zoo.randomized(memory()), inputs_for("memory"), np.array([[0, 1, 1], [1, 0, 1], [0, 0, 1]])
    credit = zoo.normal(np.random.default_rng(0), ROWS, 3)
    with tf.GradientTape() as tape:
        y = model(x, training=False)
        total = tf.reduce_sum(credit * tf.gather(y, actions, axis=2, batch_dims=2))
    expected = tape.gradient(total, [v.value for v in model.trainable_variables])
    found = gradients.gradient(model, x, output=Chosen(None, actions), sample_weight=credit)
    zoo.assert_close(found.values(), expected)
    found = gradients.gradient(model, x, output=PerSequence(Chosen(None, actions), credit))
    zoo.assert_close(found.values(), expected)


@pytest.mark.parametrize("shape", [(ROWS, 1), (1, 3), (3, 3, 1), (1,), (ROWS, 4), (4,)])
def test_weights_of_any_other_shape_are_refused(shape):
    model, x, weight = zoo.make("sequential"), inputs_for("dense"), np.ones(shape, np.float32)
    for call in (gradients.gradient, gradients.per_sample_norm, gradients.input_gradient):
        with pytest.raises(ValueError, match="shape"):
            call(model, x, output=Each(), sample_weight=weight)
    lin = gradients.linearize(model, x, output=Each())
    for call in (lin.gradient, lin.vjp, lin.input_gradient):
        with pytest.raises(ValueError, match="shape"):
            call(weight)
    traced = tf.function(lambda c: gradients.gradient(model, x, output=Each(), sample_weight=c), autograph=False)
    with pytest.raises(ValueError, match="shape"):
        traced(weight)


def test_a_weight_of_units_is_refused_where_there_is_one_number_per_sample():
    model, x = zoo.make("sequential"), inputs_for("dense")
    for output in (LogProb([0, 1, 2]), Chosen(None, [0, 1, 2])):
        with pytest.raises(ValueError, match="shape"):
            gradients.gradient(model, x, output=output, sample_weight=np.ones((ROWS, 1)))


@pytest.mark.parametrize("actions", [[0, 1, 3], [0, -1, 2]])
def test_actions_outside_are_refused_also_negative_ones(actions):
    model, x = zoo.make("sequential"), inputs_for("dense")
    for _ in range(2):
        with pytest.raises(ValueError, match="Actions are 0 … 2"):
            gradients.gradient(model, x, output=Chosen(None, actions))
        gradients.gradient(model, x, output=Chosen(None, [0, 1, 2]))  # so that the second time there is a program


def test_actions_of_other_kinds_are_refused():
    model, x = zoo.make("sequential"), inputs_for("dense")
    with pytest.raises(TypeError, match="integer actions, got float32"):
        gradients.gradient(model, x, output=Chosen(None, np.ones(ROWS, np.float32)))
    with pytest.raises(ValueError, match="one action for each sample"):
        gradients.gradient(model, x, output=Chosen(None, 1))
    with pytest.raises(ValueError, match="no such axis"):
        gradients.gradient(model, x, output=Chosen(None, np.zeros((ROWS, 3), int)))
    with pytest.raises(ValueError, match="3 rows"):
        gradients.gradient(model, x, output=Chosen(None, [0, 1]))


def test_sums_and_multiples_of_vectors_of_one_shape_are_vectors():
    case = case_of("quantiles", "each")
    c = zoo.normal(np.random.default_rng(3), ROWS, 2)
    a, b = np.array([0, 2, 1]), np.array([1, 1, 0])
    found = gradients.gradient(case.model, case.x, output=Chosen("z", a) - 0.5 * Chosen("z", b), sample_weight=c)
    full, n = np.zeros(case.f.shape), np.arange(ROWS)
    full[n, a] += c
    full[n, b] -= 0.5 * c
    case.close(found, [g.sum(0) for g in case.per_sample(full)])
    with pytest.raises(ValueError, match="do not add up"):
        gradients.gradient(case.model, case.x, output=Each("z") + Chosen("z", a))
    with pytest.raises(ValueError, match="do not add up"):
        gradients.gradient(case.model, case.x, output=Chosen("z", a) + Each("v"))  # (N, 2) and (N, 1)


def test_named_outputs_have_credits_of_their_own_shapes():
    model, x = zoo.randomized(quantiles()), inputs_for("quantiles")
    outputs = {"z": Chosen("z", [0, 2, 1]), "v": "v", "all": Each("z")}
    lin = gradients.linearize(model, x, output=outputs)
    assert {name: tuple(f.shape) for name, f in lin.outputs.items()} == {"z": (3, 2), "v": (3,), "all": (3, 3, 2)}
    credit = {name: zoo.normal(np.random.default_rng(4), *f.shape) for name, f in lin.outputs.items()}
    parts = [gradients.gradient(model, x, output=outputs[name], sample_weight=c) for name, c in credit.items()]
    total = {v.path: sum(part[v.path] for part in parts if v.path in part) for v in model.trainable_variables}
    zoo.assert_close(lin.gradient(credit).values(), total.values())
    by_input = [gradients.input_gradient(model, x, output=outputs[name], sample_weight=c) for name, c in credit.items()]
    zoo.assert_close([lin.input_gradient(credit)], [sum(map(np.asarray, by_input))])


@pytest.mark.xla
@mostly_slow("name", ["quantiles", "picture_and_action", "memory", "conv"], quick=["quantiles"])
def test_a_compiled_caller_gets_the_same(name):
    case = case_of(name, "each") if name != "memory" else Case("memory")
    c = list(case.weights())[2][0]

    @tf.function(jit_compile=True, autograph=False)
    def run(x, c):
        lin = gradients.linearize(case.model, x, output=case.output)
        norms = gradients.per_sample_norm(case.model, x, output=case.output, sample_weight=c)
        by_input = lin.input_gradient(c, inputs=case.inputs)
        return list(lin.gradient(c).values()), tf.nest.flatten(by_input), norms

    found, by_input, norms = run(tf.nest.map_structure(tf.constant, case.x), tf.constant(c))
    case.close(found, [g.sum(0) for g in case.per_sample(c)])
    case.close(by_input, case.of_inputs(c))
    case.close([norms], [np.linalg.norm(case.flat(c), axis=1)])


def test_repeated_calls_trace_nothing(monkeypatch):
    model, x = zoo.randomized(quantiles()), inputs_for("quantiles")

    def ask(actions, c):
        gradients.gradient(model, x, output=Chosen("z", actions), sample_weight=c)
        gradients.per_sample_norm(model, x, output=Each("z"), sample_weight=c[:, None] * np.ones((ROWS, 3, 2)))
        lin = gradients.linearize(model, x, output={"z": Chosen("z", actions), "v": "v"})
        lin.gradient({"z": c})
        lin.input_gradient({"z": c})
        single = gradients.linearize(model, x, output=Chosen("z", actions))
        single.jvp(single.vjp(c))

    ask(np.array([0, 1, 2]), np.ones((ROWS, 2), np.float32))
    monkeypatch.setattr(program, "trace_facts", lambda *_: pytest.fail("traced again"))
    for seed in range(2):
        rng = np.random.default_rng(seed)
        ask(rng.integers(0, 3, ROWS), zoo.normal(rng, ROWS, 2))


@mostly_slow("weighted", [False, True], quick=[True])
def test_half_precision_keeps_small_weights_of_units(weighted):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = zoo.randomized(zoo.sequential())
    finally:
        keras.config.set_dtype_policy(previous)
    x = inputs_for("dense")
    c = zoo.normal(np.random.default_rng(0), ROWS, 3) if weighted else zoo.normal(np.random.default_rng(0), ROWS)
    for call in (gradients.gradient, gradients.per_sample_gradient):
        usual = call(model, x, output=Each(), sample_weight=c)
        small = call(model, x, output=Each(), sample_weight=c * 2.0**-30)
        zoo.assert_close([g * 2.0**30 for g in small.values()], usual.values(), rtol=1e-2, atol=1e-3)
    usual, small = (gradients.input_gradient(model, x, output=Each(), sample_weight=c * s) for s in (1.0, 2.0**-30))
    zoo.assert_close([small * 2.0**30], [usual], rtol=1e-2, atol=1e-3)
    norms = gradients.per_sample_norm(model, x, output=Each(), sample_weight=c)
    rows = gradients.flatten(gradients.per_sample_gradient(model, x, output=Each(), sample_weight=c), batch_axes=1)
    zoo.assert_close([norms], [np.linalg.norm(rows, axis=1)], rtol=1e-2)


def test_a_model_that_runs_at_one_batch_size_adds_up_the_units():
    class Fixed(keras.Model):
        def __init__(self):
            super().__init__()
            self.scale = self.add_weight(shape=(4, 2), name="scale")

        def call(self, x):
            return tf.tanh(tf.reshape(x, (ROWS, 4)) @ self.scale)

    model, data = Fixed(), inputs_for("dense")
    model(data)
    zoo.randomized(model)
    c = zoo.normal(np.random.default_rng(0), ROWS, 2)
    y = np.tanh(data @ np.asarray(model.scale))
    expected = np.einsum("nd,nk->ndk", data, c * (1 - y**2))
    found = gradients.per_sample_gradient(model, data, output=Each(), sample_weight=c)
    zoo.assert_close(found.values(), [expected])
    found = gradients.per_sample_gradient(model, data, output=Each(), sample_weight=c[:, 0])
    zoo.assert_close(found.values(), [np.einsum("nd,nk->ndk", data, c[:, :1] * (1 - y**2))])


def test_vectors_of_a_layer_and_of_no_rows():
    model, x = zoo.make("sequential"), inputs_for("dense")
    found = gradients.per_sample_gradient(model, x, output=Each(), layer="first")
    summed = gradients.per_sample_gradient(model, x, layer="first")
    zoo.assert_close(found.values(), summed.values())
    empty = gradients.per_sample_gradient(model, x[:0], output=Each())
    assert [tuple(g.shape) for g in empty.values()] == [(0, *v.shape) for v in model.trainable_variables]
    assert gradients.linearize(model, x[:0], output=Each()).outputs.shape == (0, 3)


def test_chunks_and_segments_carry_the_weights_of_units():
    case = case_of("dense", "each")
    c = list(case.weights())[2][0]
    options = {"output": case.output, "sample_weight": c}
    case.close(gradients.per_sample_gradient(case.model, case.x, chunk_size=2, **options), case.per_sample(c))
    rows = [np.stack([g[0] + g[2], g[1]]) for g in case.per_sample(c)]
    found = gradients.per_sample_gradient(case.model, case.x, segments=[0, 1, 0], **options)
    case.close(found, rows)


def test_time_major_policies_have_vectors_too():
    model = zoo.randomized(zoo.TimeMajorPolicy())
    rng = np.random.default_rng(2)
    x, actions, c = zoo.normal(rng, 3, 2, 4), rng.integers(0, 3, (3, 2)), zoo.normal(rng, 3, 2, 3)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(c * model(x)["policy"])
    expected = [g for g in tape.gradient(total, [v.value for v in model.trainable_variables]) if g is not None]
    zoo.assert_close(gradients.gradient(model, x, output=Each("policy"), sample_weight=c).values(), expected)
    chosen = gradients.gradient(model, x, output=Chosen("policy", actions), sample_weight=c[..., 0])
    as_whole = tf.one_hot(actions, 3) * c[..., :1]
    zoo.assert_close(
        chosen.values(), gradients.gradient(model, x, output=Each("policy"), sample_weight=as_whole).values()
    )


def test_an_output_of_any_kind_may_be_wrapped():
    assert Output.of(Each("z")).recipe == Each("z").recipe
    assert hash(Chosen("z", [0]).recipe) == hash(Chosen("z", [1]).recipe)
