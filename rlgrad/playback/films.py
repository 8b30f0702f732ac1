"""Films: pictures, one after the other, as MP4 or GIF."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rlgrad.environments.drawing import Picture

FILMS = (".mp4", ".gif")


_GIF_RATE = 25.0  # what every viewer of GIFs keeps up with


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
