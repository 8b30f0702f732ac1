"""An environment that draws itself, in a process of its own.

Without a GPU, MuJoCo draws by Mesa, and Mesa's copy of LLVM and TensorFlow's crash each other in one process. So nothing here
imports TensorFlow, and the process that draws is a fresh interpreter.
"""

import contextlib
import ctypes.util
import inspect
import multiprocessing
import os
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.experimental.functional import FuncEnv

from rlgrad.core import registry
from rlgrad.environments.guarding import reach
from rlgrad.environments.ids import explain_missing, find_functional, find_spec, load_class, make_stepwise
from rlgrad.environments.wrapping import wrap_all

Picture = np.ndarray[Any, Any]
_MUJOCO_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
_OURS: dict[str, type[Exception]] = {"ValueError": ValueError, "ImportError": ImportError}
RATE = 30.0  # pictures a second, for an environment that has no rate of its own


class DrawnEnv:
    """One environment, with `reset`, `step`, `render` and `close` as `gymnasium.Env` has them.

    Args:
        env: an id, `module:id`, or `file.py:Name`.
        render_mode: `"rgb_array"`, or `"human"` for a window.
        env_kwargs: for its constructor.
        wrappers: around it, the first one innermost.
        max_episode_steps: a time limit, instead of the environment's.

    Attributes:
        name: `env`.
        rate: pictures a second, as the environment asks for.

    Raises:
        ValueError: it cannot draw itself, or cannot be made; names what is missing.
    """

    def __init__(
        self,
        env: str,
        render_mode: str,
        *,
        env_kwargs: Mapping[str, Any],
        wrappers: Sequence[str],
        max_episode_steps: int | None,
    ) -> None:
        self.name = env
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _without_script():
            self._process.start()
        theirs.close()
        try:
            self.rate = self._ask(
                "make", registered(env), env, render_mode, dict(env_kwargs), tuple(wrappers), max_episode_steps
            )
        except BaseException:
            self.close()
            raise

    def reset(self, *, seed: int) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        begun: tuple[Any, dict[str, Any]] = self._ask("reset", seed)
        return begun

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Make one transition."""
        stepped: tuple[Any, float, bool, bool, dict[str, Any]] = self._ask("step", action)
        return stepped

    def render(self) -> Picture:
        """Return a picture of the current state, uint8 (height, width, 3).

        Raises:
            ValueError: it could not be drawn; has the reason.
        """
        picture: Picture = self._ask("render")
        return picture

    def call(self, name: str, arguments: list[Any], options: dict[str, Any], sets: bool) -> None:
        """Call a method of the environment, or set an attribute.

        Raises:
            ValueError: it has none of that name, or the method raised.
        """
        self._ask("call", name, arguments, options, sets)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()  # which ends the loop of `_serve`
        self._process.join(timeout=5.0)
        if self._process.is_alive():
            self._process.kill()

    def _ask(self, what: str, *arguments: Any) -> Any:
        try:
            self._pipe.send((what, arguments))
            kind, reply = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join(timeout=5.0)
            raise ValueError(
                f"The process that draws {self.name} died with exit code {self._process.exitcode}. {_advice(self.name)}"
            ) from error
        if kind is None:
            return reply
        if kind in _OURS:
            raise _OURS[kind](reply)
        raise RuntimeError(f"{self.name} failed in {what}:\n{reply}")


def registered(env: str) -> EnvSpec | None:
    """Return the specification of an id, or of `module:id`, if Gymnasium's registry has it already."""
    return gymnasium.registry.get(env.rpartition(":")[2])


def has_display() -> bool:
    """Return True if windows can be opened."""
    return sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ


