"""TensorBoard's events as bytes.

An event is a protocol buffer (tensorflow/core/util/event.proto). The few fields that a run needs are encoded here, which is
faster than TensorBoard's own classes, and saves the import of its package.
"""

import struct
from collections.abc import Mapping, Sequence

FLOAT, DOUBLE, STRING = 1, 2, 7  # TensorFlow's DataType

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # how a field is encoded, in the low bits of its key
_STEP = 2  # number of an event's field


def event(wall_time: float, step: int, *content: bytes) -> bytes:
    """Encode an Event.

    Args:
        wall_time: seconds since 1970.
        step: environment steps.
        content: one of `version`, `start` and `summary`.
    """
    return b"".join([struct.pack("<Bd", 1 << 3 | _EIGHT_BYTES, wall_time), _number(_STEP, step), *content])


def version(name: str) -> bytes:
    """Encode the version of the format, which the first event of a file holds."""
    return _field(3, name.encode())


def start() -> bytes:
    """Encode a mark that tells a TensorBoard that is open to forget what it read of this step and later ones."""
    return _field(7, _number(1, 1))


def summary(*values: bytes) -> bytes:
    """Encode a Summary.

    Args:
        values: each from `value`, or a number between the two halves of `scalar`.
    """
    return _field(5, b"".join(values))


def value(tag: str, plugin: str, tensor: bytes) -> bytes:
    """Encode one Summary.Value.

    Args:
        tag: the name that it is shown under.
        plugin: what shows it, such as `"scalars"`.
        tensor: from `array` or `strings`.
    """
    metadata = _field(1, _field(1, plugin.encode()))
    return _field(1, _field(1, tag.encode()) + _field(8, tensor) + _field(9, metadata))


def hidden(tag: str, plugin: str, content: bytes) -> bytes:
    """Encode a Summary.Value that says something to a plugin, and shows no number.

    Args:
        tag: that the plugin looks for.
        plugin: its name.
        content: its data.
    """
    metadata = _field(1, _field(1, plugin.encode()) + _field(2, content))
    nothing = _number(1, FLOAT) + _field(2, b"") + _field(5, struct.pack("<f", 0.0))
    return _field(1, _field(1, tag.encode()) + _field(8, nothing) + _field(9, metadata))


def hparams_start(settings: Mapping[str, float | bool | str], group: str, begun: float) -> bytes:
    """Encode what the HParams plugin reads when a run begins (tensorboard/plugins/hparams/plugin_data.proto).

    Args:
        settings: of the run, by name.
        group: name of the runs that are repetitions of each other.
        begun: seconds since 1970.
    """
    entries = [_field(1, _field(1, name.encode()) + _field(2, _json_value(each))) for name, each in settings.items()]
    info = b"".join([*entries, _field(4, group.encode()), struct.pack("<Bd", 5 << 3 | _EIGHT_BYTES, begun)])
    return hidden("_hparams_/session_start_info", "hparams", _field(3, info))


def hparams_end(succeeded: bool, ended: float) -> bytes:
    """Encode what the HParams plugin reads when a run ends."""
    info = _number(1, 1 if succeeded else 2) + struct.pack("<Bd", 2 << 3 | _EIGHT_BYTES, ended)
    return hidden("_hparams_/session_end_info", "hparams", _field(4, info))


def _json_value(value: float | bool | str) -> bytes:
    """Encode a google.protobuf.Value."""
    if isinstance(value, bool):
        return _number(4, int(value))
    if isinstance(value, int | float):
        return struct.pack("<Bd", 2 << 3 | _EIGHT_BYTES, value)
    return _field(3, value.encode())


def scalar(tag: str) -> tuple[bytes, bytes]:
    """Encode a scalar's Summary.Value but for its number: the bytes before it and those after it.

    The number is a little-endian float32. Only its four bytes change from row to row.
    """
    number = struct.pack("<f", 0.0)
    whole = value(tag, "scalars", _number(1, FLOAT) + _field(5, number))
    before = whole.rindex(_field(5, number)) + 2
    return whole[:before], whole[before + len(number) :]


def array(kind: int, shape: Sequence[int], content: bytes) -> bytes:
    """Encode a TensorProto.

    Args:
        kind: `FLOAT` or `DOUBLE`.
        shape: of the tensor.
        content: its numbers, little-endian, the last axis fastest.
    """
    return _number(1, kind) + _shape(shape) + _field(4, content)


def strings(content: Sequence[bytes]) -> bytes:
    """Encode a TensorProto of strings, of shape (N,)."""
    return _number(1, STRING) + _shape([len(content)]) + b"".join(_field(8, each) for each in content)


def step_of(encoded: bytes) -> int:
    """Return the step of an encoded event.

    Raises:
        ValueError: these bytes are no event.
    """
    at = 0
    try:
        while at < len(encoded):
            key, at = _read(encoded, at)
            if key == _STEP << 3 | _VARINT:
                return _read(encoded, at)[0]
            at = _skip(encoded, at, key & 7)
    except IndexError as error:
        raise ValueError("the bytes end inside a field") from error
    return 0  # which protocol buffers leave out


def _shape(shape: Sequence[int]) -> bytes:
    return _field(2, b"".join(_field(2, _number(1, size)) for size in shape))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _varint(value: int) -> bytes:
    """Encode a whole number of at least 0: seven bits a byte, the lowest first; the high bit says that more follow."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read(encoded: bytes, at: int) -> tuple[int, int]:
    """Return the varint at a position, and the position after it."""
    value = shift = 0
    while True:
        byte = encoded[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _skip(encoded: bytes, at: int, wire: int) -> int:
    """Return the position after a field's content."""
    if wire == _VARINT:
        return _read(encoded, at)[1]
    if wire == _BYTES:
        length, at = _read(encoded, at)
        return at + length
    if wire in (_EIGHT_BYTES, _FOUR_BYTES):
        return at + (8 if wire == _EIGHT_BYTES else 4)
    raise ValueError(f"a field is encoded in a way, {wire}, that events have not")
