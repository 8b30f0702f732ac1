"""Functional environments: Gymnasium's `FuncEnv` in TensorFlow, in programs, and as an ordinary Gymnasium environment.

A functional environment can be stepped alone, side by side and inside compiled programs if it has:

- Class attributes: `observation_space`; `action_space`, a Box, Discrete, MultiDiscrete or MultiBinary; `max_episode_steps`, at
  which an episode is truncated (`None`: never); `reward_threshold`, the mean return that counts as solved (`None`: unknown).
  The constructor may set the spaces instead; its keyword arguments are those of `gymnasium.make`.
- Five pure functions of TensorFlow tensors, with any number of batch axes `…`. `rng` is int32 (…, 2), one seed for each
  environment; a function that needs several numbers splits it (`rlgrad.random`).

  | function | returns |
  |---|---|
  | `initial(rng)` | the state: a tensor, or a (named) tuple of tensors, each (…, its shape) |
  | `transition(state, action, rng)` | the next state: same structure, dtypes and shapes, so that a loop can carry it |
  | `observation(state, rng)` | (…, shape of the space), in the dtype of the space |
  | `reward(state, action, next_state, rng)` | float32 (…) |
  | `terminal(state, rng)` | bool (…): the task is over; a time limit does not end it |

- It can be watched if its class has a `render(state)`, which takes the state of one environment as NumPy arrays and returns a
  picture, uint8 (height, width, 3); `render_fps`, 30 unless it says so, is the number of pictures a second.
- An action is a value of the space, (…, its shape), not clipped to it. The next state of a terminal one means nothing.
- The functions run eagerly, in a graph and under XLA, with static shapes. The numbers of a row do not depend on other rows.
"""

import functools
import traceback
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.experimental.functional import FuncEnv

from rlgrad import random
from rlgrad.core.faults import EnvironmentFault
from rlgrad.spaces.trees import arrays, map_arrays, storage

AnyFuncEnv = FuncEnv[Any, Any, Any, Any, Any, Any, Any]


def begin_episodes(functional: AnyFuncEnv, rng: Any) -> tuple[Any, Any]:
    """Begin episodes.

    Args:
        functional: the environment.
        rng: int32 (…, 2).

    Returns:
        The states and their observations.

    Raises:
        ValueError: an observation does not have the shape or the kind of numbers of its space.
    """
    import tensorflow as tf

    first, second = tf.unstack(random.split(rng, 2), axis=-2)
    state = _call(functional, "initial", first)
    return state, _observed(functional, state, second)


def move(functional: AnyFuncEnv, state: Any, action: Any, rng: Any) -> tuple[Any, Any, Any, Any]:
    """Make one step, without reset and without time limit.

    Args:
        functional: the environment.
        state: with batch axes (…).
        action: the same.
        rng: int32 (…, 2).

    Returns:
        The next states, their observations, the rewards, and bool (…), True for terminal next states.

    Raises:
        ValueError: a function gives another shape or dtype than the table of this module has.
    """
    import tensorflow as tf

    first, second, third, fourth = tf.unstack(random.split(rng, 4), axis=-2)
    following = _call(functional, "transition", state, action, first)
    _require_same_state(functional, state, following)
    reward = _numbers(functional, "reward", _call(functional, "reward", state, action, following, second), "fiu", rng)
    terminal = _numbers(functional, "terminal", _call(functional, "terminal", following, fourth), "b", rng)
    return following, _observed(functional, following, third), reward, terminal


def _call(functional: AnyFuncEnv, name: str, *arguments: Any) -> Any:
    """Call a function of the environment. An exception of it gets the function's name, and keeps its own traceback."""
    try:
        return getattr(functional, name)(*arguments)
    except Exception as error:
        own = error.__traceback__.tb_next if error.__traceback__ else None  # without the frame that caught it
        text = next(iter(str(error).strip().splitlines()), "").rstrip(".")
        fault = EnvironmentFault(
            f"{_name(functional)}.{name} raised {type(error).__name__}: {text}. It takes any number of environments side by "
            "side: all its tensors have the axes of the seeds first (docs/compiled-environments.md)."
        )
        fault.trace = "".join(traceback.format_exception(type(error), error, own))
        raise fault from error


