"""Destinations of a run's rows: one file for each that ships, and those of other packages and files. See docs/logs.md.

metrics.csv is always written: `rlgrad plot`, `inspect` and `compare` read it.
"""

import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rlgrad.callbacks import Callback, RunSettings, RunView
from rlgrad.core import registry
from rlgrad.core.checks import check_keys

LOGS = ("csv", "jsonl", "tensorboard", "wandb", "mlflow")
"""The logs that ship. Like those of other packages they are entry points of the group `rlgrad.logs`."""
_EXAMPLE = "my_logs.py:MyLog(url='http://localhost')"


class LogSettings(RunSettings, Protocol):
    """The part of a run's config that chooses its logs."""

    @property
    def logs(self) -> Sequence[str]:
        """Names of logs, or their places, `module:Class` and `file.py:Class`, each alone or with keyword arguments."""

    @property
    def histograms(self) -> bool:
        """TensorBoard shows how the weights are distributed."""

    @property
    def videos(self) -> int:
        """Greedy episodes that TensorBoard shows."""


def make_logs(settings: LogSettings, *, postpone: Mapping[str, str] | None = None) -> list[Callback]:
    """Make the logs that a config names, after metrics.csv, which is written whether named or not.

    Args:
        settings: the config.
        postpone: raise the errors below when training starts, and those of the logs that this maps to a message. A run whose
            log is missing here can still be loaded and used. `None`: raise them now.

    Raises:
        ValueError: a name that is unknown, or a log that cannot be made with these arguments; says what was meant.
        ImportError: a log needs a package that is not installed; names the command that installs it.
    """
    own = {"tensorboard": {"histograms": settings.histograms, "videos": settings.videos}}
    logs: list[Callback] = []
    for text in dict.fromkeys(["csv", *settings.logs]):
        try:
            logs.append(_made(text, own.get(text, {}), (postpone or {}).get(text)))
        except (ImportError, ValueError) as error:
            if postpone is None:
                raise
            logs.append(_Postponed(error))
    return logs


def log_class(text: str) -> type[Callback]:
    """Return the class of a log.

    Args:
        text: a name such as `csv`, or a place: `module:Class` or `file.py:Class`.

    Raises:
        ValueError: there is no such log; says what was meant.
    """
    return _parsed(text)[0]


def require_possible(settings: LogSettings) -> None:
    """Refuse videos of an environment that cannot be drawn, before anything is written.

    Raises:
        ValueError: the environment cannot be drawn.
    """
    if settings.videos:
        from rlgrad.logs import videos

        videos.drawable(settings).close()


class _Postponed(Callback):
    """Stands for a log that cannot be made here, and raises the reason when training starts."""

    only_looks = True

    def __init__(self, error: Exception) -> None:
        self._error = error

    def on_start(self, run: RunView) -> None:
        raise self._error


def _made(text: str, settings: Mapping[str, Any], withheld: str | None = None) -> Callback:
    cls, options = _parsed(text)
    package = getattr(cls, "package", None)
    if package is not None:
        _require_installed(package)
    if withheld is not None:
        raise ValueError(withheld)
    takes = inspect.signature(cls).parameters.values()
    if not any(each.kind is each.VAR_KEYWORD for each in takes):
        check_keys(options, [each.name for each in takes], f"argument of the log {cls.__name__}")
    missing = [
        each.name
        for each in takes
        if each.default is each.empty
        and each.name not in options
        and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    if missing:
        raise ValueError(f"The log {text!r} needs {', '.join(missing)}, written such as {_EXAMPLE}.")
    return cls(**{**options, **settings})


def _parsed(text: str) -> tuple[type[Callback], dict[str, Any]]:
    place, name, options = registry.parse_call(text, "logs", _EXAMPLE)
    try:
        found = registry.find("rlgrad.logs", f"{place}:{name}" if place else name)
    except ValueError as error:
        raise ValueError(f"logs: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Callback)):
        raise ValueError(f"logs: {text!r} is no subclass of rlgrad.Callback.")
    if name in LOGS and not place and options:
        raise ValueError(
            f"logs: {name} takes no arguments, got {text!r}. Histograms and videos are settings of the run."
        )
    return found, options


def _require_installed(package: str) -> None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:  # a folder of that name, which wandb leaves behind, has no origin
        raise ImportError(f"logs has {package!r}, which is not installed: pip install 'rlgrad[{package}]'.")
