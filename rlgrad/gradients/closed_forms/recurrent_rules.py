"""The closed forms of the cells of unrolled recurrent layers: each time step is one more position of two dense layers.

A cell acts on its variables through products with x_t and h_t−1 alone. It is written out here so that these products can be
seen; the numbers are those of Keras's own `call`, which a contract test compares.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from rlgrad.gradients.closed_forms.factors import Direct, Factor
from rlgrad.gradients.closed_forms.outer_products import OuterProduct
from rlgrad.gradients.closed_forms.rules import LayerCall, LayerRun, RegisteredRule

layers, ops = keras.layers, keras.ops

Watch = Callable[[Any], None]


def run_simple(layer: Any, call: Any, watch: Watch, x: Any, states: Any, training: Any = False) -> LayerRun:
    """h_t = φ(z), z = x_t W + β + h_t−1 U."""
    _require_no_dropout(layer, training)
    h = _first(states)
    z = _affine(x, layer.kernel, layer.bias) + ops.matmul(h, layer.recurrent_kernel)
    watch(z)
    out = z if layer.activation is None else layer.activation(z)
    return LayerRun((x, h), z, (out,), lambda h: (h, [h] if keras.tree.is_nested(states) else h))


def run_lstm(layer: Any, call: Any, watch: Watch, x: Any, states: Any, training: Any = False) -> LayerRun:
    """Gates i, f, c̃, o = x_t W + h_t−1 U + β; c_t = σ(f) ∘ c_t−1 + σ(i) ∘ φ(c̃), h_t = σ(o) ∘ φ(c_t)."""
    _require_no_dropout(layer, training)
    h, carry = states
    z = ops.matmul(x, layer.kernel) + ops.matmul(h, layer.recurrent_kernel)
    z = z if layer.bias is None else ops.add(z, layer.bias)
    watch(z)
    i, f, candidate, o = ops.split(z, 4, axis=1)
    gate = layer.recurrent_activation
    carry = gate(f) * carry + gate(i) * layer.activation(candidate)
    return LayerRun((x, h), z, (gate(o) * layer.activation(carry), carry), lambda h, carry: (h, [h, carry]))


def run_gru(layer: Any, call: Any, watch: Watch, x: Any, states: Any, training: Any = False) -> LayerRun:
    """Gates z and r; h_t = z ∘ h_t−1 + (1 − z) ∘ φ(x̃ + h̃), with r before or after the product that makes h̃."""
    _require_no_dropout(layer, training)
    h = _first(states)
    bias = _biases(layer)
    from_x = _affine(x, layer.kernel, bias[0])
    watch(from_x)
    x_z, x_r, x_h = ops.split(from_x, 3, axis=-1)
    gate, units = layer.recurrent_activation, layer.units
    if layer.reset_after:
        from_h = _affine(h, layer.recurrent_kernel, bias[1])
        watch(from_h)
        h_z, h_r, h_h = ops.split(from_h, 3, axis=-1)
        z, r = gate(x_z + h_z), gate(x_r + h_r)
        inputs: tuple[Any, ...] = (x, h)
        watched: tuple[Any, ...] = (from_x, from_h)
        moved = r * h_h
    else:
        from_h = ops.matmul(h, layer.recurrent_kernel[:, : 2 * units])
        watch(from_h)
        h_z, h_r = ops.split(from_h, 2, axis=-1)
        z, r = gate(x_z + h_z), gate(x_r + h_r)
        moved = ops.matmul(r * h, layer.recurrent_kernel[:, 2 * units :])
        watch(moved)
        inputs, watched = (x, h, r * h), (from_x, from_h, moved)
    out = z * h + (1 - z) * layer.activation(x_h + moved)
    return LayerRun(inputs, watched, (out,), lambda h: (h, [h] if keras.tree.is_nested(states) else h))


def one_product(call: LayerCall) -> dict[str, Factor]:
    """x_t bᵀ, h_t−1 bᵀ and b, where both products and the bias add up to one z."""
    (x, h), b = call.inputs, call.cotangent
    found: dict[str, Factor] = {"kernel": _outer(x, b), "recurrent_kernel": _outer(h, b)}
    return found | ({"bias": Direct(b)} if "bias" in call.values else {})


def gru(call: LayerCall) -> dict[str, Factor]:
    """As `one_product`, with b of its own for each product: the reset gate r lies between them."""
    x, h = call.inputs[:2]
    b_x, b_h = call.cotangent[:2]
    found: dict[str, Factor] = {"kernel": _outer(x, b_x)}
    if call.layer.reset_after:
        found["recurrent_kernel"] = _outer(h, b_h)
        bias = Direct(tf.stack([b_x, b_h], axis=1))
    else:
        # Each gate is a group: z and r see h, the candidate sees r ∘ h.
        units = call.layer.units
        left = tf.stack([h, h, call.inputs[2]], axis=1)
        right = tf.reshape(tf.concat([b_h, call.cotangent[2]], axis=-1), [-1, 3, units])
        found["recurrent_kernel"] = OuterProduct(left[:, None], right[:, None], (units, 3 * units))
        bias = Direct(b_x)
    return found | ({"bias": bias} if "bias" in call.values else {})


def _outer(a: Any, b: Any) -> OuterProduct:
    """One position, a bᵀ."""
    return OuterProduct(a[:, None, None], b[:, None, None], (a.shape[-1], b.shape[-1]))


def _affine(x: Any, kernel: Any, bias: Any) -> Any:
    product = ops.matmul(x, kernel)
    return product if bias is None else ops.add(product, bias)


def _biases(layer: Any) -> tuple[Any, Any]:
    """Of the product with x, and of that with h."""
    if layer.bias is None or not layer.reset_after:
        return layer.bias, None
    return layer.bias[0], layer.bias[1]


def _require_no_dropout(layer: Any, training: Any) -> None:
    if training and (layer.dropout or layer.recurrent_dropout):
        raise NotImplementedError("it is called with training=True and drops out some of its input or state")


def _first(states: Any) -> Any:
    return states[0] if keras.tree.is_nested(states) else states


_ATTRIBUTES = ("kernel", "recurrent_kernel", "bias")
RULES: dict[type, RegisteredRule] = {
    layers.SimpleRNNCell: RegisteredRule(one_product, _ATTRIBUTES, run_simple),
    layers.LSTMCell: RegisteredRule(one_product, _ATTRIBUTES, run_lstm),
    layers.GRUCell: RegisteredRule(gru, _ATTRIBUTES, run_gru),
}
