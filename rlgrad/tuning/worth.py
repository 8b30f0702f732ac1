"""The value of a trial: the mean return of fresh episodes, at the last weights of a run for each seed."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rlgrad.callbacks import Callback, RunView
from rlgrad.config import Config
from rlgrad.runs.training import continue_config, run_config
from rlgrad.search import with_values
from rlgrad.tuning.studies import Measure

_LOOKS = 10  # at each run, while it trains

Tell = Callable[[int, float], bool]
"""Take the number of a look and the return that was met there, and return True if the trial is to end."""


class Ended(NamedTuple):
    """How a trial ended: with a value; with an error; or, with neither, pruned."""

    number: int
    value: float | None
    error: Exception | None


def worth(config: Config, values: Mapping[str, Any], measure: Measure, runs: Path, tell: Tell) -> float | None:
    """Return the mean return over the seeds. `None`: the trial was pruned.

    Runs that were begun in the trial's folder, by a process that was killed, are continued there.

    Args:
        config: of the study.
        values: of the hyper-parameters that are searched.
        measure: seeds and episodes.
        runs: the trial's folder.
        tell: is told the returns meanwhile.

    Raises:
        FloatingPointError: a run diverged.
        ValueError: the values contradict each other.
    """
    config = with_values(config, {"evaluation_episodes": 0, **values})
    means = []
    for i in range(measure.seeds):
        seed, watch = config.seed + i, Watch(tell, i * _LOOKS)
        own, folder = dataclasses.replace(config, seed=seed), runs / f"seed{seed}"
        if (folder / "config.yaml").is_file():
            run = continue_config(own, folder, callbacks=[watch])
        else:
            run = run_config(own, run_dir=folder, callbacks=[watch], verbose=False, command="rlgrad tune")
        try:
            if watch.pruned:
                return None
            means.append(run.evaluate(measure.episodes, greedy=measure.greedy).mean_return)
        finally:
            run.close()
    mean = statistics.fmean(means)
    if not math.isfinite(mean):
        raise FloatingPointError(f"The mean return is {mean}.")
    return mean


class Watch(Callback):
    """Tells a run's returns, and stops the run if it is pruned."""

    only_looks = True  # and so leaves the weights alone

    def __init__(self, tell: Tell, offset: int) -> None:
        self.tell, self.offset, self.told, self.pruned = tell, offset, 0, False

    def on_update(self, run: RunView, metrics: dict[str, float]) -> None:
        """Tell the return of the last episodes, at each tenth of the run."""
        look, value = _LOOKS * run.timesteps // run.config.total_timesteps, metrics["train/return"]
        if look in (self.told, _LOOKS) or not math.isfinite(value):
            return
        self.told = look
        if self.tell(self.offset + look, value):
            self.pruned = run.stop = True

    def state(self) -> dict[str, Any]:
        """Return the last look, and whether the run was pruned."""
        return {"told": self.told, "pruned": self.pruned}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.told, self.pruned = int(state["told"]), bool(state["pruned"])