def _observed(functional: AnyFuncEnv, state: Any, rng: Any) -> Any:
    """Return the observation of a state. Its shapes and dtypes are checked while tracing, before anything runs."""
    observation, space = _call(functional, "observation", state, rng), functional.observation_space
    expected = storage(space, ())
    try:
        given = list(arrays(map_arrays(lambda _, x: x, expected, observation), "observation"))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{_name(functional)}.observation gives another structure than its space, {space}.") from error
    for (_, zeros), (name, x) in zip(arrays(expected, ""), given, strict=True):
        _require(functional, name, x, (*rng.shape[:-1], *zeros.shape), "fiub" if zeros.dtype.kind == "f" else "iub")
    return observation


def _numbers(functional: AnyFuncEnv, name: str, x: Any, kinds: str, rng: Any) -> Any:
    _require(functional, name, x, tuple(rng.shape[:-1]), kinds)
    return x


def _require(functional: AnyFuncEnv, name: str, x: Any, shape: tuple[Any, ...], kinds: str) -> None:
    import tensorflow as tf

    given = tf.convert_to_tensor(x)
    if not given.shape.is_compatible_with(shape) or given.dtype.as_numpy_dtype().dtype.kind not in kinds:
        expected = {"b": "bool", "fiu": "float32", "fiub": "numbers", "iub": "integers"}[kinds]
        raise ValueError(
            f"{_name(functional)}.{name.partition('[')[0]} gives a wrong {name}: expected {expected} {shape}, came "
            f"{given.dtype.name} {tuple(given.shape)}; the first axes are those of the seeds."
        )


def _require_same_state(functional: AnyFuncEnv, state: Any, following: Any) -> None:
    import tensorflow as tf

    def text(tree: Any) -> Any:
        return tf.nest.map_structure(lambda x: f"{tf.convert_to_tensor(x).dtype.name} {tuple(x.shape)}", tree)

    if text(state) != text(following):
        raise ValueError(
            f"{_name(functional)}.transition gives a state of another structure, shape or dtype than the one it was given: "
            f"expected {text(state)}, came {text(following)}."
        )


def _name(functional: AnyFuncEnv) -> str:
    return type(functional).__name__


def choose(flags: Any, yes: Any, no: Any) -> Any:
    """Choose each row from one tree of tensors (N, …) or from the other, by flags, bool (N,)."""
    import tensorflow as tf

    def pick(one: Any, other: Any) -> Any:
        return tf.where(tf.reshape(flags, (-1, *[1] * (one.shape.rank - 1))), one, other)

    return tf.nest.map_structure(pick, yes, no)


