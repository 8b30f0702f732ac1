"""Exported policies: each format's own runtime takes the actions that the policy takes."""

import subprocess
import sys
from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from helpers.slow import mostly_slow

import rlgrad
from rlgrad import make_policy
from rlgrad.exporting.standalone import model_inputs, standalone
from rlgrad.spaces.masks import MASK

COUNT = 1000
VECTOR, IMAGE = spaces.Box(-np.inf, np.inf, (3,)), spaces.Box(0, 255, (12, 12, 3), np.uint8)
TREE = spaces.Dict(
    camera=IMAGE,
    speed=VECTOR,
    where=spaces.Tuple((spaces.Discrete(4, start=1), spaces.MultiBinary(3))),
    zone=spaces.MultiDiscrete([2, 3]),
)
BOX = spaces.Box(np.array([-2.0, -0.1], np.float32), np.array([1.0, 3.0], np.float32))
POLICIES = {
    "discrete": (VECTOR, spaces.Discrete(4, start=-1), {}),
    "normalized": (VECTOR, spaces.Discrete(4), {"normalize_observations": True}),
    "clipped": (VECTOR, BOX, {"normalize_observations": True}),
    "squashed": (VECTOR, BOX, {"normalize_observations": True, "squash_actions": True}),
    "image": (IMAGE, spaces.Discrete(5), {}),
    "dict": (TREE, spaces.Discrete(3), {"normalize_observations": True}),
}
OTHERS = {
    "choices": (VECTOR, spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[0, 1], [2, 3]]), {}),
    "switches": (VECTOR, spaces.MultiBinary((2, 2)), {}),
    "parts": (VECTOR, spaces.Dict(turn=BOX, press=spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2)))), {}),
    "integers": (VECTOR, spaces.Box(-3, 3, (2, 2), np.int32), {}),
    "one number": (spaces.Discrete(7, start=2), spaces.Discrete(3), {}),
    "masked": (spaces.Dict({"observation": VECTOR, MASK: spaces.MultiBinary(4)}), spaces.Discrete(4), {}),
    "shared trunk": (TREE, spaces.Discrete(3), {"shared_trunk": True}),
}


def made(name):
    """A policy whose normalizer has seen something."""
    observation_space, action_space, options = (POLICIES | OTHERS)[name]
    policy = decided(make_policy(observation_space, action_space, seed=1, **options))
    if options.get("normalize_observations"):
        policy.normalize(drawn(policy, 200), tf.ones(200))
    return policy


def decided(policy):
    """The policy with a head that tells observations apart, which at the beginning it hardly does."""
    names = ("output/kernel", "policy/kernel")
    (kernel,) = [v for v in policy.network.trainable_variables if v.path.endswith(names)]
    kernel.assign(np.random.default_rng(0).normal(0, 0.3, kernel.shape))
    return policy


def drawn(policy, count=COUNT):
    """Random observations; a mask allows at least one action."""
    generator = np.random.default_rng(1)

    def leaf(spec):
        if spec.dtype.is_floating:
            return generator.normal(1.0, 3.0, (count, *spec.shape[1:])).astype(np.float32)
        return generator.integers(0, 256 if spec.dtype == tf.uint8 else 2, (count, *spec.shape[1:])).astype(
            spec.dtype.name
        )

    x = tf.nest.map_structure(leaf, policy.observation_spec)
    if isinstance(policy.observation_space, spaces.Discrete):
        x = generator.integers(2, 9, count)
    elif policy.masked:
        x[MASK][np.arange(count), generator.integers(0, 4, count)] = 1
    elif isinstance(x, dict):
        x["where"] = (x["where"][0] + 1, x["where"][1])
    return x


def played(path, inputs):
    """What the format's own runtime says."""
    if path.suffix == ".keras":
        return {name: np.asarray(y) for name, y in keras.saving.load_model(path, safe_mode=True)(inputs).items()}
    if path.suffix == ".onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))
    if path.suffix == ".tflite":
        interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path))
        return interpreter.get_signature_runner("serving_default")(**inputs)
    said = tf.saved_model.load(str(path)).signatures["serving_default"](**tf.nest.map_structure(tf.constant, inputs))
    return {name: y.numpy() for name, y in said.items()}


