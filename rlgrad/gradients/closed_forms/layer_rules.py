"""The closed forms of Keras's own layers: a is what came in, b the cotangent of what came out before the activation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import keras
import tensorflow as tf

from rlgrad.gradients.closed_forms.factors import Direct, Factor
from rlgrad.gradients.closed_forms.lookups import Lookup
from rlgrad.gradients.closed_forms.outer_products import OuterProduct
from rlgrad.gradients.closed_forms.patches import known, patches
from rlgrad.gradients.closed_forms.rules import LayerCall, RegisteredRule

layers = keras.layers


def dense(call: LayerCall) -> dict[str, Factor]:
    """For z = a W + β: Σ_t a_t b_tᵀ and Σ_t b_t, t running over all axes between batch and features."""
    kernel = OuterProduct(_positions(call.inputs, 1), _positions(call.cotangent, 1), tuple(call.values["kernel"].shape))
    return {"kernel": kernel, **_bias(call)}


def convolution(call: LayerCall) -> dict[str, Factor]:
    """A dense layer on patches, one position per output pixel; groups of channels by themselves."""
    call, layer = _channels_last(call), call.layer
    seen = patches(call.inputs, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
    channels, groups = seen.shape[-1], layer.groups
    # (N, T, K, C) to (N, T, G, K·C/G), and b to (N, T, G, filters/G).
    seen = tf.reshape(seen, [-1, prod(known(seen.shape[1:-2])), seen.shape[-2], groups, channels // groups])
    if groups > 1:
        seen = tf.transpose(seen, [0, 1, 3, 2, 4])
    seen = tf.reshape(seen, [-1, seen.shape[1], groups, prod(layer.kernel_size) * channels // groups])
    kernel = OuterProduct(seen, _positions(call.cotangent, groups), tuple(call.values["kernel"].shape))
    return {"kernel": kernel, **_bias(call)}


def depthwise(call: LayerCall) -> dict[str, Factor]:
    """A grouped convolution with one group for each channel."""
    call = _channels_last(call)
    return {"kernel": _depthwise(call, call.cotangent, call.values["kernel"].shape), **_bias(call)}


def separable(call: LayerCall) -> dict[str, Factor]:
    """A depthwise convolution, then a dense layer on its channels."""
    call, layer = _channels_last(call), call.layer
    options = {"strides": layer.strides, "padding": layer.padding, "dilation_rate": layer.dilation_rate}
    between = keras.ops.depthwise_conv(
        call.inputs, call.values["depthwise_kernel"], data_format="channels_last", **options
    )
    pointwise = call.values["pointwise_kernel"]
    cotangent = tf.matmul(call.cotangent, tf.reshape(pointwise, pointwise.shape[-2:]), transpose_b=True)
    return {
        "depthwise_kernel": _depthwise(call, cotangent, call.values["depthwise_kernel"].shape),
        "pointwise_kernel": OuterProduct(_positions(between, 1), _positions(call.cotangent, 1), tuple(pointwise.shape)),
        **_bias(call),
    }


def transposed_convolution(call: LayerCall) -> dict[str, Factor]:
    """A convolution whose input and output have changed roles: the patches are of b."""
    call, layer = _channels_last(call), call.layer
    b, sizes = call.cotangent, known(call.inputs.shape[1:-1])
    if layer.padding == "valid":  # beyond the last patch lie output_padding, and gaps of strides longer than the kernel
        geometry = zip(sizes, layer.strides, layer.kernel_size, layer.dilation_rate, strict=True)
        b = b[(slice(None), *(slice(0, (n - 1) * s + (k - 1) * d + 1) for n, s, k, d in geometry))]
    seen = patches(b, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
    if known(seen.shape[1:-2]) != sizes:
        raise NotImplementedError(f"its output is not the transposed convolution of an input of size {sizes}")
    seen = tf.reshape(seen, [-1, prod(sizes), 1, prod(layer.kernel_size) * b.shape[-1]])
    kernel = OuterProduct(seen, _positions(call.inputs, 1), tuple(call.values["kernel"].shape))
    return {"kernel": kernel, **_bias(call)}


def embedding(call: LayerCall) -> dict[str, Factor]:
    """Row id_t of the table gets b_t. As for Keras, id −1 is the last row; a row that the table has not gets nothing."""
    ids, table = call.inputs, call.values["embeddings"]
    ids = tf.cast(ids, tf.int32) if ids.dtype not in (tf.int32, tf.int64) else ids
    ids = tf.where(ids < 0, ids + table.shape[0], ids)
    # A CPU refuses other ids when the model runs; a GPU and XLA go on, and TensorFlow's own gradient leaves them out.
    exists = (ids >= 0) & (ids < table.shape[0])
    cotangent = tf.where(exists[..., None], call.cotangent, tf.zeros_like(call.cotangent))
    ids = tf.where(exists, ids, tf.zeros_like(ids))
    count = _count(ids.shape[1:])
    ids = tf.reshape(ids, [-1, count] if count is not None else [tf.shape(ids)[0], tf.reduce_prod(tf.shape(ids)[1:])])
    right = tf.reshape(cotangent, [tf.shape(ids)[0], count or tf.shape(ids)[1], table.shape[1]])
    return {"embeddings": Lookup(ids, right, table.shape[0])}


def normalization(call: LayerCall) -> dict[str, Factor]:
    """For z = γ x̂ + β: Σ_t b_t ∘ x̂_t and Σ_t b_t; x̂ is what the layer computes with γ = 1 and β = 0."""
    scale = "scale" if isinstance(call.layer, layers.RMSNormalization) else "gamma"
    axes = call.layer.axis if isinstance(call.layer.axis, Sequence) else [call.layer.axis]
    found: dict[str, Factor] = {}
    if "beta" in call.values:
        found["beta"] = Direct(_sum_except(call.cotangent, axes))
    if scale in call.values:
        ones = {name: tf.zeros_like(v) if name == "beta" else tf.ones_like(v) for name, v in call.values.items()}
        normalized = tf.cast(call.rerun(ones), call.cotangent.dtype)
        found[scale] = Direct(_sum_except(call.cotangent * normalized, axes))
    return found


def prelu(call: LayerCall) -> dict[str, Factor]:
    """For z = max(x, 0) − α max(−x, 0): −max(−x, 0) b."""
    return {"alpha": Direct(_sum_to(-tf.nn.relu(-call.inputs) * call.cotangent, call.values["alpha"].shape))}


def einsum_dense(call: LayerCall) -> dict[str, Factor]:
    """A dense layer after its axes are put in order: positions, groups, inputs or outputs."""
    inputs, kernel, output = _labels(call.layer.equation, call.inputs.shape.rank, call.cotangent.shape.rank)
    if inputs[0] != output[0] or inputs[0] in kernel:
        raise NotImplementedError(f"the first axis is not the batch in {call.layer.equation!r}")
    summed = [axis for axis in kernel if axis not in output]
    made = [axis for axis in kernel if axis not in inputs]
    groups = [axis for axis in kernel if axis in inputs and axis in output]
    positions = [axis for axis in inputs[1:] if axis not in kernel]
    if sorted(inputs[1:]) != sorted(positions + groups + summed) or sorted(output[1:]) != sorted(
        positions + groups + made
    ):
        raise NotImplementedError(f"{call.layer.equation!r} sums an axis that the kernel has not")
    sizes = dict(zip(kernel, call.values["kernel"].shape, strict=True))
    ordered = summed + groups + made
    factor = OuterProduct(
        _ordered(call.inputs, inputs, positions, groups, summed),
        _ordered(call.cotangent, output, positions, groups, made),
        tuple(sizes[axis] for axis in ordered),
        tuple(ordered.index(axis) for axis in kernel),
    )
    found: dict[str, Factor] = {"kernel": factor}
    if "bias" in call.values:
        _require_bias_in_place(call.values["bias"].shape, call.cotangent.shape)
        found["bias"] = Direct(_sum_to(call.cotangent, call.values["bias"].shape))
    return found


def _labels(equation: str, input_rank: int, output_rank: int) -> tuple[str, str, str]:
    """The three terms of an einsum equation, an ellipsis replaced by capital letters."""
    left, output = equation.replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    if "..." in kernel or len({*inputs} - {"."}) != len(inputs.replace(".", "")):
        raise NotImplementedError(f"no closed form for {equation!r}")
    more = input_rank - len(inputs.replace(".", ""))
    letters = "ABCDEFGHIJ"[:more] if "..." in inputs else ""
    inputs, output = inputs.replace("...", letters), output.replace("...", letters)
    if len(inputs) != input_rank or len(output) != output_rank:
        raise NotImplementedError(f"no closed form for {equation!r}")
    return inputs, kernel, output


def _ordered(x: Any, labels: str, positions: list[str], groups: list[str], rest: list[str]) -> Any:
    """(N, …) to (N, T, G, ·)."""
    order = [0, *(labels.index(axis) for axis in [*positions, *groups, *rest])]
    sizes = {axis: x.shape[labels.index(axis)] for axis in labels[1:]}
    if order != list(range(len(order))):
        x = tf.transpose(x, order)
    last = [prod(sizes[axis] for axis in part) for part in (groups, rest)]
    count = _count([sizes[axis] for axis in positions])
    if count is None:
        return tf.reshape(x, [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1 : 1 + len(positions)]), *last])
    return tf.reshape(x, [-1, count, *last])


def _depthwise(call: LayerCall, cotangent: Any, shape: Any) -> Factor:
    """Kernel (…, C, multiplier): per channel, patches of that channel times what that channel became."""
    layer = call.layer
    seen = patches(call.inputs, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
    seen = tf.reshape(seen, [-1, prod(known(seen.shape[1:-2])), *seen.shape[-2:]])
    return OuterProduct(tf.transpose(seen, [0, 1, 3, 2]), _positions(cotangent, shape[-2]), tuple(shape))


def _bias(call: LayerCall) -> Mapping[str, Factor]:
    if "bias" not in call.values:
        return {}
    return {"bias": Direct(_sum_except(call.cotangent, [-1]))}


def _positions(x: Any, groups: int) -> Any:
    """(N, …, G·I) to (N, T, G, I)."""
    features = x.shape[-1] // groups
    count = _count(x.shape[1:-1])
    if count is not None:
        return tf.reshape(x, [-1, count, groups, features])
    return tf.reshape(x, [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:-1]), groups, features])


def _count(sizes: Any) -> int | None:
    """The product of sizes, where they are all known."""
    return None if any(size is None for size in sizes) else prod(sizes)


def _sum_except(x: Any, axes: Sequence[int]) -> Any:
    """Σ over all axes but the first and `axes`."""
    kept = {0, *(axis % x.shape.rank for axis in axes)}
    summed = [axis for axis in range(x.shape.rank) if axis not in kept]
    return tf.reduce_sum(x, axis=summed) if summed else x


def _sum_to(x: Any, shape: Any) -> Any:
    """(N, …) to (N, *shape), summed over what `shape` was broadcast along."""
    extra = x.shape.rank - 1 - len(shape)
    x = tf.reduce_sum(x, axis=list(range(1, 1 + extra))) if extra else x
    broadcast = [1 + k for k, size in enumerate(shape) if size == 1 and x.shape[1 + k] != 1]
    return tf.reduce_sum(x, axis=broadcast, keepdims=True) if broadcast else x


def _channels_last(call: LayerCall) -> LayerCall:
    """The call with the channels of its inputs and cotangent at the end, wherever the layer has them."""
    if call.layer.data_format == "channels_last":
        return call
    if "bias" in call.values:
        _require_bias_in_place((call.cotangent.shape[1], *[1] * (call.cotangent.shape.rank - 2)), call.cotangent.shape)
    inputs, cotangent = (tf.transpose(x, [0, *range(2, x.shape.rank), 1]) for x in (call.inputs, call.cotangent))
    return replace(call, inputs=inputs, cotangent=cotangent)


def _require_bias_in_place(bias: Any, z: Any) -> None:
    """Raise if Keras adds a bias along another axis than its own: it goes by size, and looks at the last axis first."""
    sizes = [(axis - len(bias), size) for axis, size in enumerate(bias) if size != 1]
    if len(sizes) == 1:
        axis, size = sizes[0]
        taken = next((k for k in (-1, 1 - z.rank) if z[k] == size), axis)
        if taken != axis:
            raise NotImplementedError("Keras adds its bias along another axis, which is as long as the bias's own")


RULES: dict[type, RegisteredRule] = {
    layers.Dense: RegisteredRule(dense, ("kernel", "bias")),
    layers.EinsumDense: RegisteredRule(einsum_dense, ("kernel", "bias")),
    layers.Embedding: RegisteredRule(embedding, ("embeddings",)),
    layers.PReLU: RegisteredRule(prelu, ("alpha",)),
    layers.Conv1D: RegisteredRule(convolution, ("kernel", "bias")),
    layers.Conv2D: RegisteredRule(convolution, ("kernel", "bias")),
    layers.Conv3D: RegisteredRule(convolution, ("kernel", "bias")),
    layers.DepthwiseConv1D: RegisteredRule(depthwise, ("kernel", "bias")),
    layers.DepthwiseConv2D: RegisteredRule(depthwise, ("kernel", "bias")),
    layers.SeparableConv1D: RegisteredRule(separable, ("depthwise_kernel", "pointwise_kernel", "bias")),
    layers.SeparableConv2D: RegisteredRule(separable, ("depthwise_kernel", "pointwise_kernel", "bias")),
    layers.Conv1DTranspose: RegisteredRule(transposed_convolution, ("kernel", "bias")),
    layers.Conv2DTranspose: RegisteredRule(transposed_convolution, ("kernel", "bias")),
    layers.Conv3DTranspose: RegisteredRule(transposed_convolution, ("kernel", "bias")),
    layers.LayerNormalization: RegisteredRule(normalization, ("gamma", "beta")),
    layers.GroupNormalization: RegisteredRule(normalization, ("gamma", "beta")),
    layers.BatchNormalization: RegisteredRule(normalization, ("gamma", "beta")),
    layers.RMSNormalization: RegisteredRule(normalization, ("scale",)),
}
