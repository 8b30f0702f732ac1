"""The model contract, acting, and the normalizer inside the policy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.slow import mostly_slow

from rlgrad import gradients
from rlgrad.gradients import Entropy, LogProb
from rlgrad.mirrors import chains
from rlgrad.policies import Policy, RunningNormalizer, make_policy
from rlgrad.rollouts import Rollout

VECTOR, TWO, BOX = spaces.Box(-1, 1, (3,)), spaces.Discrete(2), spaces.Box(-2.0, 2.0, (2,))
RNG = np.random.default_rng(0)


def sequential(units, activation="linear", inputs=3):
    return keras.Sequential(
        [keras.Input((inputs,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(units, activation)]
    )


def two_heads(units=2, value_units=1):
    x = keras.Input((3,))
    h = keras.layers.Dense(8, "relu")(x)
    heads = {"policy": keras.layers.Dense(units)(h), "value": keras.layers.Dense(value_units)(h)}
    return keras.Model(x, heads)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = keras.layers.Dense(8, "elu"), keras.layers.Dense(2)

    def call(self, x):
        return self.head(self.hidden(x))


@pytest.mark.parametrize("model", [None, sequential(2), two_heads(), Subclassed(), lambda: sequential(2)])
def test_any_keras_model_becomes_a_policy(model):
    policy = make_policy(VECTOR, TWO, model=model)
    heads = policy(np.zeros((5, 3), np.float32))
    assert heads["policy"].shape == (5, 2)
    assert heads["value"].shape == (5,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": sequential(2, "softmax")}, "ends in a softmax.*from_logits=False"),
        ({"model": sequential(2, "sigmoid")}, "ends in a sigmoid"),
        ({"model": sequential(3)}, r"2 actions: one logit each. End it in keras.layers.Dense\(2\)"),
        ({"model": sequential(2, inputs=4)}, r"does not take the environment's observations, shape \(N, 3\)"),
        ({"model": two_heads(value_units=2)}, r"a value is \(N, 1\)"),
        ({"value_model": sequential(2)}, r"a value is \(N, 1\)"),
        ({"model": two_heads(), "value_model": sequential(1)}, "leave one of them out"),
        ({"model": keras.Model(i := keras.Input((3,)), {"logits": keras.layers.Dense(2)(i)})}, 'needs "policy"'),
        (
            {"model": keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_regularizer="l2")])},
            "regularizers",
        ),
        ({"model": 3}, "a Keras model or a function"),
    ],
)
def test_a_model_that_breaks_the_contract_is_refused_with_the_fix(options, message):
    with pytest.raises(ValueError, match=message):
        make_policy(VECTOR, TWO, **options)


def test_probabilities_that_are_declared_are_taken_as_such():
    model = sequential(2, "softmax")
    policy = make_policy(VECTOR, TWO, model=model, from_logits=False, value=False)
    x = RNG.normal(size=(6, 3)).astype(np.float32)
    actions = np.array([0, 1, 0, 1, 1, 0])
    log_probs = gradients.linearize(policy, x, output=LogProb(actions)).outputs
    np.testing.assert_allclose(np.exp(log_probs), np.asarray(model(x))[np.arange(6), actions], rtol=1e-5)


def test_spaces_that_are_not_supported_are_named_with_what_to_wrap_them_in():
    with pytest.raises(ValueError, match="map each text to a number"):
        make_policy(VECTOR, spaces.Text(5))
    with pytest.raises(ValueError, match="encode the text"):
        make_policy(spaces.Dict(x=VECTOR, t=spaces.Text(5)), TWO)


def test_dropout_is_said_to_be_off(caplog):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5, name="drop"), keras.layers.Dense(2)])
    make_policy(VECTOR, TWO, model=model)
    assert "drop" in caplog.text


@pytest.mark.parametrize("space", [TWO, BOX])
@pytest.mark.parametrize("normalize", [False, True])
def test_acting_in_numpy_and_the_keras_model_agree(space, normalize):
    policy = make_policy(VECTOR, space, normalize_observations=normalize)
    if normalize:
        policy.normalize(tf.constant(RNG.normal(3, 2, (50, 3)), tf.float32), tf.ones(50))
    x = RNG.normal(3, 2, size=(9, 3)).astype(np.float32)
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(np.broadcast_to(a, b.shape), b, rtol=1e-4, atol=1e-6),
        policy.actor()(x),
        policy(x)["policy"],
    )


@pytest.mark.xla
def test_a_model_that_numpy_cannot_mirror_acts_through_a_compiled_program():
    policy = make_policy(VECTOR, TWO, model=Subclassed())
    x = RNG.normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(policy.actor()(x), policy(x)["policy"], rtol=1e-4, atol=1e-6)


class Twin(keras.Model):
    """The default networks, which NumPy cannot see into."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def call(self, x):
        return self.network(x)


