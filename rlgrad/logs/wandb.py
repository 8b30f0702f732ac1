"""Weights & Biases, with its own environment variables: WANDB_MODE=offline, WANDB_PROJECT, WANDB_ENTITY and the others."""

import math
import os
import secrets

from rlgrad.callbacks import Callback, RunView
from rlgrad.core import plain_files, rows, settings


class WandbLog(Callback):
    """Rows against environment steps, and the run's config. W&B's files are in the run's folder."""

    only_looks = True
    package = "wandb"  # brought by the extra of this name

    def on_start(self, run: RunView) -> None:
        """Begin a W&B run, or resume the one whose id is in the folder."""
        import wandb

        file = run.path / "wandb-run-id.txt"
        if not file.exists():
            rows.replace(file, secrets.token_hex(4))
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "rlgrad"),
                name=run.path.name,
                id=plain_files.read_bytes(file, plain_files.KIB).decode(),
                resume="allow",
                dir=str(run.path),
                config=settings.read(run.path / "config.yaml"),
            )
        except wandb.Error as error:
            raise ConnectionError(
                f"Weights & Biases cannot start: {error} WANDB_MODE=offline needs no account."
            ) from error

    def on_update(self, run: RunView, metrics: dict[str, float]) -> None:
        """Hand over a row. W&B drops one whose step it already has."""
        self._run.log({name: value for name, value in metrics.items() if math.isfinite(value)}, step=run.timesteps)

    def on_end(self, run: RunView) -> None:
        """Finish the W&B run, as failed if training did not reach its end."""
        self._run.finish(exit_code=0 if run.finished or run.stop else 1)
