"""Tuning: many short trainings with other hyper-parameters, of which the best becomes a config.

A trial trains the config with values that Optuna suggests, once for each seed; its value is the mean return of fresh episodes
at its last weights. The first trial is the config as it is. A trial that falls behind the others while it trains is pruned, and
so is one that diverges or whose values contradict each other.

A study lives in a folder: `study.db` (SQLite), `trials/` with the run of each trial and seed, and `best.yaml`, a config. After
a kill, calling `tune` again continues the study: a trial that was running counts as failed, and its values are tried again.
"""

import dataclasses
import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlgrad.callbacks import RunView
from rlgrad.config import Config
from rlgrad.core.checks import require
from rlgrad.core.plain_files import require_plain
from rlgrad.runs.training import Callback, run_config
from rlgrad.search import Range, Space, value_at, with_values
from rlgrad.tuning import studies
from rlgrad.tuning.studies import AS_GIVEN, FOLDER, REASON, Measure, Pruner, Study, Trial

if TYPE_CHECKING:
    import optuna

_LOOKS = 10  # at each run, while it trains


def tune(
    config: Config,
    folder: str | Path,
    *,
    trials: int = 50,
    space: Space | None = None,
    measure: Measure | None = None,
    pruner: Pruner = "median",
    storage: str | None = None,
    timeout: float | None = None,
    report: Callable[[Trial, Study], None] | None = None,
) -> Study:
    """Search for better hyper-parameters. The same call continues a study that was stopped.

    Args:
        config: every trial changes it. Its `total_timesteps` are those of one run; its seed decides the suggestions.
        folder: of the study; its name is the study's.
        trials: number of complete and pruned trials, those of earlier calls included.
        space: by dotted names of the config, such as `"agent.gamma"`. `None`: the space that the agent declares.
        measure: how the value of a trial is measured. `None`: one seed, the default episodes.
        pruner: stop a trial whose returns in training are below the median of the others at the same point, or by successive
            halving, or never.
        storage: an SQLAlchemy URL. `None`: an SQLite file in the folder.
        timeout: seconds after which no further trial begins. `None`: no limit.
        report: called with each trial that has ended, and the study so far.

    Returns:
        The study, with best.yaml written.

    Raises:
        ImportError: Optuna is not installed.
        ValueError: the config lacks a name that is searched, cannot be trained, or the study was begun with other settings.
    """
    require(trials >= 1, "trials", "at least 1", trials)
    space, measure, folder = declared(config) if space is None else dict(space), measure or Measure(), Path(folder)
    require(bool(space), "space", "at least one name", space)
    for name in space:
        value_at(config, name)
    studies.import_optuna()
    folder.mkdir(parents=True, exist_ok=True)
    require_plain(folder)
    here, begun = str(folder.resolve()), time.monotonic()
    with studies.alone(folder):
        study = studies.opened(folder, storage, pruner)
        studies.begin(study, config, space, measure)
        studies.retry_killed(study, here, own=storage is None)
        while studies.ended(study) < trials and (timeout is None or time.monotonic() - begun < timeout):
            trial = _next(study, config.seed)
            trial.set_user_attr(FOLDER, here)
            _run(study, trial, config, space, measure, folder / "trials" / f"{trial.number:04}")
            found = studies.found(study, config, space, folder)
            studies.write_best(found, config, measure)
            if report is not None:
                report(next(each for each in found.trials if each.number == trial.number), found)
            gc.collect()  # compiled programs and the policies that they belong to hold on to each other
        found = studies.found(study, config, space, folder)
        studies.write_best(found, config, measure)  # a kill may have come between a trial and its writing
    return found


def declared(config: Config) -> dict[str, Any]:
    """Return the search space of the config's agent, by dotted names of the config."""
    return {f"agent.{name}": what for name, what in config.agent.search_space().items()}


def _next(study: "optuna.Study", seed: int) -> "optuna.Trial":
    """Ask for the next trial, with a sampler seeded by its number: one seeded by process would repeat its suggestions."""
    number = len(study.get_trials(deepcopy=False))
    state = np.random.SeedSequence([seed, number]).generate_state(1)
    study.sampler = studies.import_optuna().samplers.TPESampler(seed=int(state[0]))
    return study.ask()


def _run(
    study: "optuna.Study", trial: "optuna.Trial", config: Config, space: Space, measure: Measure, runs: Path
) -> None:
    """Train a trial's runs, and tell the study how it ended."""
    states = studies.import_optuna().trial.TrialState
    as_given, value = trial.user_attrs.get(AS_GIVEN, False), None
    values = {} if as_given else {name: _suggested(trial, name, what) for name, what in space.items()}
    try:
        value = _value(trial, config, values, measure, runs)
    except (FloatingPointError, ValueError) as error:
        if as_given and isinstance(error, ValueError):  # then no other trial could do better
            study.tell(trial, state=states.FAIL)
            raise
        trial.set_user_attr(REASON, str(error))
    except Exception:
        study.tell(trial, state=states.FAIL)
        raise
    if value is None:
        study.tell(trial, state=states.PRUNED)
    else:
        study.tell(trial, value)


def _suggested(trial: "optuna.Trial", name: str, what: Any) -> Any:
    if not isinstance(what, Range):
        return studies.chosen(what, trial.suggest_categorical(name, [studies.stored(choice) for choice in what]))
    if type(what.low) is int and type(what.high) is int:
        return trial.suggest_int(name, what.low, what.high, log=what.log)
    return trial.suggest_float(name, what.low, what.high, log=what.log)


def _value(
    trial: "optuna.Trial", config: Config, values: Mapping[str, Any], measure: Measure, runs: Path
) -> float | None:
    """Return the mean return over the seeds. `None`: the trial was pruned."""
    config = with_values(config, {"evaluation_episodes": 0, **values})
    means = []
    for i in range(measure.seeds):
        seed, watch = config.seed + i, _Watch(trial, i * _LOOKS)
        run = run_config(
            dataclasses.replace(config, seed=seed),
            run_dir=runs / f"seed{seed}",
            callbacks=[watch],
            verbose=False,
            command="rlgrad tune",
        )
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


class _Watch(Callback):
    """Reports a run's returns to the study, and stops the run if the study prunes it."""

    only_looks = True  # and so leaves the weights alone

    def __init__(self, trial: "optuna.Trial", offset: int) -> None:
        self.trial, self.offset, self.told, self.pruned = trial, offset, 0, False

    def on_update(self, run: RunView, metrics: dict[str, float]) -> None:
        """Report the return of the last episodes, at each tenth of the run."""
        look, value = _LOOKS * run.timesteps // run.config.total_timesteps, metrics["train/return"]
        if look in (self.told, _LOOKS) or not math.isfinite(value):
            return
        self.told = look
        self.trial.report(value, self.offset + look)
        if self.trial.should_prune():
            self.pruned = run.stop = True
