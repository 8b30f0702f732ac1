"""Wrappers that a config names: `"FrameStackObservation(stack_size=4)"`, `"module:Wrapper"`."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import gymnasium

from rlgrad.core import registry
from rlgrad.core.checks import close_names

Wrap = Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]]


def wrapper(text: str) -> Wrap:
    """Return the function that wraps an environment as a text describes.

    Args:
        text: a name of `gymnasium.wrappers`, or `module:Name`, alone or with keyword arguments that are literals:
            `"FrameStackObservation(stack_size=4)"`.

    Raises:
        ValueError: the text has another form, or names nothing; suggests what was meant.
    """
    module, name, options = registry.parse_call(text, "wrappers", "FrameStackObservation(stack_size=4)")
    home = _imported(module, text) if module else gymnasium.wrappers
    found = getattr(home, name, None)
    if found is None:
        known = [n for n, thing in vars(home).items() if isinstance(thing, type)]
        raise ValueError(f"wrappers: {home.__name__} has no {name!r}. {close_names(name, known)}")
    if not (isinstance(found, type) and issubclass(found, gymnasium.Wrapper)):
        raise ValueError(f"wrappers: {text!r} names no subclass of gymnasium.Wrapper.")

    def wrap(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
        try:
            wrapped: gymnasium.Env[Any, Any] = found(env, **options)
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            raise ImportError(f"wrappers: {text!r} needs a package that is not installed: {error}") from error
        except (TypeError, ValueError, AssertionError) as error:
            raise ValueError(f"wrappers: {text!r} cannot wrap {env}: {error}") from error
        return wrapped

    return wrap


def wrap_all(texts: Sequence[str]) -> Wrap:
    """Return a function that applies wrappers one after another, the first one innermost."""
    wraps = [wrapper(text) for text in texts]

    def wrap(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
        for each in wraps:
            env = each(env)
        return env

    return wrap


def _imported(module: str, text: str) -> ModuleType:
    try:
        return registry.import_named(module, text)
    except ValueError as error:
        raise ValueError(f"wrappers: {error}") from error
