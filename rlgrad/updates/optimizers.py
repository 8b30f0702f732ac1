"""Keras's optimizers: by name, from what a file holds, and with schedules of their learning rate."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import keras

from rlgrad.core import keras_configs
from rlgrad.core.checks import close_names


def require_known(name: str) -> None:
    """Raise a ValueError for a name that Keras has no optimizer of."""
    names = [n.lower() for n in dir(keras.optimizers) if _is_optimizer_class(getattr(keras.optimizers, n))]
    if name.lower() not in names:
        raise ValueError(f"Keras has no optimizer {name!r}. {close_names(name.lower(), names)}")


def require_unscaled(optimizer: keras.optimizers.Optimizer) -> None:
    """Raise a ValueError for an optimizer that undoes the scale of a loss."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "A LossScaleOptimizer divides gradients by the factor that a loss was multiplied by, and here is no loss: give the "
            f"optimizer inside it, {type(optimizer.inner_optimizer).__name__}."
        )


def with_schedule(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an ascent with a schedule as its learning rate, put into the optimizer that they name.

    Raises:
        ValueError: the rate is another function, which no config.yaml holds, or the optimizer has a rate already.
    """
    rate, optimizer = given["learning_rate"], given["optimizer"]
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        raise ValueError(
            "learning_rate is a number, a schedule of keras.optimizers.schedules or None. A function is none of them, since "
            "config.yaml cannot hold it: give the function of progress as learning_rate_schedule, or use a subclass of "
            "keras.optimizers.schedules.LearningRateSchedule with a get_config."
        )
    if not isinstance(optimizer, str):
        raise ValueError("learning_rate belongs to the optimizer object: set it there, and here to None.")
    require_known(optimizer)
    config = named(optimizer, given["optimizer_options"] or {}).get_config() | {"learning_rate": rate}
    made = class_of(optimizer).from_config(config)
    return {**given, "optimizer": made, "optimizer_options": None, "learning_rate": None}


def named(name: str, options: Mapping[str, Any]) -> keras.optimizers.Optimizer:
    """Return the optimizer of this name with these arguments.

    Raises:
        ValueError: it has no such argument, or not such a value.
    """
    optimizer = keras.optimizers.get(name)
    config = optimizer.get_config()
    unknown = [key for key in options if key not in config or key in ("learning_rate", "name")]
    if unknown:
        own = ", ".join(sorted(config.keys() - {"learning_rate", "name"}))
        raise ValueError(
            f"optimizer_options has {', '.join(map(repr, unknown))}, which {name!r} does not take there. It takes: {own}; the "
            "step size is learning_rate."
        )
    for key, value in options.items():
        of_number = isinstance(config[key], float | int)
        if of_number and not (isinstance(value, float | int) and math.isfinite(value)):
            raise ValueError(
                f"optimizer_options: {key} of {name!r} is a number, such as {config[key]!r}; got {value!r}."
            )
    return type(optimizer).from_config(config | dict(options))


def class_of(optimizer: str | keras.optimizers.Optimizer) -> type[keras.optimizers.Optimizer]:
    """Return the class of an optimizer, or of the one of this name."""
    return _class_of_name(optimizer) if isinstance(optimizer, str) else type(optimizer)


@functools.cache
def _class_of_name(name: str) -> type[keras.optimizers.Optimizer]:
    return type(keras.optimizers.get(name))


def deserialized(config: Mapping[str, Any]) -> keras.optimizers.Optimizer:
    """Return the optimizer that Keras has serialized, as a run's config.yaml keeps it."""
    message = f"optimizer is no optimizer that Keras can make, got {dict(config)!r}."
    try:
        config = _with_modules(config)
        keras_configs.require_plain(config)
        optimizer = keras.optimizers.deserialize(dict(config))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(message) from error
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(message)
    return optimizer


def _with_modules(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config in which Keras's optimizers and schedules may stand as a person writes them, by their class's name."""
    whole = {name: _with_modules(value) if isinstance(value, Mapping) else value for name, value in config.items()}
    homes = ("optimizers", keras.optimizers), ("optimizers.schedules", keras.optimizers.schedules)
    found = next((f"keras.{home}" for home, module in homes if hasattr(module, str(whole.get("class_name")))), None)
    return {"module": found, **whole} if found else whole


def _is_optimizer_class(thing: Any) -> bool:
    base = keras.optimizers.Optimizer
    return isinstance(thing, type) and issubclass(thing, base) and thing is not base
