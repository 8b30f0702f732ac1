"""A run's folder: where it may be, and the files that say what the run is."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from rlgrad import config as configs
from rlgrad.config import Config
from rlgrad.core import keras_configs, plain_files, yaml_documents
from rlgrad.runs import checkpoints
from rlgrad.runs.trust import remember

_log = logging.getLogger("rlgrad")


def write_config(path: Path, config: Config, resolved: Mapping[str, Any], models: Mapping[str, keras.Model]) -> None:
    """Write config.yaml, which makes the folder a run, and before it the models that were given, as Keras describes them.

    Args:
        path: the run's folder.
        config: of the run.
        resolved: what was decided by rule: device, XLA, how environments are stepped, ….
        models: the models that were given, by name: `"model"`, `"value_model"`.
    """
    for name, model in models.items():
        try:
            checkpoints.write_text(path / f"{name}.json", model.to_json(indent=2))
        except (NotImplementedError, TypeError, ValueError):
            _log.warning("Keras cannot write the config of this %s: rlgrad.load will need it as an argument.", name)
    written = configs.to_yaml(config, resolved)
    checkpoints.write_text(path / "config.yaml", written)
    remember(path, yaml_documents.load(written))


def saved_model(path: Path, name: str) -> Callable[[], keras.Model] | None:
    """Return a function that builds the model that a run was given. `None`: it was given none, or Keras could not describe it.

    Args:
        path: the run's folder.
        name: `"model"` or `"value_model"`.
    """
    file = path / f"{name}.json"
    if not os.path.lexists(file):
        return None

    def build() -> keras.Model:
        content = plain_files.read_json(file)
        try:
            keras_configs.require_plain(content)
            return keras.models.model_from_json(json.dumps(content))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            reason = str(error).split(" Full object config")[0]
            raise ValueError(
                f"Keras cannot rebuild this run's {name} from its config: pass it as {name}= (command line: use "
                f"rlgrad.load in Python). {reason}"
            ) from error

    return build


def free_folder(config: Config, run_dir: str | Path | None) -> Path:
    """Return a folder that holds no run yet.

    Raises:
        FileExistsError: `run_dir` exists and is not empty.
    """
    if run_dir is not None:
        path = Path(run_dir)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise FileExistsError(
                f"{path} exists and is not empty; a run never writes over another. Choose a new folder."
            )
        return path
    safe = config.env_name.replace("/", "_").replace(":", "_")
    stem = f"{safe}-{type(config.agent).__name__.lower()}-seed{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, count = Path("runs") / stem, 1
    while path.exists():
        count += 1
        path = Path("runs") / f"{stem}-{count}"
    return path
