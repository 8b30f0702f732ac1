"""Models of which it is known without running them that they compute each row of a batch from that row alone."""

from typing import Any

import keras

from rlgrad.core.keras_internals import altered

# Layers that compute each row from itself, as long as their axis is the last one and their activations are Keras's.
_ROWWISE = {
    keras.layers.InputLayer,
    keras.layers.Dense,
    keras.layers.Embedding,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Permute,
    keras.layers.Rescaling,
    keras.layers.Identity,
    keras.layers.Add,
    keras.layers.Concatenate,
    keras.layers.LayerNormalization,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.SimpleRNN,
    keras.layers.LSTM,
    keras.layers.GRU,
}


def is_made_of_rowwise_layers(model: Any) -> bool:
    """Return True if a Sequential or functional model consists of Keras layers that never look across the batch axis."""
    if not _is_plain_model(model):
        return False
    if any(len(each.shape) < 2 and each.dtype.startswith("float") for each in keras.tree.flatten(model.inputs or [])):
        return False  # of a vector, a softmax goes over the batch
    return all(_is_rowwise(each) for each in (model.layers if type(model) is keras.Sequential else model.operations))


def _is_plain_model(model: Any) -> bool:
    """Return True for a Sequential or functional model that is not of a class of the user's."""
    kind = type(model)
    functional = kind.__name__ == "Functional" and kind.__module__.startswith("keras.")
    return (kind is keras.Sequential or functional) and "call" not in model.__dict__


def _is_rowwise(operation: Any) -> bool:
    if _is_plain_model(operation):
        return is_made_of_rowwise_layers(operation)
    if type(operation) not in _ROWWISE or altered(operation) is not None:
        return False
    axis = getattr(operation, "axis", -1)
    functions = [getattr(operation, name, None) for name in ("activation", "recurrent_activation")]
    return axis in (-1, [-1]) and all(f is None or getattr(f, "__module__", "").startswith("keras.") for f in functions)
