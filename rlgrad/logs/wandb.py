"""Weights & Biases. Its own settings hold: WANDB_MODE=offline, WANDB_PROJECT, WANDB_ENTITY and the others."""

import math
import os
import secrets
from typing import TYPE_CHECKING

from rlgrad.callbacks import Callback
from rlgrad.core import settings
from rlgrad.logs import files, require_installed

if TYPE_CHECKING:
    from rlgrad.runs.run import Run


class WandbLog(Callback):
    """Rows against environment steps, with the config of the run. Its files are in the run's folder."""

    only_looks = True

    def on_start(self, run: "Run") -> None:
        """Begin, or go on with the same run, whose id the folder keeps."""
        require_installed("wandb")
        import wandb

        file = run.path / "wandb-run-id.txt"
        if not file.exists():
            files.replace(file, secrets.token_hex(4))
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "rlgrad"),
                name=run.path.name,
                id=file.read_text(),
                resume="allow",
                dir=str(run.path),
                config=settings.read(run.path / "config.yaml"),
            )
        except wandb.Error as error:
            raise ConnectionError(
                f"Weights & Biases cannot begin: {error} WANDB_MODE=offline needs no account."
            ) from error

    def on_update(self, run: "Run", metrics: dict[str, float]) -> None:
        """Hand over a row. One of steps that W&B has already is dropped by W&B, which only ever goes forward."""
        self._run.log({name: value for name, value in metrics.items() if math.isfinite(value)}, step=run.timesteps)

    def on_end(self, run: "Run") -> None:
        """Finish; as failed if training did not come to its end."""
        self._run.finish(exit_code=0 if run.finished or run.stop else 1)
