"""A run's folder: where it may be, and what says what the run is."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from rlgrad import config as configs
from rlgrad.config import Config
from rlgrad.policies.build import ModelOrBuilder
from rlgrad.runs import checkpoints

if TYPE_CHECKING:
    from rlgrad.runs.run import Run

_log = logging.getLogger("rlgrad")


def write_config(run: "Run", model: ModelOrBuilder | None, value_model: ModelOrBuilder | None) -> None:
    """Write what a run is: the models that were given, as Keras describes them, and config.yaml, by which the folder is one."""
    network = run.policy.network
    resolved = {
        "vectorization_mode": run.collector.vectorization_mode,
        "actor": run.policy.acts_in if run.collector.fusible is None else "compiled",
        "xla": run.learner.xla,
        "device": run.device,
        "trained_outputs": list(run.learner.credited),
        "weights": int(sum(v.value.shape.num_elements() for v in run.learner.variables)),
    }
    networks = {"model": (model, network), "value_model": (value_model, run.policy.value_network)}
    for name, built in ((name, built) for name, (given, built) in networks.items() if given is not None):
        try:
            checkpoints.write_text(run.path / f"{name}.json", built.to_json(indent=2))
        except (NotImplementedError, TypeError, ValueError):
            _log.warning("Keras cannot write the config of this %s: rlgrad.load will need it as an argument.", name)
    checkpoints.write_text(run.path / "config.yaml", configs.to_yaml(run.config, resolved))


def saved_model(path: Path, name: str) -> Callable[[], keras.Model] | None:
    """Builds the model that a run was given, if it was given one and Keras could describe it.

    Args:
        path: the run's folder.
        name: `"model"` or `"value_model"`.
    """
    file = path / f"{name}.json"
    if not file.exists():
        return None

    def build() -> keras.Model:
        try:
            return keras.models.model_from_json(file.read_text())
        except (TypeError, ValueError) as error:
            reason = str(error).split(" Full object config")[0]
            raise ValueError(
                f"Keras cannot rebuild this run's {name} from its config: pass it as {name}= (command line: use "
                f"rlgrad.load in Python). {reason}"
            ) from error

    return build


def free_folder(config: Config, run_dir: str | Path | None) -> Path:
    """A folder that holds no run yet."""
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
