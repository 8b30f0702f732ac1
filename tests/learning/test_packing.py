"""Many arrays as one vector of words, and back."""

import numpy as np
import pytest
import tensorflow as tf

from rlgrad.learning.packing import WordPacking

TREE = {
    "reals": np.array([[1.5, -0.0], [np.nan, np.inf]], np.float32),
    "wide": np.array([1e300, -np.pi]),
    "integers": np.array([-1, 2**31 - 1], np.int32),
    "large": np.array([[2**40 + 3], [-5]], np.int64),
    "flags": np.array([True, False, True]),
    "bytes": np.arange(5, dtype=np.uint8),
    "scalar": np.float32(0.25),
    "nothing": np.zeros((0, 3), np.float32),
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
}


def test_what_is_packed_comes_out_bit_by_bit():
    packing = WordPacking(TREE)
    packed = packing.pack(TREE)
    # 4 + 2 · 2 + 2 + 2 · 2 + 3 + 1 + 0 + 6 words of 32 bits; bytes cross by themselves.
    assert [(x.dtype.name, tuple(x.shape)) for x in packed] == [("int32", (24,)), ("uint8", (5,))]
    out = tf.function(lambda *tensors: packing.unpack(*tensors), autograph=False)(*packed)
    assert list(out) == list(TREE)
    for name, expected in TREE.items():
        assert out[name].dtype.as_numpy_dtype == np.asarray(expected).dtype, name
        assert out[name].numpy().tobytes() == np.ascontiguousarray(expected).tobytes(), name
        assert tuple(out[name].shape) == np.shape(expected), name


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (np.zeros(3, np.float32), r"compiled for arrays float32 \(2,\), and got float32 \(3,\)"),
        (np.zeros(2, np.float64), r"compiled for arrays float32 \(2,\), and got float64 \(2,\)"),
    ],
)
def test_another_shape_or_dtype_is_refused(other, message):
    packing = WordPacking([np.zeros(1, np.float32), np.zeros(2, np.float32)])
    with pytest.raises(ValueError, match=message):
        packing.pack([np.zeros(1, np.float32), other])
