"""rlgrad and plain TensorFlow at the work of benchmarks/primitive.py, which starts this and tells it what to do."""

import os

import keras
import numpy as np
import primitive_by_hand
import tensorflow as tf
from primitive_by_hand import log_prob
from primitive_common import NETS, Task, serve

from rlgrad import gradients
from rlgrad.gradients import LogProb
from rlgrad.gradients.programs import program

tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["PRIMITIVE_THREADS"]))
tf.config.threading.set_inter_op_parallelism_threads(1)

FUNCTIONS = {
    "per-sample gradients": "per_sample_gradient",
    "norms": "per_sample_norm",
    "Gram": "gram",
    "gradient": "gradient",
}


def network(net, weights):
    shape, layers, activation = NETS[net]
    parts = [keras.Input(shape)]
    for i, (kind, units, *geometry) in enumerate(layers):
        act = activation if i < len(layers) - 1 else None
        if kind == "conv":
            parts.append(keras.layers.Conv2D(units, *geometry, activation=act))
        else:
            parts += [keras.layers.Flatten()] if i and layers[i - 1][0] == "conv" else []
            parts.append(keras.layers.Dense(units, act))
    model = keras.Sequential(parts)
    model.set_weights(weights)
    return model


def function_of(body, jit_compile):
    return tf.function(body, jit_compile=jit_compile, autograph=False)


def rlgrad_call(model, task):
    """The function of rlgrad that does the task's work, of inputs, actions and weights of the samples."""
    if task.work in primitive_by_hand.WORKS:
        return primitive_by_hand.WORKS[task.work](model)[0]
    function = getattr(gradients, FUNCTIONS[task.work])
    if task.work == "gradient":
        return lambda x, actions, c: function(model, x, output=LogProb(actions), sample_weight=c)
    return lambda x, actions, c: function(model, x, output=LogProb(actions))


def eager(model, task, arguments):
    """The plain call, after a check that its repetition compiles nothing."""
    function = rlgrad_call(model, task)
    function(*arguments)
    kept = program.programs_of(model)
    for rows in (slice(None), slice(0, 7), slice(None)):
        function(*(argument[rows] for argument in arguments))
    if program.programs_of(model) != kept:
        raise AssertionError(f"A repeated call for the {task.work} compiled something.")
    return lambda: function(*arguments)


def surrogate(model):
    """Σ c log π, differentiated with a tape."""

    def by_hand(x, actions, c):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(c * log_prob(model, x, actions))
        return tape.gradient(loss, model.trainable_variables)

    return by_hand


def tape_jacobian(model):
    """TensorFlow's own function for a gradient per sample."""

    def by_hand(x, actions, c):
        with tf.GradientTape() as tape:
            values = log_prob(model, x, actions)
        return tape.jacobian(values, model.trainable_variables)

    return by_hand


def writing(model, batch):
    """N·P floats, made by a compiled program of the same runtime, and so in memory that it has to ask for."""

    def write(x, actions, c):
        return [tf.fill([batch, *variable.shape], c[0]) for variable in model.trainable_variables]

    return write


def build(task: Task):
    x, actions, weights = task.numbers()
    model = network(task.net, weights)
    batch = len(x)
    c = np.random.default_rng(2).standard_normal(batch).astype(np.float32)
    arguments = tuple(map(tf.constant, (x, actions, c)))

    def collect(result):
        result = list(result.values()) if isinstance(result, dict) else result
        result = list(result) if isinstance(result, tuple) else result
        return [np.asarray(part) for part in result] if isinstance(result, list) else np.asarray(result)

    def concrete(body, jit_compile, rows=batch):
        """The fastest way to call a compiled function over and over: its concrete function."""
        specs = [tf.TensorSpec([rows, *argument.shape[1:]], argument.dtype) for argument in arguments]
        function = function_of(body, jit_compile).get_concrete_function(*specs)
        return lambda: function(*arguments)

    xla = task.system.endswith("XLA")
    if task.system == "write":
        memory = np.empty((batch, sum(w.size for w in weights)), np.float32)
        run = lambda: memory.fill(1.0)  # noqa: E731
    elif task.system == "write anew":
        run = concrete(writing(model, batch), True)
    elif task.system == "nothing":
        run = concrete(lambda x, actions, c: c[:1], True)
    elif task.system == "rlgrad":
        run = concrete(rlgrad_call(model, task), True)
    elif task.system == "rlgrad tf.function":
        function = function_of(rlgrad_call(model, task), True)
        run = lambda: function(*arguments)  # noqa: E731
    elif task.system == "rlgrad eager":
        run = eager(model, task, arguments)
    elif task.system == "concrete":
        run = concrete(rlgrad_call(model, task), None, rows=None)
    elif task.system.startswith("by hand"):
        run = concrete(primitive_by_hand.WORKS[task.work](model)[1], xla or None)
    elif task.system.startswith("tape.jacobian"):
        run = concrete(tape_jacobian(model), xla or None)
    else:
        run = concrete(surrogate(model), xla or None)
    return run, collect


serve(build)