@pytest.mark.parametrize("space", [TWO, BOX, spaces.Box(-1, 1, (2, 2)), spaces.MultiBinary(3)])
@mostly_slow(
    "options", [{}, {"shared_trunk": True}, {"normalize_observations": True}], quick=[{"normalize_observations": True}]
)
@mostly_slow("seen", [VECTOR, spaces.Box(-1, 1, (3, 2))], quick=[spaces.Box(-1, 1, (3, 2))])
def test_both_actors_take_the_same_actions_for_the_same_observations_and_random_numbers(space, options, seen):
    policy = make_policy(seen, space, seed=1, **options)
    trained = policy.network.output if options.get("shared_trunk") else {}
    normalize = {"normalize_observations": "normalize_observations" in options}
    twin = make_policy(seen, space, model=Twin(policy.network), value="value" not in trained, seed=1, **normalize)
    for either in (policy, twin):
        either.normalize(tf.constant(np.random.default_rng(3).normal(3, 2, (50, *seen.shape)), tf.float32), tf.ones(50))
    assert policy.mirror is not None
    assert twin.mirror is None
    policy.network.set_weights([w + RNG.normal(0, 0.1, w.shape) for w in policy.network.get_weights()])
    x = RNG.normal(size=(500, *seen.shape)).astype(np.float32)
    drawn = [p.distribution.sample(p.actor()(x), np.random.default_rng(2)) for p in (policy, twin)]
    for one, other in zip(*drawn, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_models_that_are_no_single_path_of_dense_layers_are_not_mirrored():
    x = keras.Input((3,))
    side = keras.layers.Dense(4, "tanh")
    twice = keras.layers.Dense(2)(side(keras.layers.Dense(3)(side(keras.layers.Dense(3)(x)))[:, :3]))
    forked = keras.layers.Dense(2)(keras.layers.Concatenate()([x, keras.layers.Dense(2)(x)]))
    for model in (keras.Model(x, twice), keras.Model(x, forked), sequential(2, "softmax")):
        kind = {"from_logits": False} if model.layers[-1].activation is keras.activations.softmax else {}
        assert make_policy(VECTOR, TWO, model=model, **kind).mirror is None


def test_a_mirror_that_does_not_give_what_the_model_gives_is_not_used(caplog, monkeypatch):
    monkeypatch.setitem(chains.ACTIVATIONS, "tanh", lambda x: np.tanh(x, out=x) + np.float32(0.1))
    policy = make_policy(VECTOR, TWO, model=sequential(2))
    assert policy.mirror is None
    assert "differs by" in caplog.text
    assert "from the Keras model" in caplog.text
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(policy.actor()(x), policy(x)["policy"], rtol=1e-5, atol=1e-6)


def test_an_actor_keeps_the_weights_at_which_it_was_taken():
    policy, x = make_policy(VECTOR, BOX), np.ones((2, 3), np.float32)
    actor = policy.actor()
    before = actor(x)
    policy.network.set_weights([w + 1.0 for w in policy.network.get_weights()])
    policy.log_std.assign([1.0, 2.0])
    for name, numbers in actor(x).items():
        np.testing.assert_array_equal(numbers, before[name])
    np.testing.assert_allclose(policy.actor()(x)["mean"], policy(x)["policy"]["mean"], rtol=1e-5)
    np.testing.assert_array_equal(policy.actor()(x)["log_std"], [[1.0, 2.0]])


def test_the_actor_follows_the_weights_when_it_is_taken_again():
    policy = make_policy(VECTOR, TWO)
    policy.network.layers[-1].bias.assign([0.0, 9.0])
    assert policy.act(np.zeros(3), greedy=True) == 1
    policy.network.layers[-1].bias.assign([9.0, 0.0])
    assert policy.act(np.zeros(3), greedy=True) == 0


@pytest.mark.parametrize(("space", "shape"), [(TWO, ()), (BOX, (2,))])
def test_act_takes_one_observation_or_a_batch(space, shape):
    policy = make_policy(VECTOR, space)
    assert np.shape(policy.act(np.zeros(3))) == shape
    assert np.shape(policy.act(np.zeros((7, 3)), greedy=True)) == (7, *shape)
    with pytest.raises(ValueError, match="Expected one observation of shape"):
        policy.act(np.zeros(4))


def test_actions_are_counted_from_where_the_space_starts():
    policy = make_policy(VECTOR, spaces.Discrete(2, start=10))
    assert set(policy.act(np.zeros((50, 3)))) == {10, 11}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, same, other = (make_policy(VECTOR, TWO, seed=s).get_weights() for s in (0, 0, 1))
    for a, b in zip(first, same, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=f"weights of shape {a.shape}, of one seed")
    assert max(np.abs(a - b).max() for a, b in zip(first, other, strict=True)) > 0.01, "difference to another seed's"


def test_the_last_layer_begins_small_so_that_the_policy_begins_near_uniform():
    policy = make_policy(VECTOR, TWO)
    logits = policy(RNG.normal(size=(100, 3)).astype(np.float32))["policy"]
    assert np.abs(logits).max() < 0.05


def test_outputs_keep_the_time_and_environment_axes():
    policy = make_policy(VECTOR, BOX)
    x, actions = RNG.normal(size=(4, 5, 3)).astype(np.float32), RNG.normal(size=(4, 5, 2)).astype(np.float32)

    def linearized(x, actions):
        return gradients.linearize(
            policy, x, output={"log_prob": LogProb(actions), "entropy": Entropy(), "value": "value"}
        )

    spread, flat = linearized(x, actions), linearized(x.reshape(20, 3), actions.reshape(20, 2))
    for name, values in spread.outputs.items():
        assert values.shape == (4, 5)
        np.testing.assert_allclose(tf.reshape(values, -1), flat.outputs[name], rtol=1e-5)


def test_the_gaussian_score_is_the_textbook_one_for_the_log_std():
    policy = make_policy(VECTOR, BOX, initial_log_std=-0.3, value=False)
    x, actions = RNG.normal(size=(8, 3)).astype(np.float32), RNG.normal(size=(8, 2)).astype(np.float32)
    weights = RNG.normal(size=8).astype(np.float32)
    got = gradients.gradient(policy, x, output=LogProb(actions), sample_weight=weights, weights=policy.log_std)
    z = (actions - policy(x)["policy"]["mean"].numpy()) / np.exp(-0.3)
    # ∂ log N(a; μ, σ)/∂ log σ = z² − 1
    np.testing.assert_allclose(next(iter(got.values())), (weights[:, None] * (z**2 - 1)).sum(0), rtol=1e-4)


def test_the_normalizer_merges_batches_into_the_statistics_of_all():
    normalizer = RunningNormalizer((2,))
    parts = [RNG.normal(5, 3, (n, 2)) for n in (3, 50, 1)]
    for part in parts:
        padded = np.concatenate([part, np.full((4, 2), 1e9)])
        mask = np.concatenate([np.ones(len(part)), np.zeros(4)])
        normalizer.update(tf.constant(padded), tf.constant(mask))
    everything = np.concatenate(parts)
    np.testing.assert_allclose(normalizer.mean, everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose(normalizer.variance, everything.var(0), rtol=1e-12)
    assert float(normalizer.count) == 54


def test_the_normalizer_is_the_identity_before_it_has_seen_anything_and_limits_afterwards():
    normalizer = RunningNormalizer((1,), limit=2.0)
    np.testing.assert_allclose(normalizer(np.array([[0.5], [9.0]])), [[0.5], [2.0]], rtol=1e-6)
    normalizer.update(tf.zeros((3, 1)), tf.zeros(3))
    np.testing.assert_allclose(normalizer.variance, [1.0])


def test_the_normalizer_is_no_trainable_weight_and_is_among_the_saved_ones():
    policy = make_policy(VECTOR, TWO, normalize_observations=True)
    paths = [v.path for v in policy.variables]
    assert any("normalizer/mean" in p for p in paths)
    assert not any("normalizer" in v.path for v in policy.trainable_variables)
    assert isinstance(policy, Policy)


@pytest.mark.parametrize("space", [TWO, BOX, spaces.Box(-1, 1, (2, 2))])
def test_a_shared_trunk_moves_with_both_heads(space):
    policy = make_policy(VECTOR, space, shared_trunk=True, hidden_sizes=(6,))
    x = RNG.normal(size=(5, 3)).astype(np.float32)
    at_x = gradients.linearize(policy, x, output={"entropy": Entropy(), "value": "value"})
    trunk = "hidden_1/kernel"
    assert trunk in at_x.gradient({"value": 1.0})
    assert (trunk in at_x.gradient({"entropy": 1.0})) == (space is TWO)  # a Gaussian's entropy depends on log σ alone
    assert not any(path.startswith("policy/") for path in at_x.gradient({"value": 1.0}))


@pytest.mark.parametrize(
    ("options", "why"), [({"model": sequential(2)}, "model was given"), ({"value": False}, "no value is needed")]
)
def test_a_shared_trunk_is_one_of_default_networks(options, why):
    with pytest.raises(ValueError, match=f"shared_trunk .* {why}"):
        make_policy(VECTOR, TWO, shared_trunk=True, **options)


@mostly_slow(
    "shape, cuts",
    {
        f"{name}-{i}": (shape, cuts)
        for name, shape in {"numbers": (4,), "images": (6, 6, 1)}.items()
        for i, cuts in enumerate([(), ((3, 0),), ((2, 0), (9, 1), (11, 2)), ((2, 1), (5, 1), (8, 1))])
    },
    quick=["numbers-0", "numbers-3", "images-2"],
)
def test_values_of_successors_are_those_of_the_true_ones_however_many_were_cut(cuts, shape):
    """Where an episode goes on the successor is the next row's observation; where it was cut, another one."""
    rng = np.random.default_rng(0)
    rows, columns = 12, 3
    seen = rng.normal(size=(rows + 1, columns, *shape)).astype(np.float32)
    after, ended = seen[1:].copy(), np.zeros((rows, columns), bool)
    for cut in cuts:
        after[cut], ended[cut] = rng.normal(size=shape), True
    task_over = np.zeros_like(ended)
    task_over[6, 2] = True  # whatever its successor is worth, it does not count
    zeros = [np.zeros((rows, columns), np.float32)] * 2
    rollout = Rollout(seen[:-1], *zeros, task_over, ended | task_over, after, *[None] * 4)
    policy = make_policy(spaces.Box(-1, 1, shape), spaces.Discrete(2), value=True, seed=0)
    for run in (policy.values, tf.function(policy.values, jit_compile=True)):
        values, following = run(
            rollout._replace(**{name: tf.constant(x) for name, x in rollout._asdict().items() if x is not None})
        )
        np.testing.assert_allclose(values, policy.value(seen[:-1]), atol=1e-5)
        expected = policy.value(after).numpy()
        np.testing.assert_allclose(np.where(task_over, 0, following), np.where(task_over, 0, expected), atol=1e-5)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a"], "it has no input 'b'"),
        (["a", "c"], "it has no input 'b' and an input 'c' that they do not have"),
        (["a", "b", "c"], "it has an input 'c' that they do not have"),
    ],
)
def test_a_model_whose_inputs_are_not_the_parts_of_the_observations_says_which(names, said):
    inputs = {name: keras.Input((2,), name=name) for name in names}
    joined = keras.layers.Concatenate()([*inputs.values(), *inputs.values()])
    model = keras.Model(inputs, keras.layers.Dense(2)(joined))
    space = spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Box(-1, 1, (2,)))
    with pytest.raises(ValueError, match=f"whose parts are 'a', 'b': {said}"):
        make_policy(space, spaces.Discrete(2), model=model)
