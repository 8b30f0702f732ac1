"""Dicts of gradients as vectors: flattened, compared, and arranged by layer. These functions know no model."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf


def by_layer(g: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Arrange a dict of paths by layer: `{"first": {"kernel": …, "bias": …}, …}`.

    The last component of a path is the variable's name, the rest is the layer's. Components that all layers begin with
    (in a Sequential model the model's name) are left out, but each layer keeps at least its last one. Where two layers
    have the same path, the variables of the second end in `#2`, and it is called `dense#2`. A variable outside of all
    layers is under `""`.

    Args:
        g: a dict by path, as `gradient` returns it; with any values.

    Returns:
        The same values, in the same order.
    """
    split = {}
    for key in g:
        path, _, number = key.partition("#")
        *layer, variable = path.split("/")
        split[key] = (tuple(layer), variable, f"#{number}" if number else "")
    layers = [components for components, _, _ in split.values()]
    shared = 0
    while layers and all(len(c) > shared + 1 and c[shared] == layers[0][shared] for c in layers):
        shared += 1
    result: dict[str, dict[str, Any]] = {}
    for key, value in g.items():
        components, variable, number = split[key]
        result.setdefault("/".join(components[shared:]) + number, {})[variable] = value
    return result


def flatten(g: Mapping[str, Any], batch_axes: int = 0) -> Any:
    """Return all values as one vector, in the dict's order.

    Args:
        g: float (…, *variable.shape) by path.
        batch_axes: number of leading axes `…` to keep: 0 for `gradient`, 1 for `per_sample_gradient`.

    Returns:
        float (…, P), P being the number of weights.

    Raises:
        ValueError: the dict is empty; leading axes differ; a value has fewer axes than `batch_axes`.
    """
    if not g:
        raise ValueError("There is nothing to flatten: the dict is empty.")
    parts = []
    for key, value in g.items():
        tensor = tf.convert_to_tensor(value)
        if tensor.shape.rank < batch_axes:
            raise ValueError(f"{key!r} has shape {tensor.shape}, which has no {batch_axes} leading axes.")
        shape = tf.shape(tensor)
        size = tf.reduce_prod(shape[batch_axes:])  # not −1, which is ambiguous for an empty batch
        parts.append(tf.reshape(tensor, tf.concat([shape[:batch_axes], [size]], axis=0)))
    leading = parts[0].shape[:batch_axes]
    for key, part in zip(g, parts, strict=True):
        if not part.shape[:batch_axes].is_compatible_with(leading):
            raise ValueError(f"The leading axes of {key!r} are {part.shape[:batch_axes]}, those before it {leading}.")
    return tf.concat(parts, axis=-1)


def unflatten(vector: Any, like: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dict that `flatten` made this vector of.

    Args:
        vector: float (…, P).
        like: a dict whose keys, order and shapes (without leading axes) the result takes.

    Returns:
        For each key of `like` float (…, *like[key].shape).

    Raises:
        ValueError: P is not the number of weights in `like`.
    """
    vector = tf.convert_to_tensor(vector)
    shapes = {key: tf.TensorShape(value.shape) for key, value in like.items()}
    sizes = [shape.num_elements() for shape in shapes.values()]
    if vector.shape.rank == 0 or vector.shape[-1] not in (None, sum(sizes)):
        raise ValueError(f"The last axis must have {sum(sizes)} numbers, as `like` has; got shape {vector.shape}.")
    leading = tf.shape(vector)[:-1]
    parts = tf.split(vector, sizes, axis=-1)
    return {
        key: tf.reshape(part, tf.concat([leading, shape.as_list()], axis=0))
        for (key, shape), part in zip(shapes.items(), parts, strict=True)
    }


def dot(g: Mapping[str, Any], h: Mapping[str, Any]) -> Any:
    """Return Σ g · h over all weights, a scalar.

    Raises:
        ValueError: the dicts have different keys, or values of different shapes under one key.
    """
    if set(g) != set(h):
        raise ValueError(f"The dicts have different keys; only in one of them: {sorted(set(g) ^ set(h))}.")
    total = None
    for key in g:
        a, b = tf.convert_to_tensor(g[key]), tf.convert_to_tensor(h[key])
        if not a.shape.is_compatible_with(b.shape):
            raise ValueError(f"{key!r} has shape {a.shape} in one dict and {b.shape} in the other.")
        product = tf.reduce_sum(a * tf.cast(b, a.dtype))
        total = product if total is None else total + tf.cast(product, total.dtype)
    return tf.constant(0.0) if total is None else total


def norm(g: Mapping[str, Any], ord: float = 2) -> Any:
    """Return the p-norm over all weights together, a scalar: ‖g‖ = (Σ |g_j|^p)^(1/p).

    Args:
        g: float values by path.
        ord: p: 1, 2 or `math.inf` (the largest absolute value).

    Raises:
        ValueError: another `ord`.
    """
    vector = flatten(g)
    if ord == 1:
        return tf.reduce_sum(tf.abs(vector))
    if ord == 2:
        return tf.sqrt(tf.reduce_sum(tf.square(vector)))
    if ord == float("inf"):
        return tf.reduce_max(tf.abs(vector))
    raise ValueError(f"ord is 1, 2 or math.inf, got {ord!r}.")
