"""Run folders as the command line is given them."""

from pathlib import Path
from typing import TYPE_CHECKING

from rlgrad.cli.quiet import import_tensorflow

if TYPE_CHECKING:
    from rlgrad.run import Run


def load_run(path: Path) -> "Run":
    """A run that is there, after TensorFlow's quiet import."""
    check_run(path)
    import_tensorflow()
    from rlgrad.training import load

    return load(path)


def check_run(path: Path) -> None:
    """A missing run is said at once, not after TensorFlow's import."""
    if not (path / "config.yaml").is_file():
        near = sorted(p.parent for p in (path.parent if path.parent.is_dir() else Path()).glob("*/config.yaml"))[-3:]
        hint = f" There: {', '.join(map(str, near))}." if near else ""
        raise ValueError(f"{path} is no run folder: it has no config.yaml.{hint}")
