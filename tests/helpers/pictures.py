"""Turns the picture that each training ends with off and on."""

import contextlib

from rlgrad.runs import playable

_PLOT_RUNS = playable.plot_runs


def draw(wanted):
    """Let runs draw their learning curve, or write none."""
    playable.plot_runs = _PLOT_RUNS if wanted else lambda folders, path: path


@contextlib.contextmanager
def drawn():
    """Let runs draw their learning curve inside the block."""
    draw(True)
    try:
        yield
    finally:
        draw(False)
