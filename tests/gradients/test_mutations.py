"""The usual mistakes, made on purpose: the checks of this suite must fail, each in the quantity that is named here.

What is patched is the implementation; the checks run as they stand.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import test_architectures
import test_dicts
from helpers import architectures
from helpers.slow import mostly_slow

from rlgrad.core import keras_internals
from rlgrad.gradients import dicts
from rlgrad.gradients.closed_forms import layer_rules, patches
from rlgrad.gradients.closed_forms.factors import Direct
from rlgrad.gradients.closed_forms.outer_products import OuterProduct
from rlgrad.gradients.programs import backward, factorization, taps
from rlgrad.gradients.questions.question import Question


def mean_instead_of_sum(patch):
    """Over the positions that share a weight."""
    written_out = OuterProduct._written_out
    patch.setattr(OuterProduct, "_written_out", lambda self: written_out(self) / self.positions)


def mean_over_the_samples(patch):
    weight_for = backward.weight_for
    patch.setattr(backward, "weight_for", lambda question, value: weight_for(question, value) / 4)


def scaled_by_n(patch):
    """As if the gradients were those of a mean over the batch, which is then undone."""
    weight_for = factorization.weight_for
    patch.setattr(factorization, "weight_for", lambda question, value: 4 * weight_for(question, value))


def bias_dropped(patch):
    bias = layer_rules._bias
    patch.setattr(layer_rules, "_bias", lambda call: {k: Direct(0 * f.values) for k, f in bias(call).items()})


def kernel_transposed(patch):
    to_variable = OuterProduct._to_variable
    patch.setattr(OuterProduct, "_to_variable", lambda self, g: to_variable(self, tf.transpose(g, [0, 3, 2, 1])))


def sum_over_time_forgotten(patch):
    """Only the first position counts."""
    positions = layer_rules._positions
    patch.setattr(layer_rules, "_positions", lambda x, groups: positions(x, groups)[:, :1])


def convolution_row_forgotten(row):
    def mutation(patch):
        cut = patches.patches

        def without(x, kernel, strides, dilation, padding):
            seen = cut(x, kernel, strides, dilation, padding)
            some = np.ones([1, seen.shape[1], *[1] * (seen.shape.rank - 2)])
            some[:, row] = 0
            return seen * tf.constant(some, seen.dtype)

        patch.setattr(layer_rules, "patches", without)

    mutation.__name__ = "last_convolution_row_forgotten" if row else "first_convolution_row_forgotten"
    return mutation


def padding_all_on_one_side(patch):
    """Where 'same' needs an odd number of zeros, TensorFlow puts the odd one after."""
    before_after = patches._padding
    patch.setattr(patches, "_padding", lambda *args: before_after(*args)[::-1])


@dataclass(frozen=True)
class NotJoined:
    """The calls of a shared layer, whose norms are added in place of their gradients."""

    parts: tuple[Any, ...]

    def __getattr__(self, name):
        return getattr(taps.written_out(self.parts), name)

    def squared_norm(self):
        return tf.add_n([part.squared_norm() for part in self.parts])


def norms_of_shared_calls_added(patch):
    patch.setattr(taps, "written_out", taps.total, raising=False)
    patch.setattr(taps, "total", lambda parts: parts[0] if len(parts) == 1 else NotJoined(tuple(parts)))


def activation_left_in(patch):
    patch.setattr(keras_internals, "split_activation", lambda layer: contextlib.nullcontext(None))


def batch_statistics(patch):
    """`training=True`."""
    patch.setattr(Question, "run_model", lambda self: self.model(self.leaves[0], training=True))


# mistake, what of the architecture matrix catches it, and in which quantity
MISTAKES = [
    (mean_instead_of_sum, "conv2d_same_stride_even", "per_sample"),
    (mean_over_the_samples, "dense_3d", "gradient"),
    (scaled_by_n, "dense_3d", "per_sample"),
    (bias_dropped, "dense_3d", "per_sample"),
    (kernel_transposed, "dense_wide_3d", "per_sample"),
    (sum_over_time_forgotten, "dense_3d", "per_sample"),
    (convolution_row_forgotten(0), "conv2d_same_stride_even", "per_sample"),
    (convolution_row_forgotten(-1), "conv2d_same_stride_even", "per_sample"),
    (padding_all_on_one_side, "conv2d_same_stride_even", "per_sample"),
    (norms_of_shared_calls_added, "shared_three_times", "norm"),
    (activation_left_in, "dense_3d", "per_sample"),
    (batch_statistics, "batch_norm_first", "gradient"),
]


@mostly_slow(
    "mistake, name, quantity",
    {mistake[0].__name__: mistake for mistake in MISTAKES},
    quick=["bias_dropped", "kernel_transposed", "padding_all_on_one_side"],
)
def test_the_architecture_matrix_notices(mistake, name, quantity, monkeypatch):
    assert name in architectures.FEW, "what catches it must be part of the ordinary run"
    mistake(monkeypatch)
    with pytest.raises(AssertionError, match=rf"\('{name}', '{quantity}'\)"):
        test_architectures.check(name, "float64", jit=False, quantities=[quantity])


def test_the_test_of_flatten_notices_sorted_keys(monkeypatch):
    monkeypatch.setattr(test_dicts, "flatten", lambda g: dicts.flatten(dict(sorted(g.items()))))
    with pytest.raises(AssertionError):
        test_dicts.test_flatten_follows_the_dicts_order_not_the_alphabet()