class FunctionalEnv(gymnasium.Env[Any, Any]):
    """A functional environment as an ordinary one, which keeps its state. A step is one XLA program.

    Args:
        functional: as this module describes it.
        render_mode: `"rgb_array"`, for one whose class has a `render`. `None`: it is not drawn.
    """

    def __init__(self, functional: AnyFuncEnv, render_mode: str | None = None) -> None:
        modes = ["rgb_array"] if hasattr(functional, "render") else []
        if render_mode is not None and render_mode not in modes:
            raise ValueError(f"render_mode of {_name(functional)} is one of {modes} or None, got {render_mode!r}.")
        self.functional, self.render_mode = functional, render_mode
        self.metadata = {"render_modes": modes, "render_fps": getattr(functional, "render_fps", 30)}
        self.observation_space, self.action_space = functional.observation_space, functional.action_space
        self._state: Any = None
        self._rng: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        begin, _ = _programs(self.functional)
        self._state, self._rng, observation = begin(draw_seeds(self.np_random, ()))
        return as_numpy(observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Make one transition."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("Call reset before the first step.")
        _, step = _programs(self.functional)
        action = as_action(self.action_space, action)
        self._state, self._rng, observation, reward, over = step(self._state, self._rng, action)
        return as_numpy(observation), float(reward), bool(over), False, {}

    def render(self) -> Any:
        """Return a picture of the current state, uint8 (height, width, 3). `None` without a `render_mode`."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("Call reset before the first picture.")
        functional: Any = self.functional
        return None if self.render_mode is None else functional.render(as_numpy(self._state))


@functools.lru_cache(maxsize=64)
def _programs(functional: AnyFuncEnv) -> tuple[Any, Any]:
    import tensorflow as tf

    def begin(rng: Any) -> Any:
        now, later = tf.unstack(random.split(rng, 2), axis=-2)
        state, observation = begin_episodes(functional, now)
        return state, later, observation

    def step(state: Any, rng: Any, action: Any) -> Any:
        now, later = tf.unstack(random.split(rng, 2), axis=-2)
        following, observation, reward, over = move(functional, state, action, now)
        return following, later, observation, reward, over

    rng = tf.TensorSpec((2,), tf.int32)
    begun, (state, *_) = compile_trees(begin, rng)
    stepped, _ = compile_trees(
        step, state, rng, tf.TensorSpec(functional.action_space.shape, functional.action_space.dtype)
    )
    return begun, stepped


def compile_trees(function: Callable[..., Any], *specs: Any) -> tuple[Callable[..., Any], Any]:
    """Compile a function of trees of tensors into one XLA program.

    Args:
        function: takes as many trees as there are `specs`.
        specs: trees of `tf.TensorSpec`.

    Returns:
        The compiled function, and the tree of `tf.TensorSpec` of its results.
    """
    import tensorflow as tf

    from rlgrad.core.tensorflow_internals import flat_call, trace

    returned = []

    def flat(tensors: list[Any]) -> list[Any]:
        results = function(*tf.nest.pack_sequence_as(specs, tensors))
        returned.append(tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), results))
        return list(tf.nest.flatten(results))

    run = flat_call(trace(flat, list(tf.nest.flatten(specs)), jit_compile=True))
    return lambda *trees: tf.nest.pack_sequence_as(returned[0], run(tf.nest.flatten(trees))), returned[0]


def draw_seeds(generator: np.random.Generator, batch: tuple[int, ...]) -> Any:
    """Draw seeds for functional environments, int32 (*batch, 2)."""
    return generator.integers(-(2**31), 2**31, size=(*batch, 2), dtype=np.int64).astype(np.int32)


def as_numpy(tree: Any) -> Any:
    """Return the tree with NumPy arrays in place of tensors."""
    import tensorflow as tf

    return tree.numpy() if tf.is_tensor(tree) else tf.nest.map_structure(lambda x: x.numpy(), tree)


def as_action(space: Any, action: Any) -> np.ndarray[Any, Any]:
    """Return the action in the dtype of its space.

    Raises:
        ValueError: another shape, or a choice that the space does not have. What numbers outside of a Box mean is left to the
            environment.
    """
    values = np.asarray(action)
    inside = values.shape == space.shape if isinstance(space, spaces.Box) else space.contains(values)
    if not inside:
        raise ValueError(f"An action is a value of {space}, got {action!r}.")
    return values.astype(space.dtype, copy=False)


def functional_of(cls: Any, kwargs: dict[str, Any]) -> AnyFuncEnv:
    """Return the functional environment with these arguments, the same one each time, since each is compiled by itself."""
    try:
        functional: AnyFuncEnv = _shared(cls, **kwargs)
    except (
        TypeError
    ):  # an argument that cannot be hashed; or one that the environment does not take, which raises again here
        functional = cls(**kwargs)
    return functional


@functools.lru_cache(maxsize=64)
def _shared(cls: type[AnyFuncEnv], **kwargs: Any) -> AnyFuncEnv:
    return cls(**kwargs)
