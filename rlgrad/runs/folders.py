"""A run's folder: where it may be, and the files that say what the run is."""

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import yaml

from rlgrad import config as configs
from rlgrad.config import Config
from rlgrad.core import keras_configs, plain_files, settings, yaml_documents
from rlgrad.core.checks import path_of
from rlgrad.runs import checkpoints
from rlgrad.runs.locking import BEFORE_CONFIG, locked
from rlgrad.runs.trust import remember

_log = logging.getLogger("rlgrad")


def write_config(path: Path, config: Config, resolved: Mapping[str, Any], models: Mapping[str, keras.Model]) -> None:
    """Write config.yaml, which makes the folder a run, and before it the models that were given, as Keras describes them.

    Args:
        path: the run's folder.
        config: of the run.
        resolved: what was decided by rule: device, XLA, how environments are stepped, ….
        models: the models that were given, by name: `"model"`, `"value_model"`, `"critic_model"`.
    """
    for name, model in models.items():
        try:
            checkpoints.write_text(path / f"{name}.json", model.to_json(indent=2))
        except (NotImplementedError, TypeError, ValueError):
            _log.warning("Keras cannot write the config of this %s: rlgrad.load will need it as an argument.", name)
    written = configs.to_yaml(config, {"resolved": dict(resolved)})
    checkpoints.write_text(path / "config.yaml", written)
    remember(path, yaml_documents.load(written))


def require_written(config: Config) -> None:
    """Raise a ValueError, before anything is written, for settings that config.yaml cannot hold."""
    try:
        configs.to_yaml(config, {})
    except yaml.YAMLError as error:
        thing = type(error.args[-1]).__name__
        raise ValueError(
            "A run's settings are numbers, texts, lists and mappings, which config.yaml can hold, and one of them holds a "
            f"{thing}. Give what an environment is made with in a function instead of env_kwargs: env=lambda: MyEnv(table)."
        ) from error


PLACES = frozenset({"workers", "ray_address", "worker_timeout"})
"""Settings that say where a run computes. No number depends on them, so that a run may continue elsewhere."""


def changes(before: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Return the earlier values, by name, of the settings that a config has other values of."""
    now = dict(config.flat)
    if str(before.get("env")).startswith("("):  # it was given as an object then, and is given as one now
        now["env"] = before["env"]
    return {name: value for name, value in before.items() if name in now.keys() - PLACES and now[name] != value}


def write_continued(path: Path, config: Config, timesteps: int, before: Mapping[str, Any]) -> None:
    """Write the settings that a run is continued with into its config.yaml, if it had others.

    The earlier values go under `changed`, with the environment step up to which they held.

    Args:
        path: the run's folder.
        config: with which the run is continued.
        timesteps: environment steps taken so far.
        before: the settings so far, by `Config.flat`.
    """
    changed = changes(before, config)
    if changed:
        file = path / "config.yaml"
        content = settings.read(file, follow=False)
        notes = {name: content[name] for name in configs.NOTES if name in content}
        notes["changed"] = [*notes.get("changed", []), {"timesteps": timesteps, "before": changed}]
        written = configs.to_yaml(config, notes)
        checkpoints.write_text(file, written)
        remember(path, yaml_documents.load(written))


def saved_model(path: Path, name: str) -> Callable[[], keras.Model] | None:
    """Return a function that builds the model that a run was given. `None`: it was given none, or Keras could not describe it.

    Args:
        path: the run's folder.
        name: `"model"`, `"value_model"` or `"critic_model"`.
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


def remove_unbegun(path: Path) -> None:
    """Remove a folder in which a run failed before its config.yaml was written, so that it is in nobody's way."""
    if path.is_dir() and {each.name for each in path.iterdir()} <= BEFORE_CONFIG:
        for left in sorted(path.rglob("*"), reverse=True):
            left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()
        path.rmdir()


def folder_name(config: Config) -> str:
    """Return the environment's name as a folder's, which a shell takes without quotes."""
    return re.sub(r"[^\w.-]+", "_", config.env_name).strip("_")[-100:]


def free_folder(config: Config, run_dir: str | Path | None) -> Path:
    """Return a folder that holds no run yet.

    A training that was killed before it wrote its config.yaml has made no run: its folder is free, and what it left is removed.

    Raises:
        FileExistsError: `run_dir` exists and is not empty, or another process trains there.
    """
    if run_dir is not None:
        path = path_of(run_dir, "run_dir")
        if path.is_dir() and {each.name for each in path.iterdir()} <= BEFORE_CONFIG:
            with locked(path):
                for left in [*path.glob("checkpoints/*"), *(path / name for name in BEFORE_CONFIG)]:
                    if left.is_file():
                        left.unlink()
        if path.exists() and (not path.is_dir() or {each.name for each in path.iterdir()} - {"checkpoints"}):
            raise FileExistsError(
                f"{path} exists and is not empty; a run never writes over another. Choose a new folder."
            )
        return path
    name, when = type(config.agent).__name__.lower(), time.strftime("%Y%m%d-%H%M%S")
    stem = f"{folder_name(config)}-{name}-seed{config.seed}-{when}"
    path, count = Path("runs") / stem, 1
    while path.exists():
        count += 1
        path = Path("runs") / f"{stem}-{count}"
    return path
