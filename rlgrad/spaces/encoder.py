"""`Encoder`: all that rlgrad does with one kind of observation, in one class."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from gymnasium import Space

Array = np.ndarray[Any, Any]
Layout = tuple[tuple[int, ...], Any]


class Encoder:
    """How observations of one kind of space are stored, checked, prepared for a network and encoded by its first layers.

    An encoder serves the leaves of an observation space; Dict and Tuple are walked elsewhere. One instance serves one leaf.
    Subclass it, set `serves`, and override what differs:

    | method | maps | default |
    |---|---|---|
    | `layout` | the space to shape and dtype of a stored observation | those of the space, floats as float32 |
    | `to_array` | an observation to a stored one | `numpy.asarray` |
    | `range` | the space to the lowest and highest stored value, where training checks them | `None`: unchecked |
    | `prepare` | stored observations (N, *shape) to the input of a network | cast to float32 |
    | `encode` | that input, as a Keras tensor, to vectors (N, width) | flattened |

    Exported models run `prepare` and `encode` too, so write both with `keras.ops` and Keras layers. A model of the user's own
    takes the place of `encode` alone.

    Args:
        space: the leaf.

    Attributes:
        serves: the Gymnasium class whose instances this encoder takes, subclasses included.

    Example:
        >>> class Letters(rlgrad.spaces.Encoder):
        ...     serves = gymnasium.spaces.Text
        ...     def layout(self):
        ...         return (self.space.max_length,), np.int32
        ...     def to_array(self, text):
        ...         codes = [1 + self.space.character_index(letter) for letter in text]
        ...         return np.pad(codes, (0, self.space.max_length - len(codes))).astype(np.int32)
        ...     def prepare(self, x):
        ...         return keras.ops.cast(x, "int32")
        ...     def encode(self, x, seed, name):
        ...         letters = keras.layers.Embedding(1 + len(self.space.character_set), 8)(x)
        ...         return [keras.layers.Flatten()(letters)]
        >>> rlgrad.spaces.register_encoder(Letters)
    """

    serves: ClassVar[type[Space[Any]]]
    _look_up: ClassVar[Callable[[Any], Any]]  # set by the table of encoders, which stands on this file

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Drop what a base class said of a method that this one replaces."""
        super().__init_subclass__(**kwargs)
        for method, answer, fallback in _ANSWERS:
            if method in vars(cls) and answer not in vars(cls):
                setattr(cls, answer, fallback)

    def __init__(self, space: Any) -> None:
        self.space = space

    def __reduce__(self) -> Any:
        """Pickle the space alone: another process, or a copy, looks the encoder up again."""
        # Its class may come from a file that was executed twice, and then cannot be pickled by its name.
        return type(self)._look_up, (self.space,)

    @property
    def place(self) -> str:
        """Module and name of the class. Two encoders of one place are the same, though a file may have been executed twice."""
        return f"{type(self).__module__}.{type(self).__qualname__}"

    def layout(self) -> Layout:
        """Return shape and dtype of one stored observation."""
        if self.space.shape is None or self.space.dtype is None:
            raise NotImplementedError(
                f"{type(self).__name__} needs a layout(): {self.space} has no shape or no dtype of its own."
            )
        return tuple(self.space.shape), _stored_dtype(self.space.dtype)

    def to_array(self, observation: Any) -> Array:
        """Return one observation of the space as an array of `layout`. NumPy only: environments call it at every step."""
        return np.asarray(observation)

    def range(self) -> tuple[Any, Any] | None:
        """Return the lowest and the highest stored value, or `None` if every value is possible."""
        return None

    def prepare(self, x: Any) -> Any:
        """Return stored observations (N, *shape) as a network takes them. With `keras.ops`."""
        import keras

        return keras.ops.cast(x, "float32")

    def encode(self, x: Any, seed: np.random.SeedSequence, name: str | None) -> list[Any]:
        """Return prepared observations as vectors (N, width), which the network concatenates.

        Args:
            x: a Keras tensor.
            seed: for initial weights (`rlgrad.random.integer_seed` makes an integer of it). Keras' own generator is seeded
                from it as well.
            name: of the leaf, for names of layers; `None` if it is the whole observation.
        """
        import keras

        return [keras.layers.Flatten()(x)]

    def normalizes(self) -> bool:
        """Return whether `normalize_observations` puts a `RunningNormalizer` behind `prepare`. Default: floats only."""
        return bool(np.issubdtype(self.layout()[1], np.floating))

    def numpy_prepare(self) -> Callable[[Array], Array] | None:
        """Return `prepare` for NumPy arrays, with which small policies act faster; `None`: there is none."""
        return as_float32

    def flattens(self) -> bool:
        """Return whether `encode` does nothing but flatten."""
        return True

    def is_deep(self) -> bool:
        """Return whether `encode` makes hidden layers unnecessary for an observation that is this leaf alone."""
        return False

    def prefers_gpu(self) -> bool:
        """Return whether a run that has a GPU should use it for the sake of `encode`."""
        return False

    @property
    def converts(self) -> bool:
        """True if observations have to go through `to_array` before they can be stored."""
        return type(self).to_array is not Encoder.to_array

    def input_spec(self) -> tuple[tuple[int, ...], str]:
        """Return shape, without the batch axis, and dtype of what `prepare` gives."""
        import keras

        shape, dtype = self.layout()
        x = self.prepare(keras.ops.zeros((1, *shape), np.dtype(dtype).name))
        return tuple(x.shape[1:]), keras.backend.standardize_dtype(x.dtype)


def as_float32(x: Array) -> Array:
    """Return an array as float32, itself if it is already."""
    return x.astype(np.float32, copy=False)


def _stored_dtype(dtype: Any) -> Any:
    return np.dtype(np.float32) if np.issubdtype(dtype, np.floating) else np.dtype(dtype)


_ANSWERS: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("prepare", "numpy_prepare", lambda self: None),
    ("encode", "flattens", lambda self: False),
    ("encode", "is_deep", lambda self: False),
    ("encode", "prefers_gpu", lambda self: False),
)
"""A method, what is said of it, and what is true of any other version of the method."""
