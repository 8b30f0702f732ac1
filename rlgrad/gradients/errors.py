"""The one exception of this package that callers may want to catch by name."""


class DisconnectedGradientError(ValueError):
    """The chosen output does not depend on something it was to be differentiated with respect to.

    TensorFlow answers such a question with `None`, other libraries with zeros. Here it is an error, and its message
    lists what is not connected and what is.
    """
