"""Studies: the state of tuning in its folder, which survives a kill."""

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import yaml

from rlgrad import config as configs
from rlgrad.config import Config
from rlgrad.core.checks import require
from rlgrad.core.settings import flat
from rlgrad.runs import checkpoints
from rlgrad.runs.trust import remember
from rlgrad.search import Range, Space, value_at, with_values

if TYPE_CHECKING:
    import optuna

Pruner: TypeAlias = Literal["median", "halving", "none"]
"""What stops a trial that falls behind."""
AS_GIVEN, FOLDER, REASON = "as_given", "folder", "reason"  # what the trials in the storage carry


@dataclass(frozen=True)
class Trial:
    """A set of hyper-parameter values that was tried.

    Attributes:
        number: counted from 0.
        state: `"complete"`, `"pruned"`, or `"failed"` if it was killed or raised.
        value: mean return of the episodes that measured a complete trial. `None`: the trial is not complete.
        values: of the hyper-parameters that were searched, by dotted name.
        as_given: True if these are the config's own values.
        reason: why it was pruned, if not for falling behind the others.
    """

    number: int
    state: str
    value: float | None
    values: Mapping[str, Any]
    as_given: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class Study:
    """The trials of a study.

    Attributes:
        folder: of the study.
        trials: the trials that have ended, in their order.
    """

    folder: Path
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The complete trial of the highest value. `None`: no trial is complete."""
        return next(iter(self.ranked()), None)

    @property
    def as_given(self) -> Trial | None:
        """The trial of the config's own values. `None`: it is not complete."""
        return next((trial for trial in self.ranked() if trial.as_given), None)

    @property
    def config(self) -> Path | None:
        """Path of best.yaml. `None`: no trial is complete."""
        return None if self.best is None else self.folder / "best.yaml"

    def ranked(self) -> list[Trial]:
        """Return the complete trials, the highest value first."""
        worth = [(trial.value, trial) for trial in self.trials if trial.value is not None]
        return [trial for _, trial in sorted(worth, key=lambda pair: -pair[0])]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """The value of a trial: the mean over `seeds` runs of the mean return of `episodes` fresh episodes."""

    seeds: int = 1
    """Runs of each trial, with the config's seed and those after it."""
    episodes: int = 30
    """Fresh episodes of each run, at its last weights."""
    greedy: bool = False
    """Play the most likely actions, instead of sampled ones."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        require(self.seeds >= 1, "seeds", "at least 1", self.seeds)
        require(self.episodes >= 1, "episodes", "at least 1", self.episodes)


def import_optuna() -> Any:
    """Import Optuna, and keep it from printing a line for each trial.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(f"Tuning needs Optuna: pip install 'rlgrad[tune]' ({error}).") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a study's folder until the process ends. A trial that still counts as running at the next lock was killed."""
    with contextlib.closing(sqlite3.connect(folder / "lock", timeout=0.0, isolation_level=None)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise ValueError(f"Somebody is tuning in {folder} already: wait, or choose another study.") from error
        yield


def opened(folder: Path, storage: str | None, pruner: Pruner) -> "optuna.Study":
    """Open the study of a folder's name, or create it."""
    pruners = import_optuna().pruners
    kinds = {
        "median": pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
        "halving": pruners.SuccessiveHalvingPruner(),
        "none": pruners.NopPruner(),
    }
    require(pruner in kinds, "pruner", "median, halving or none", pruner)
    url = storage or f"sqlite:///{(folder / 'study.db').resolve()}"
    return import_optuna().create_study(
        study_name=folder.name, storage=url, load_if_exists=True, direction="maximize", pruner=kinds[pruner]
    )


def begin(study: "optuna.Study", config: Config, space: Space, measure: Measure) -> None:
    """Store the settings of a new study, and queue the config's own values as its first trial.

    Raises:
        ValueError: the study was begun with other settings.
    """
    plain = yaml.safe_load(configs.to_yaml(config, {}))
    spaces = {name: dataclasses.asdict(what) if isinstance(what, Range) else what for name, what in space.items()}
    asked = json.loads(json.dumps({"config": plain, "space": spaces, "measure": dataclasses.asdict(measure)}))
    states = import_optuna().trial.TrialState
    if not ended(study):
        study.set_user_attr("asked", asked)
        begun = study.get_trials(deepcopy=False, states=(states.WAITING, states.RUNNING))
        if not any(trial.user_attrs.get(AS_GIVEN) for trial in begun):
            study.enqueue_trial({}, user_attrs={AS_GIVEN: True})
        return
    now, then = flat(asked), flat(study.user_attrs["asked"])
    for name in now | then:
        if now.get(name) != then.get(name):
            raise ValueError(
                f"The study {study.study_name!r} was begun with {name} = {then.get(name)!r}, and now it is {now.get(name)!r}: "
                "its trials could not be compared. Choose another study."
            )


def retry_killed(study: "optuna.Study", here: str, own: bool) -> None:
    """Mark trials of this folder that are still running as failed, since no other process works here, and queue their values.

    Args:
        study: its folder's lock is held.
        here: the folder.
        own: True if no other folder has trials in this storage.
    """
    states = import_optuna().trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        if trial.user_attrs.get(FOLDER, here if own else None) == here:
            study.enqueue_trial(trial.params, user_attrs={AS_GIVEN: trial.user_attrs.get(AS_GIVEN, False)})
            study.tell(trial.number, state=states.FAIL)


def ended(study: "optuna.Study") -> int:
    """Return the number of complete and pruned trials."""
    states = import_optuna().trial.TrialState
    return len(study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED)))


def found(study: "optuna.Study", config: Config, space: Space, folder: Path) -> Study:
    """Return the trials that have ended, with values as the config has them."""
    states = import_optuna().trial.TrialState
    names = {states.COMPLETE: "complete", states.PRUNED: "pruned", states.FAIL: "failed"}
    own = {name: value_at(config, name) for name in space}
    trials = []
    for trial in study.get_trials(deepcopy=False, states=tuple(names)):
        as_given = bool(trial.user_attrs.get(AS_GIVEN))
        value = trial.value if trial.state == states.COMPLETE else None
        values = own if as_given else {name: chosen(space[name], given) for name, given in trial.params.items()}
        trials.append(Trial(trial.number, names[trial.state], value, values, as_given, trial.user_attrs.get(REASON)))
    return Study(folder, tuple(trials))


def stored(choice: Any) -> Any:
    """Return a choice as Optuna can store it: lists as text."""
    return choice if choice is None or isinstance(choice, bool | int | float | str) else json.dumps(choice)


def chosen(what: Range | Any, given: Any) -> Any:
    """Return the choice of a space's entry that was stored as `value`."""
    return given if isinstance(what, Range) else next(choice for choice in what if stored(choice) == given)


def write_best(found: Study, config: Config, measure: Measure) -> None:
    """Write best.yaml, a config for `rlgrad train`, if a trial is complete."""
    best = found.best
    if best is None:
        return
    kind, seeds = (
        "greedy" if measure.greedy else "sampled",
        "a seed" if measure.seeds == 1 else f"{measure.seeds} seeds",
    )
    head = (
        f"# Trial {best.number} of the study {found.folder.name}, the best of {len(found.ranked())}: {kind} return "
        f"{best.value:.1f} over {measure.episodes} episodes of {seeds}.\n"
    )
    notes = {"resolved": {"study": found.folder.name, "trial": best.number}}
    content = configs.to_yaml(with_values(config, best.values), notes)
    checkpoints.write_text(found.folder / "best.yaml", head + content)
    remember(found.folder / "best.yaml", yaml.safe_load(content))