def assert_same_actions(said, policy, x):
    expected = tf.nest.flatten(policy.act(x, greedy=True))
    given = [y for name, y in sorted(said.items()) if name == "action" or name.startswith("action_")]
    assert len(given) == len(expected)
    for mine, theirs in zip(given, expected, strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype == theirs.dtype
        assert len(np.unique(mine)) > 1
        if np.issubdtype(mine.dtype, np.integer):
            np.testing.assert_array_equal(mine, theirs)
        else:
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


FORMATS = ("p.keras", "p", "p.onnx", "p.tflite")


@pytest.fixture(params=FORMATS)
def file(request, tmp_path):
    if request.param.endswith("onnx"):
        pytest.importorskip("tf2onnx")
    return tmp_path / request.param


@mostly_slow(
    "name, file",
    product(POLICIES, FORMATS),
    quick=[*product(["dict"], FORMATS), *product(["discrete", "clipped", "squashed", "image"], ["p"])],
    indirect=["file"],
)
def test_each_format_takes_the_actions_of_the_policy(name, file):
    policy = made(name)
    x = drawn(policy)
    rlgrad.export(policy, file)
    assert_same_actions(played(file, model_inputs(policy, x)), policy, x)


@mostly_slow("name", OTHERS.keys(), quick=["choices", "parts", "masked"])
def test_every_space_is_exported(name, tmp_path):
    policy = made(name)
    x = drawn(policy)
    for file in (tmp_path / "p.keras", tmp_path / "p"):
        rlgrad.export(policy, file)
        assert_same_actions(played(file, model_inputs(policy, x)), policy, x)


READERS = {  # what each runtime reads, in this order
    "tensorflow": """
import tensorflow as tf
act = tf.saved_model.load(path).signatures["serving_default"]
said = {name: y.numpy() for name, y in act(**{name: tf.constant(x) for name, x in inputs.items()}).items()}""",
    "keras": """
import keras
said = {name: np.asarray(y) for name, y in keras.saving.load_model(path, safe_mode=True)(inputs).items()}""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(path)
names = [output.name for output in session.get_outputs()]
said = dict(zip(names, session.run(names, inputs)))""",
    "litert": """
from ai_edge_litert.interpreter import Interpreter
said = Interpreter(path).get_signature_runner("serving_default")(**inputs)""",
}
ENDINGS = {"tensorflow": "", "keras": ".keras", "onnx": ".onnx", "litert": ".tflite"}
NEEDS = {"onnx": ("tf2onnx", "onnxruntime"), "litert": ("ai_edge_litert",)}


@mostly_slow("readers", {"onnx": ("onnx",), "litert": ("litert",), "tensorflow, keras": ("tensorflow", "keras")})
def test_whoever_reads_it_needs_no_rlgrad(readers, tmp_path):
    """Nor, for the formats that have a runtime of their own, TensorFlow."""
    for package in (each for reader in readers for each in NEEDS.get(reader, ())):
        pytest.importorskip(package)
    code = ["import sys", "import numpy as np", "sys.modules['rlgrad'] = None  # importing it now fails"]
    expected = {}
    for reader in readers:
        for memory in (None, "lstm"):
            policy = make_policy(VECTOR, spaces.Discrete(3), memory=memory, hidden_sizes=(16,), value=False, seed=2)
            x, name = drawn(decided(policy)), f"{memory}{ENDINGS[reader]}"
            rlgrad.export(policy, tmp_path / name)
            np.savez(tmp_path / f"{memory}.inputs.npz", **model_inputs(policy, x))
            code += [f"path, inputs = {name!r}, dict(np.load('{memory}.inputs.npz'))", READERS[reader]]
            code += [f"np.savez('{name}.said.npz', **said)"]
            actions = policy.act(x, greedy=True)
            expected[name] = actions if memory is None else actions[0]
    code += ["print(sys.modules['rlgrad'], 'tensorflow' in sys.modules)"]
    result = subprocess.run([sys.executable, "-c", "\n".join(code)], cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.strip().endswith(f"None {readers[0] == 'tensorflow'}"), result.stderr
    for name, actions in expected.items():
        with np.load(tmp_path / f"{name}.said.npz") as said:
            assert len(np.unique(actions)) == 3
            np.testing.assert_array_equal(said["action"], actions)


@mostly_slow(
    "memory, file",
    product(["gru", "lstm"], FORMATS),
    quick=[("gru", "p.keras"), ("lstm", "p"), ("lstm", "p.onnx")],
    indirect=["file"],
)
def test_a_policy_with_memory_gives_its_state_for_the_next_step(memory, file):
    policy = make_policy(VECTOR, BOX, memory=memory, shared_trunk=True, memory_size=8, seed=3)
    rlgrad.export(decided(policy), file)
    x, state = [drawn(policy, 5) for _ in range(3)], None
    inputs = model_inputs(policy, x[0])
    for observation in x:
        said = played(file, inputs | {"observation": observation})
        expected, state = policy.act(observation, greedy=True, state=state)
        np.testing.assert_allclose(said["action"], expected, rtol=1e-4, atol=1e-5)
        inputs = {name.removeprefix("next_"): y for name, y in said.items() if name.startswith("next_")}
    assert len(inputs) == {"gru": 1, "lstm": 2}[memory]


class Custom(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = keras.layers.Dense(8, "elu"), keras.layers.Dense(3)

    def call(self, x):
        return self.head(self.hidden(x))


def test_models_of_ones_own_are_exported_and_a_keras_file_says_what_it_needs(tmp_path, caplog):
    for i, model in enumerate((keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), Custom()]), Subclassed())):
        policy = make_policy(VECTOR, spaces.Discrete(3), model=model)
        x = drawn(policy)
        assert_same_actions(played(rlgrad.export(policy, tmp_path / f"p{i}"), model_inputs(policy, x)), policy, x)
        rlgrad.export(policy, tmp_path / f"p{i}.keras")
        assert f"needs the classes {('Custom', 'Subclassed')[i]}" in caplog.text


