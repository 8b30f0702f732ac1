"""Seeing a policy play: one environment that draws, its episodes, and the films they are kept in."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from rlgrad.config import Config
from rlgrad.policies.policy import Policy
from rlgrad.rollouts.drawing import DrawnEnv, Picture
from rlgrad.rollouts.masks import observed
from rlgrad.rollouts.trees import arrays

FILMS = (".mp4", ".gif")
_GIF_RATE = 25.0  # what every viewer of GIFs keeps up with


class Drawn(Protocol):
    """One environment that draws. See `rlgrad.rollouts.drawing.DrawnEnv`."""

    name: str
    rate: float

    def reset(self, *, seed: int) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        ...

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One transition."""
        ...

    def render(self) -> Picture:
        """The picture of now, uint8 (height, width, 3)."""
        ...

    def close(self) -> None:
        """Nothing is drawn any more."""
        ...


class Episode(NamedTuple):
    """One that was seen.

    Attributes:
        steps: its length.
        total: its return, undiscounted.
        cut: whether it was left before its end, at `max_steps`.
    """

    steps: int
    total: float
    cut: bool


def drawn(
    config: Config,
    render_mode: Literal["human", "rgb_array"],
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[str] | None = None,
) -> DrawnEnv:
    """One environment of a run, that draws itself.

    Args:
        config: the run's.
        render_mode: into a window, or as arrays.
        env_kwargs: besides the run's.
        wrappers: none: the run's.

    Raises:
        ValueError: it cannot draw itself, or cannot be made from the config; says what is missing.
    """
    if not isinstance(config.env, str):
        raise ValueError(
            "This run's environment was given as an object: there is no id to make another from that draws."
        )
    return DrawnEnv(
        config.env,
        render_mode,
        env_kwargs={**config.env_kwargs, **(env_kwargs or {})},
        wrappers=config.wrappers if wrappers is None else wrappers,
        max_episode_steps=config.max_episode_steps,
    )


def play(
    policy: Policy,
    env: Drawn,
    *,
    episodes: int = 1,
    greedy: bool = True,
    seed: int = 0,
    max_steps: int | None = None,
    on_picture: Callable[[Picture], None] | None = None,
) -> list[Episode]:
    """Play whole episodes.

    Args:
        policy: acts.
        env: as `drawn` makes it.
        episodes: how many; the k-th is reset with `seed + k`.
        greedy: take the most likely action, instead of a sample.
        seed: of the first episode.
        max_steps: leave an episode that is longer.
        on_picture: is given each picture, uint8 (height, width, 3), the last one of an episode included; none: nothing is
            drawn but what the environment draws by itself.

    Returns:
        What was seen.

    Raises:
        ValueError: the observations are not those that the policy was trained on, or drawing fails; says what is missing.
    """
    _check_observations(policy, env)
    return [_episode(policy, env, greedy, seed + k, max_steps, on_picture) for k in range(episodes)]


@contextlib.contextmanager
def film(path: Path, rate: float) -> Iterator[Callable[[Picture], None]]:
    """A file that takes one picture after the other.

    Args:
        path: ends in .mp4 or .gif.
        rate: pictures a second. A GIF leaves some out, where there are more than its viewers keep up with.

    Raises:
        ValueError: another ending, or a folder that is not there.
        ImportError: what writes MP4 is not installed; says how to.
    """
    check_film(path)
    with (_mp4 if path.suffix.lower() == ".mp4" else gif)(path, rate) as write:
        yield write


@contextlib.contextmanager
def gif(file: Path | BinaryIO, rate: float, most_pixels: int | None = None) -> Iterator[Callable[[Picture], None]]:
    """An animated GIF that takes one picture after the other, and is written at the end.

    Args:
        file: to write into.
        rate: pictures a second. Some are left out, where there are more than viewers keep up with.
        most_pixels: along either side; larger ones are made smaller. None: they stay as they are.
    """
    from PIL import Image

    every, images, count = max(1, round(rate / _GIF_RATE)), [], 0

    def write(picture: Picture) -> None:
        nonlocal count
        if count % every == 0:
            image = Image.fromarray(picture)
            image.thumbnail((most_pixels or image.width, most_pixels or image.height))
            images.append(image.quantize(64))
        count += 1

    yield write
    if images:
        images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=1000.0 * every / rate, loop=0)


def check_film(path: Path) -> None:
    """Raise what `film` would, before anything is played for it."""
    if path.suffix.lower() not in FILMS:
        raise ValueError(f"A film's name ends in {' or '.join(FILMS)}, got {str(path)!r}.")
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {str(path.parent)!r} to write {path.name} into.")
    if path.suffix.lower() == ".mp4":
        _ffmpeg()


def _check_observations(policy: Policy, env: Drawn) -> None:
    # A vector environment that was trained on may wrap its observations where a single one does not.
    observation, info = env.reset(seed=0)
    given = [np.shape(leaf) for _, leaf in arrays(observed(policy.masked, observation, info), "")]
    expected = [tuple(spec.shape[1:]) for spec in tf.nest.flatten(policy.observation_spec)]
    if given != expected:
        raise ValueError(
            f"The policy was trained on observations of shape {_listed(expected)}, and {env.name} made by itself gives "
            f"{_listed(given)}: name the wrappers and arguments with which it gives the same (--wrappers, --env-kwargs)."
        )


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))


def _episode(
    policy: Policy,
    env: Drawn,
    greedy: bool,
    seed: int,
    max_steps: int | None,
    on_picture: Callable[[Picture], None] | None,
) -> Episode:
    observation, info = env.reset(seed=seed)
    act, total, steps, over = policy.player(greedy=greedy), 0.0, 0, False
    while not over and steps != max_steps:
        if on_picture is not None:
            on_picture(env.render())
        action = act(observed(policy.masked, observation, info))
        observation, reward, terminated, truncated, info = env.step(action)
        total, steps, over = total + float(reward), steps + 1, terminated or truncated
    if on_picture is not None:
        on_picture(env.render())
    return Episode(steps, total, not over)


def _ffmpeg() -> Any:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ImportError(
            "MP4 is written by imageio-ffmpeg: pip install 'rlgrad[video]'. A GIF needs nothing."
        ) from error
    return imageio_ffmpeg


@contextlib.contextmanager
def _mp4(path: Path, rate: float) -> Iterator[Callable[[Picture], None]]:
    writer: Any = None

    def write(picture: Picture) -> None:
        nonlocal writer
        height, width, _ = picture.shape
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")  # as players of H.264 want it
        if writer is None:
            size = (even.shape[1], even.shape[0])
            writer = _ffmpeg().write_frames(str(path), size, fps=rate, macro_block_size=1, ffmpeg_log_level="error")
            writer.send(None)
        writer.send(np.ascontiguousarray(even))

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
