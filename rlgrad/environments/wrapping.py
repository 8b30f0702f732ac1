"""Wrappers that a config names: `"FrameStackObservation(stack_size=4)"`, `"module:Wrapper"`."""

import ast
import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import gymnasium

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
    module, _, call = text.rpartition(":") if ":" in text.partition("(")[0] else ("", "", text)
    name, options = _parsed(call, text)
    home = _imported(module, text) if module else gymnasium.wrappers
    found = getattr(home, name, None)
    if found is None:
        known = [n for n in dir(home) if isinstance(getattr(home, n), type)]
        raise ValueError(f"wrappers: {home.__name__} has no {name!r}. {close_names(name, known)}")

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
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"wrappers: {text!r} asks for the module {module!r}, which cannot be imported: {error}."
        ) from error


def _parsed(call: str, text: str) -> tuple[str, dict[str, Any]]:
    try:
        expression = ast.parse(call.strip(), mode="eval").body
        if isinstance(expression, ast.Name):
            return expression.id, {}
        if isinstance(expression, ast.Call) and isinstance(expression.func, ast.Name) and not expression.args:
            return expression.func.id, {str(k.arg): ast.literal_eval(k.value) for k in expression.keywords}
    except (SyntaxError, ValueError):
        pass
    raise ValueError(
        "wrappers: one is written as a name, or as a name with keyword arguments that are numbers, texts, lists or tuples, "
        f"such as 'FrameStackObservation(stack_size=4)'; got {text!r}."
    )