def test_probabilities_that_are_declared_are_exported_as_logits(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "softmax")])
    policy = make_policy(VECTOR, spaces.Discrete(3), model=model, from_logits=False)
    x = drawn(policy)
    said = played(rlgrad.export(policy, tmp_path / "p.keras"), model_inputs(policy, x))
    np.testing.assert_allclose(np.exp(said["logits"]), model(x), rtol=1e-4, atol=1e-7)
    assert_same_actions(said, policy, x)


def test_training_goes_on_after_an_export_and_does_not_change_it(tmp_path):
    policy = made("normalized")
    x = drawn(policy)
    before, model = policy.act(x, greedy=True), standalone(policy)
    for variable in policy.variables:
        variable.assign(variable + 1.0)
    np.testing.assert_array_equal(model(model_inputs(policy, x))["action"], before)


def test_the_format_follows_from_the_ending_and_a_contradiction_is_refused(tmp_path):
    policy = made("discrete")
    assert rlgrad.export(policy, tmp_path / "deep" / "p.keras").is_file()
    assert rlgrad.export(policy, tmp_path / "p.v2").is_dir()
    with pytest.raises(FileExistsError, match="Choose a new name"):
        rlgrad.export(policy, tmp_path / "p.v2")
    for name, format in (("p.onnx", "keras"), ("p", "litert"), ("p.keras", "saved_model")):
        with pytest.raises(ValueError, match=f"does not end as {format} does"):
            rlgrad.export(policy, tmp_path / name, format)
    with pytest.raises(ValueError, match="format is one of keras, saved_model, onnx, litert"):
        rlgrad.export(policy, tmp_path / "p", "torch")


@mostly_slow(
    "file, function, message",
    [
        ("p.onnx", tf.math.bessel_i0e, "ONNX cannot hold this policy.*BesselI0e"),
        ("p.tflite", tf.math.lgamma, "LiteRT cannot run this policy"),  # it is converted, and wrongly
        ("p.tflite", tf.math.bessel_i0e, "LiteRT cannot hold this policy.*tf.BesselI0e"),
    ],
    quick=2,
)
def test_what_a_format_cannot_hold_is_named_and_nothing_is_written(file, function, message, tmp_path):
    if file == "p.onnx":
        pytest.importorskip("tf2onnx")
    layers = [keras.Input((3,)), keras.layers.Dense(3), keras.layers.Lambda(lambda x: function(x))]
    policy = make_policy(VECTOR, spaces.Discrete(3), model=keras.Sequential(layers))
    with pytest.raises(ValueError, match=message):
        rlgrad.export(policy, tmp_path / file)
    assert list(tmp_path.iterdir()) == []


def test_without_its_package_a_format_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'rlgrad\[onnx\]'"):
        rlgrad.export(made("discrete"), tmp_path / "p.onnx")
