"""Where the rows of a run go: one file for each destination. See docs/logs.md.

metrics.csv is always written: it is what `rlgrad plot`, `inspect` and `compare` read.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlgrad.callbacks import Callback
    from rlgrad.config import Config

LOGS = {
    "csv": "rlgrad.logs.csv:CSVLog",
    "jsonl": "rlgrad.logs.jsonl:JSONLinesLog",
    "tensorboard": "rlgrad.logs.tensorboard:TensorBoardLog",
    "wandb": "rlgrad.logs.wandb:WandbLog",
    "mlflow": "rlgrad.logs.mlflow:MLflowLog",
}
_EXTRAS = ("wandb", "mlflow")  # each brought by the extra, and imported under the name, that it is chosen by


def make_logs(config: "Config") -> "list[Callback]":
    """The logs that a config chooses, metrics.csv among them whether named or not."""
    names = ["csv", *(name for name in LOGS if name in config.logs and name != "csv")]
    options: dict[str, dict[str, Any]] = {"tensorboard": {"histograms": config.histograms, "videos": config.videos}}
    return [_class(name)(**options.get(name, {})) for name in names]


def require_possible(config: "Config") -> None:
    """Refuse, before anything is written, what could not be logged.

    Raises:
        ImportError: a log needs a package that is not installed; names the command that installs it.
        ValueError: videos of an environment that cannot be drawn.
    """
    for name in (name for name in _EXTRAS if name in config.logs):
        require_installed(name)
    if config.videos:
        from rlgrad.logs import videos

        videos.drawable(config).close()


def require_installed(package: str) -> None:
    """Refuse a log whose package is missing.

    Raises:
        ImportError: it is; names the command that installs it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:  # a folder of that name, which wandb leaves behind, has no origin
        raise ImportError(f"logs has {package!r}, which is not installed: pip install 'rlgrad[{package}]'.")


def _class(name: str) -> Any:
    module, cls = LOGS[name].split(":")
    return getattr(importlib.import_module(module), cls)
