"""Films: pictures, one after the other, as MP4 or GIF."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rlgrad.environments.drawing import Picture

FILMS = (".mp4", ".gif")
_GIF_RATE = 25.0  # pictures a second that every viewer of GIFs shows


@contextlib.contextmanager
def film(path: Path, rate: float) -> Iterator[Callable[[Picture], None]]:
    """Write a film; the context is a function that takes the next picture.

    Args:
        path: of the film; ends in .mp4 or .gif.
        rate: pictures a second. A GIF leaves pictures out if its viewers could not show them all.

    Raises:
        ValueError: `path` ends otherwise, or its folder does not exist.
        ImportError: the package that writes MP4 is not installed; says how to install it.
    """
    check_film(path)
    with (_mp4 if path.suffix.lower() == ".mp4" else gif)(path, rate) as write:
        yield write


@contextlib.contextmanager
def gif(file: Path | BinaryIO, rate: float, most_pixels: int | None = None) -> Iterator[Callable[[Picture], None]]:
    """Write an animated GIF, at the end of the context; the context is a function that takes the next picture.

    Args:
        file: a path, or a binary file that is open for writing.
        rate: pictures a second. Pictures are left out if viewers could not show them all.
        most_pixels: along either side; larger pictures are made smaller. `None`: they keep their size.
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
    """Raise the errors of `film`, before an episode is played for it."""
    if path.suffix.lower() not in FILMS:
        raise ValueError(f"A film's name ends in {' or '.join(FILMS)}, got {str(path)!r}.")
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {str(path.parent)!r} to write {path.name} into.")
    if path.suffix.lower() == ".mp4":
        _ffmpeg()


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
