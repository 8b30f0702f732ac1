"""The types that stand for an environment where one is given."""

from collections.abc import Callable
from typing import Any, TypeAlias

import gymnasium
from gymnasium.experimental.functional import FuncEnv

EnvLike: TypeAlias = (
    str
    | gymnasium.Env[Any, Any]
    | gymnasium.vector.VectorEnv[Any, Any, Any]
    | FuncEnv[Any, Any, Any, Any, Any, Any, Any]
    | Callable[..., Any]
)
"""An environment as `rlgrad.train` takes it: an id, an instance, a vector environment, one in TensorFlow, or a function."""