@contextlib.contextmanager
def _without_script() -> Iterator[None]:
    """Keep a new process from running the current script once more, as `spawn` does."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@contextlib.contextmanager
def without_mujoco_gl() -> Iterator[None]:
    """Hide MUJOCO_GL while a process with TensorFlow imports MuJoCo, which would load the library that it names."""
    hidden = os.environ.pop("MUJOCO_GL", None)
    try:
        yield
    finally:
        os.environ.update({} if hidden is None else {"MUJOCO_GL": hidden})


def draw_without_display() -> None:
    """Let pygame and MuJoCo draw without a display if there is none. Call it before either is imported."""
    if has_display():
        return
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    found = [name for name, library in _MUJOCO_LIBRARIES.items() if ctypes.util.find_library(library)]
    if found:
        os.environ.setdefault("MUJOCO_GL", found[0])


def make_drawn(
    env: str, render_mode: str, env_kwargs: dict[str, Any], wrappers: Sequence[str], max_episode_steps: int | None
) -> gymnasium.Env[Any, Any]:
    """Make the environment that draws. See `DrawnEnv`."""
    found = load_class(env)
    functional = find_functional(found, env_kwargs)
    if functional is not None:
        if not hasattr(functional, "render"):
            raise ValueError(
                f"{env} cannot be seen: an environment written in TensorFlow is drawn by a method render(self, state) of its "
                f"class, which {type(functional).__name__} lacks (docs/compiled-environments.md)."
            )
        seen = wrap_all(wrappers)(make_stepwise(functional, max_episode_steps, "rgb_array"))
        return gymnasium.wrappers.HumanRendering(seen) if render_mode == "human" else seen
    if not isinstance(found, str):
        if isinstance(found, type):  # a function that makes environments has no metadata
            _require_mode(env, render_mode, getattr(found, "metadata", {}).get("render_modes") or [])
        elif "render_mode" not in inspect.signature(found).parameters:
            raise ValueError(f"{env} cannot be seen: the function takes no render_mode, which it has to pass on.")
        single = found(render_mode=render_mode, **env_kwargs)
        limited = single if max_episode_steps is None else gymnasium.wrappers.TimeLimit(single, max_episode_steps)
        return wrap_all(wrappers)(limited)
    spec = find_spec(env)
    if spec.entry_point is None:
        raise ValueError(f"{env} cannot be seen: it makes vector environments only.")

    def create() -> gymnasium.Env[Any, Any]:
        cls = _creator(spec)
        if hasattr(cls, "metadata"):  # a function that makes environments has no metadata
            _require_mode(env, render_mode, cls.metadata.get("render_modes") or [])
        return gymnasium.make(spec, render_mode=render_mode, max_episode_steps=max_episode_steps, **env_kwargs)

    return wrap_all(wrappers)(explain_missing(spec, create))


def _creator(spec: EnvSpec) -> Any:
    """Return the class or function that makes the environments of a specification."""
    point = spec.entry_point
    return gymnasium.envs.registration.load_env_creator(point) if isinstance(point, str) else point


def can_be_seen(env: Any) -> bool:
    """Return True if `rlgrad watch` finds an environment again and it says that it draws itself.

    Args:
        env: as a run's config has it.
    """
    place = env if isinstance(env, str) else registry.place_of(env)
    if place is None:
        return False
    try:
        cls = registry.envs()[place].load() if place in registry.envs() else load_class(place)
        cls = _creator(find_spec(cls)) if isinstance(cls, str) else cls
    except (ValueError, ImportError, gymnasium.error.Error):
        return False
    if isinstance(cls, type) and issubclass(cls, FuncEnv):
        return hasattr(cls, "render")
    return bool(getattr(cls, "metadata", {"render_modes": ["rgb_array"]}).get("render_modes"))


def _require_mode(env: str, mode: str, modes: Sequence[str]) -> None:
    if mode not in modes:
        raise ValueError(
            f"{env} cannot be seen: its metadata['render_modes'] are {list(modes)}, and {mode!r} is needed. An environment of "
            "your own draws in its render(), and takes render_mode as an argument."
        )


def _serve(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other process, which closes the pipe
    draw_without_display()
    env: Any = None
    reply: Any
    while True:
        try:
            what, arguments = pipe.recv()
        except (EOFError, ConnectionError):
            break
        try:
            if what == "make":
                known, *asked = arguments
                if known is not None:  # a script registered it in the other process only
                    gymnasium.registry.setdefault(known.id, known)
                env = make_drawn(*asked)
                reply = float(env.metadata.get("render_fps") or RATE)
            else:
                reply = _ANSWERS[what](env, *arguments)
        except Exception as error:
            if what == "make" and type(error) not in _OURS.values():
                pipe.send(("ValueError", f"{arguments[1]} cannot be made: {type(error).__name__}: {error}"))
            elif what in ("make", "render", "call"):
                pipe.send((type(error).__name__, str(error)))
            else:
                pipe.send(("error", traceback.format_exc()))
        else:
            pipe.send((None, reply))
    if env is not None:
        env.close()


def _drawn(env: Any) -> Picture:
    name = env.spec.id if env.spec else str(env)
    try:
        picture = env.render()
    except Exception as error:  # packages that cannot draw raise errors of any kind
        raise ValueError(
            f"{name} cannot draw itself here: {type(error).__name__}: {error}. {_advice(name)}".strip()
        ) from error
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"render() of {name} gives an array (height, width, 3), got "
            f"{getattr(picture, 'shape', type(picture).__name__)}."
        )
    return picture.astype(np.uint8, copy=False)


def _call(env: Any, *call: Any) -> None:
    _, wrong = reach(env, *call)
    if wrong is not None:
        raise ValueError(wrong)


_ANSWERS: dict[str, Callable[..., Any]] = {
    "reset": lambda env, seed: env.reset(seed=seed),
    "step": lambda env, action: env.step(action),
    "render": _drawn,
    "call": _call,
}


def _advice(name: str) -> str:
    spec = registered(name)
    if spec is None or "mujoco" not in str(spec.entry_point) or has_display():
        return ""
    return (
        "Without a display MuJoCo draws by EGL (Debian: apt-get install libegl1 libgl1-mesa-dri) or, with MUJOCO_GL=osmesa, by "
        "OSMesa (libosmesa6)."
    )
