"""Functions of rlgrad.gradients, each beside what one writes without it: the nearest thing that plain TensorFlow has.

Each entry of `WORKS` makes two functions of a model, which take inputs (N, …), actions (N,) and weights (N,) of the samples and
return the same: a list of arrays, or one.
"""

import numpy as np
import tensorflow as tf

from rlgrad import gradients
from rlgrad.gradients import LogProb

LONGEST = 1.0  # norm that gradients are clipped to


def log_prob(model, x, actions):
    """By hand, as in a script without rlgrad."""
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(actions, model(x, training=False))


def cross_entropy(y, target):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(target, y)


def direction(model):
    """A tensor for each weight."""
    rng = np.random.default_rng(3)
    return [tf.constant(rng.standard_normal(variable.shape), tf.float32) for variable in model.trainable_variables]


def by_path(model, tensors):
    return dict(zip([variable.path for variable in model.trainable_variables], tensors, strict=True))


def clipped_gradient(model):
    variables = model.trainable_variables

    def ours(x, actions, c):
        return gradients.clipped_gradient(model, x, max_norm=LONGEST, output=LogProb(actions), sample_weight=c)

    def of_one(row):
        x, action, c = row
        with tf.GradientTape() as tape:
            f = c * log_prob(model, x[None], action[None])[0]
        return tape.gradient(f, variables)

    def by_hand(x, actions, c):
        each = tf.vectorized_map(of_one, (x, actions, c))
        squares = [tf.reduce_sum(g**2, axis=range(1, g.shape.rank)) for g in each]
        scale = tf.minimum(1.0, LONGEST / tf.sqrt(tf.add_n(squares)))
        return [tf.tensordot(scale, g, 1) for g in each]

    return ours, by_hand


def hessian_vector_product(model):
    variables, v = model.trainable_variables, direction(model)
    named = by_path(model, v)

    def ours(x, actions, c):
        return gradients.hessian_vector_product(model, x, named, output=LogProb(actions), sample_weight=c)

    def by_hand(x, actions, c):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                f = tf.reduce_sum(c * log_prob(model, x, actions))
            g = inner.gradient(f, variables)
        products = outer.gradient(g, variables, output_gradients=v, unconnected_gradients="zero")
        return list(map(tf.convert_to_tensor, products))

    return ours, by_hand


def gauss_newton_vector_product(model):
    variables, v = [variable.value for variable in model.trainable_variables], direction(model)
    named = by_path(model, v)

    def ours(x, actions, c):
        return gradients.gauss_newton_vector_product(
            model, x, named, loss=cross_entropy, target=actions, sample_weight=c
        )

    def by_hand(x, actions, c):
        with tf.autodiff.ForwardAccumulator(variables, v) as forward, tf.GradientTape() as tape:
            y = model(x, training=False)
        moved, logits = forward.jvp(y), tf.stop_gradient(y)
        with tf.GradientTape() as outer:
            outer.watch(logits)
            with tf.GradientTape() as inner:
                inner.watch(logits)
                losses = cross_entropy(logits, actions)
            slopes = inner.gradient(losses, logits, output_gradients=c)
        bent = outer.gradient(slopes, logits, output_gradients=moved)
        return tape.gradient(y, variables, output_gradients=bent)

    return ours, by_hand


def input_jacobian(model):
    def by_hand(x, actions, c):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=False)
        return tape.batch_jacobian(y, x)

    return lambda x, actions, c: gradients.input_jacobian(model, x), by_hand


def input_jvp(model):
    def by_hand(x, actions, c):
        with tf.autodiff.ForwardAccumulator(x, x) as forward:
            y = model(x, training=False)
        return forward.jvp(y)

    return lambda x, actions, c: gradients.input_jvp(model, x, x), by_hand


def activation_gradient(model):
    first, *rest = model.layers

    def ours(x, actions, c):
        return gradients.activation_gradient(model, x, at=first, output=LogProb(actions), sample_weight=c)

    def by_hand(x, actions, c):
        hidden = y = first(x)
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            for layer in rest:
                y = layer(y)
            f = c * -tf.nn.sparse_softmax_cross_entropy_with_logits(actions, y)
        return [hidden, tape.gradient(f, hidden)]

    return ours, by_hand


def jacobian_gram(model):
    variables = model.trainable_variables

    def by_hand(x, actions, c):
        with tf.GradientTape() as tape:
            y = model(x, training=False)
        rows = tf.size(y)
        flat = [tf.reshape(part, [rows, -1]) for part in tape.jacobian(y, variables)]
        return tf.add_n([tf.matmul(part, part, transpose_b=True) for part in flat])

    return lambda x, actions, c: gradients.jacobian_gram(model, x), by_hand


WORKS = {
    "clipped gradient": clipped_gradient,
    "Hessian product": hessian_vector_product,
    "Gauss-Newton product": gauss_newton_vector_product,
    "input Jacobian": input_jacobian,
    "input jvp": input_jvp,
    "activation gradient": activation_gradient,
    "Jacobian Gram": jacobian_gram,
}
