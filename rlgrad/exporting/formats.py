"""Policies for other programs: a file that acts without rlgrad, in the formats that runtimes read.

| format | what reads it | what it is |
|---|---|---|
| `keras` | `keras.saving.load_model`, safe mode | one `.keras` file of built-in layers |
| `saved_model` | TensorFlow, TensorFlow Serving | a folder with the signature `serving_default` |
| `onnx` | ONNX Runtime and most others | one `.onnx` file; needs the extra `onnx` to be written |
| `litert` | LiteRT (TensorFlow Lite) | one `.tflite` file |

Inputs and outputs are the same in all of them; `rlgrad.exporting.standalone` names them.
"""

import logging
import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from rlgrad.core.checks import path_of
from rlgrad.core.keras_internals import all_layers
from rlgrad.exporting.standalone import standalone
from rlgrad.policies.policy import Policy

Format: TypeAlias = Literal["keras", "saved_model", "onnx", "litert"]
"""The formats of exported policies."""
SUFFIXES: dict[Format, str] = {"keras": ".keras", "saved_model": "", "onnx": ".onnx", "litert": ".tflite"}

_log = logging.getLogger("rlgrad")
_TOLERANCE = 1e-3


def export(policy: Policy, path: str | Path, format: Format | None = None) -> Path:
    """Write a policy, with its normalizer, so that other programs can act with it.

    Args:
        policy: at its current weights; it stays as it is.
        path: a file that does not exist yet; a folder for `saved_model`.
        format: `None`: by the ending of the path, `.keras`, `.onnx` or `.tflite`; a SavedModel for any other.

    Returns:
        The path.

    Raises:
        FileExistsError: the path exists.
        TypeError: it is no policy, or the path is none.
        ImportError: the format needs a package that is not installed; says which.
        ValueError: the path has not the ending of the format, or the format cannot hold this policy.

    Example:
        >>> rlgrad.export(run.policy, "cartpole.onnx")
    """
    if not isinstance(policy, Policy):
        raise TypeError(f"export takes a policy, such as run.policy; got {policy!r}.")
    return write(standalone(policy), path, format)


def write(model: keras.Model, path: str | Path, format: Format | None = None) -> Path:
    """Write a model from `standalone`. See `export`."""
    path = path_of(path, "path")
    by_suffix = (name for name, suffix in SUFFIXES.items() if suffix and suffix == path.suffix)
    format = format or next(by_suffix, "saved_model")
    if format not in SUFFIXES:
        raise ValueError(f"format is one of {', '.join(SUFFIXES)}, got {format!r}.")
    suffix = SUFFIXES[format]
    if path.suffix != suffix if suffix else path.suffix in set(SUFFIXES.values()) - {""}:
        raise ValueError(
            f"{path} does not end as {format} does: {suffix or 'with none of the others, being a folder'}."
        )
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists, and an export never writes over another. Choose a new name.")
    path.parent.mkdir(parents=True, exist_ok=True)
    {"keras": _keras, "saved_model": _saved_model, "onnx": _onnx, "litert": _litert}[format](model, path)
    return path


def signature(model: keras.Model) -> dict[str, dict[str, tuple[str, tuple[int, ...]]]]:
    """Return dtype and shape, without the batch axis, of a model's `inputs` and `outputs` by name."""
    sides = {"inputs": model.input, "outputs": model.output}
    return {side: {name: (str(x.dtype), tuple(x.shape[1:])) for name, x in xs.items()} for side, xs in sides.items()}


def _keras(model: keras.Model, path: Path) -> None:
    model.save(path)
    layers = all_layers(model)
    foreign = sorted({type(layer).__name__ for layer in layers if not type(layer).__module__.startswith("keras.")})
    if foreign:
        _log.warning("Loading %s needs the classes %s, as custom_objects.", path, ", ".join(foreign))
    if any(isinstance(layer, keras.layers.Lambda) for layer in layers):
        _log.warning("Loading %s needs safe_mode=False: it has a Lambda layer, which is code.", path)


def _saved_model(model: keras.Model, path: Path) -> None:
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]  # untracked variables are not saved
    tf.saved_model.save(module, str(path), signatures={"serving_default": _program(model)})


def _onnx(model: keras.Model, path: Path) -> None:
    try:
        import onnx
        import tf2onnx
    except ImportError as error:
        raise ImportError(f"Writing ONNX needs tf2onnx: pip install 'rlgrad[onnx]' ({error}).") from error
    specs = _specs(model)
    proto, _ = tf2onnx.convert.from_function(tf.function(model), input_signature=[specs])
    try:
        onnx.checker.check_model(proto)  # the converter leaves TensorFlow's own operations in, and only logs them
    except onnx.checker.ValidationError as error:
        raise ValueError(f"ONNX cannot hold this policy: {str(error).splitlines()[0]}") from error
    path.write_bytes(proto.SerializeToString())


def _litert(model: keras.Model, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _saved_model(model, Path(folder))
        try:
            content = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        except Exception as error:  # its class is private
            lacking = ", ".join(sorted(set(re.findall(r"tf\.[A-Z]\w+", str(error))))) or str(error).splitlines()[0]
            raise ValueError(f"LiteRT cannot hold this policy with its built-in operations: {lacking}.") from error
    _check_litert(content, model)
    path.write_bytes(content)


def _check_litert(content: bytes, model: keras.Model) -> None:
    """Run the converted model: the converter may report an operation that does not fit on stderr alone."""
    generator = np.random.default_rng(0)
    inputs = {
        name: generator.normal(size=(2, *x.shape[1:])).astype(x.dtype)
        if "float" in x.dtype
        else np.ones((2, *x.shape[1:]), x.dtype)
        for name, x in model.input.items()
    }
    expected = model(inputs, training=False)
    try:
        with warnings.catch_warnings():  # TensorFlow's own interpreter is deprecated
            warnings.simplefilter("ignore")
            outputs = tf.lite.Interpreter(model_content=content).get_signature_runner("serving_default")(**inputs)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"LiteRT cannot run this policy: {str(error).splitlines()[0]}") from error
    for name, value in outputs.items():
        if not np.allclose(value, expected[name], rtol=_TOLERANCE, atol=_TOLERANCE):
            raise ValueError(f"LiteRT cannot hold this policy: after conversion, its {name!r} differs.")


def _program(model: keras.Model) -> Any:
    return tf.function(lambda **named: model(named, training=False), autograph=False).get_concrete_function(
        **_specs(model)
    )


def _specs(model: keras.Model) -> dict[str, tf.TensorSpec]:
    return {name: tf.TensorSpec((None, *x.shape[1:]), x.dtype, name=name) for name, x in model.input.items()}
