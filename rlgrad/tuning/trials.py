"""Tuning: many short trainings with other hyper-parameters, of which the best becomes a config.

A trial trains the config with values that Optuna suggests, once for each seed; its value is the mean return of fresh episodes
at its last weights. The first trial is the config as it is. A trial that falls behind the others while it trains is pruned, and
so is one that diverges or whose values contradict each other.

A study lives in a folder: `study.db` (SQLite), `trials/` with the run of each trial and seed, and `best.yaml`, a config. After
a kill, calling `tune` again continues the study: a trial that was running counts as failed, and its values are tried again.
"""

import contextlib
import gc
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlgrad.config import Config
from rlgrad.core.checks import require
from rlgrad.core.plain_files import require_plain
from rlgrad.distributed.mailbox import Told
from rlgrad.search import Range, Space, value_at
from rlgrad.tuning import studies
from rlgrad.tuning.remote_trials import RemoteTrials
from rlgrad.tuning.studies import AS_GIVEN, FOLDER, REASON, Measure, Pruner, Study, Trial
from rlgrad.tuning.worth import Ended, worth

if TYPE_CHECKING:
    import optuna


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
    workers: int | None = None,
    ray_address: str | None = None,
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
        workers: trials at a time, each in a process of its own, with Ray. `None`: one after the other, in this process.
        ray_address: of the head of the Ray cluster that runs them, or `"auto"`. `None`: they run on this machine.

    Returns:
        The study, with best.yaml written.

    Raises:
        ImportError: Optuna is not installed, or Ray for workers.
        ValueError: the config lacks a name that is searched, cannot be trained, or the study was begun with other settings.
    """
    require(trials >= 1, "trials", "at least 1", trials)
    space, measure, folder = declared(config) if space is None else dict(space), measure or Measure(), Path(folder)
    require(bool(space), "space", "at least one name", space)
    for name in space:
        value_at(config, name)
    if workers is None and ray_address is not None:
        raise ValueError("ray_address says where trials run side by side, and none do: set workers, or leave it out.")
    studies.import_optuna()
    folder.mkdir(parents=True, exist_ok=True)
    require_plain(folder)
    begun = time.monotonic()

    def has_room(study: "optuna.Study", running: int) -> bool:
        return studies.ended(study) + running < trials and (timeout is None or time.monotonic() - begun < timeout)

    with studies.alone(folder):
        study = studies.opened(folder, storage, pruner)
        studies.begin(study, config, space, measure)
        studies.retry_killed(study, str(folder.resolve()), own=storage is None)
        place = _TrialsHere(config, measure) if workers is None else RemoteTrials(config, measure, workers, ray_address)
        with contextlib.closing(place):
            for trial in _ended(study, place, config, space, folder, lambda running: has_room(study, running)):
                found = studies.found(study, config, space, folder)
                studies.write_best(found, config, measure)
                if report is not None:
                    report(next(each for each in found.trials if each.number == trial.number), found)
        found = studies.found(study, config, space, folder)
        studies.write_best(found, config, measure)  # a kill may have come between a trial and its writing
    return found


def declared(config: Config) -> dict[str, Any]:
    """Return the search space of the config's agent, by dotted names of the config."""
    return {f"agent.{name}": what for name, what in config.agent.search_space().items()}


class _TrialsHere:
    """Trials one after the other, in this process. `RemoteTrials` has the same methods.

    Args:
        config: of the study.
        measure: how the value of a trial is measured.
    """

    most = 1

    def __init__(self, config: Config, measure: Measure) -> None:
        self._config, self._measure, self._begun = config, measure, deque[tuple[int, Mapping[str, Any], Path]]()

    def begin(self, number: int, values: Mapping[str, Any], runs: Path) -> None:
        """Take a trial that `wait` trains."""
        self._begun.append((number, values, runs))

    def wait(self, tell: Callable[[Told], bool]) -> Ended:
        """Train the trial, and return how it ended."""
        number, values, runs = self._begun.popleft()
        try:
            value = worth(
                self._config, values, self._measure, runs, lambda look, x: tell(Told(number, look, x, os.getpid()))
            )
        except Exception as error:
            return Ended(number, None, error)
        finally:
            gc.collect()  # compiled programs and the policies that they belong to hold on to each other
        return Ended(number, value, None)

    def close(self) -> None:
        """Do nothing."""


def _ended(
    study: "optuna.Study",
    place: _TrialsHere | RemoteTrials,
    config: Config,
    space: Space,
    folder: Path,
    has_room: Callable[[int], bool],
) -> Iterator["optuna.Trial"]:
    """Run trials, and yield each when it has ended and the study was told.

    Args:
        study: suggests values.
        place: where trials run.
        config: of the study.
        space: what is searched.
        folder: of the study.
        has_room: takes the number of trials that run, and returns True if another one may begin.
    """
    running: dict[int, tuple[optuna.Trial, set[int]]] = {}  # with the looks that were told
    while True:
        while len(running) < place.most and has_room(len(running)):
            trial = _next(study, config.seed, place.most)
            trial.set_user_attr(FOLDER, str(folder.resolve()))
            running[trial.number] = trial, set()
            as_given = trial.user_attrs.get(AS_GIVEN, False)
            values = {} if as_given else {name: _suggested(trial, name, what) for name, what in space.items()}
            place.begin(trial.number, values, folder / "trials" / f"{trial.number:04}")
        if not running:
            return
        ended = place.wait(lambda told: _report(told, *running[told.number]))
        trial, _ = running.pop(ended.number)
        _conclude(study, trial, ended)
        yield trial


def _next(study: "optuna.Study", seed: int, at_once: int) -> "optuna.Trial":
    """Ask for the next trial, with a sampler seeded by its number: one seeded by process would repeat its suggestions.

    Of several at once, those that run count as bad ones, so that the next is not like them.
    """
    number = len(study.get_trials(deepcopy=False))
    state = np.random.SeedSequence([seed, number]).generate_state(1)
    study.sampler = studies.import_optuna().samplers.TPESampler(seed=int(state[0]), constant_liar=at_once > 1)
    return study.ask()


def _report(told: Told, trial: "optuna.Trial", looks: set[int]) -> bool:
    """Report a return to the study, and return True if the trial is to end. One that is continued may tell it again."""
    if told.look not in looks:
        looks.add(told.look)
        trial.report(told.value, told.look)
    ends: bool = trial.should_prune()
    return ends


def _conclude(study: "optuna.Study", trial: "optuna.Trial", ended: Ended) -> None:
    """Tell the study how a trial ended. Raise the errors that end the study, too."""
    states, error = studies.import_optuna().trial.TrialState, ended.error
    if error is not None:
        # If the config's own values contradict each other, no other trial could do better.
        of_values = isinstance(error, FloatingPointError | ValueError)
        if not of_values or (trial.user_attrs.get(AS_GIVEN, False) and isinstance(error, ValueError)):
            study.tell(trial, state=states.FAIL)
            raise error
        trial.set_user_attr(REASON, str(error))
    if ended.value is None:
        study.tell(trial, state=states.PRUNED)
    else:
        study.tell(trial, ended.value)


def _suggested(trial: "optuna.Trial", name: str, what: Any) -> Any:
    if not isinstance(what, Range):
        return studies.chosen(what, trial.suggest_categorical(name, [studies.stored(choice) for choice in what]))
    if type(what.low) is int and type(what.high) is int:
        return trial.suggest_int(name, what.low, what.high, log=what.log)
    return trial.suggest_float(name, what.low, what.high, log=what.log)
