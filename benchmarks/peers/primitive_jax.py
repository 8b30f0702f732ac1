"""JAX at the work of benchmarks/primitive.py, which starts this and tells it what to do."""

import jax
import jax.numpy as jnp
import numpy as np
from primitive_common import NETS, Task, serve


def logits_of(net, weights, x):
    """The network on a batch of inputs, channels last."""
    _, layers, activation = NETS[net]
    act = jnp.tanh if activation == "tanh" else jax.nn.relu
    y = x
    for i, (kind, *rest) in enumerate(layers):
        kernel, bias = weights[2 * i], weights[2 * i + 1]
        if kind == "conv":
            stride = (rest[2], rest[2])
            y = jax.lax.conv_general_dilated(y, kernel, stride, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            y = y + bias
        else:
            y = y.reshape(len(y), -1) @ kernel + bias
        if i < len(layers) - 1:
            y = act(y)
    return y


def build(task: Task):
    x, actions, weights = task.numbers()
    x, actions, weights = jnp.asarray(x), jnp.asarray(actions), [jnp.asarray(w) for w in weights]

    def log_prob(weights, one, action):
        return jax.nn.log_softmax(logits_of(task.net, weights, one[None])[0])[action]

    per_sample = jax.vmap(jax.grad(log_prob), (None, 0, 0))

    def norms(rows):
        return jnp.sqrt(sum(jnp.sum(row**2, axis=range(1, row.ndim)) for row in rows))

    def gram(rows):
        flat = [row.reshape(len(row), -1) for row in rows]
        return sum(row @ row.T for row in flat)

    reduce = {"per-sample gradients": lambda rows: rows, "norms": norms, "Gram": gram}[task.work]
    if task.system == "JAX written out":
        first, second = jax.jit(per_sample), jax.jit(reduce)

        def function(*arguments):
            return second(first(*arguments))
    else:
        function = jax.jit(lambda *arguments: reduce(per_sample(*arguments)))

    def collect(result):
        return [np.asarray(row) for row in result] if isinstance(result, list) else np.asarray(result)

    return lambda: jax.block_until_ready(function(weights, x, actions)), collect


serve(build)
