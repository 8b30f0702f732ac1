"""Trials as Ray tasks, many at a time, each in a process of its own. The study stays in the process that asks for them.

A task tells its returns by a mailbox, an actor, and waits there for the study's answer, whether to go on. So no other process
opens the study's database, which may then be an SQLite file on a disk that several machines share. The run folders of trials
are on such a disk too: a trial whose process dies is continued there by another one.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium

from rlgrad.config import Config
from rlgrad.core.checks import require
from rlgrad.distributed.cluster import connect, cpus_per_worker, describe_room, disconnect, import_ray, result
from rlgrad.distributed.mailbox import Mailbox, Told
from rlgrad.environments.ids import find_spec
from rlgrad.tuning.studies import Measure
from rlgrad.tuning.worth import Ended, worth

_log = logging.getLogger("rlgrad")
_MOST_DEATHS = 5  # of one trial
_PATIENCE = 60.0  # seconds without a sign of any trial after which a line says what is free


class RemoteTrials:
    """Trials that run side by side.

    Args:
        config: of the study. Its trials step their environments themselves, and learn alone.
        measure: how the value of a trial is measured.
        most: trials at a time.
        address: of the cluster's head, or `"auto"`. `None`: Ray is started on this machine.

    Raises:
        ValueError: the config asks for workers or learners of each trial.
        ImportError: Ray is not installed; the message has the command.
    """

    def __init__(self, config: Config, measure: Measure, most: int, address: str | None) -> None:
        require(most >= 1, "workers", "at least 1", most)
        if config.uses_ray:
            raise ValueError(
                "workers of a study are trials side by side, and the config asks for workers or learners of each of them: "
                "leave one of the two out."
            )
        self._ray, self.most = import_ray(), most
        self._connected = connect(address, most, 0)
        here = self._ray.get_runtime_context().get_node_id()
        near = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        self._mailbox = self._ray.remote(num_cpus=0, scheduling_strategy=near)(Mailbox).remote()
        self._task = self._ray.remote(
            num_cpus=cpus_per_worker(), max_retries=0, max_calls=1, scheduling_strategy="SPREAD"
        )(play)
        spec = find_spec(config.env) if isinstance(config.env, str) else None
        self._common = cloudpickle.dumps((config, measure, spec))
        self._letter = self._mailbox.next.remote()
        self._calls: dict[Any, int] = {}  # numbers of the trials that run, by their tasks
        self._arguments: dict[int, Any] = {}
        self._deaths: dict[int, int] = {}

    def begin(self, number: int, values: Mapping[str, Any], runs: Path) -> None:
        """Begin a trial.

        Args:
            number: of the trial.
            values: of the hyper-parameters that are searched.
            runs: its folder, which all machines have.
        """
        self._arguments[number], self._deaths[number] = (number, dict(values), str(runs.resolve())), 0
        self._send(number)

    def wait(self, tell: Callable[[Told], bool]) -> Ended:
        """Return how the next trial ends.

        Args:
            tell: takes what trials tell meanwhile, and returns True if one is to end.
        """
        while True:
            done, _ = self._ray.wait([self._letter, *self._calls], num_returns=1, timeout=_PATIENCE)
            if not done:
                _log.info("No trial has told anything for %g s; %s.", _PATIENCE, describe_room(self._ray))
            elif done[0] == self._letter:
                told: Told = self._ray.get(self._letter)
                self._letter = self._mailbox.next.remote()
                if told.number in self._arguments:
                    self._mailbox.answer.remote(told.number, tell(told))
            elif (ended := self._end(done[0])) is not None:
                return ended

    def close(self) -> None:
        """End the trials that run, and Ray if this has started it."""
        for call in self._calls:
            self._ray.cancel(call, force=True)
        self._ray.kill(self._mailbox)
        if self._connected:
            disconnect()

    def _send(self, number: int) -> None:
        self._calls[self._task.remote(self._common, sys.path, self._mailbox, *self._arguments[number])] = number

    def _end(self, call: Any) -> Ended | None:
        """Return how a task ended; `None` if its process was lost, and it was begun again."""
        number, error = self._calls.pop(call), None
        try:
            found = result(call)
        except Exception as raised:
            found, error = (None,), raised
        if found is None:
            self._deaths[number] += 1
            if self._deaths[number] < _MOST_DEATHS:
                _log.warning("The process of trial %d was lost: another one continues its runs.", number)
                self._send(number)
                return None
            found, error = (None,), _lost(number)
        del self._arguments[number]
        return Ended(number, found[0], error)


def play(common: bytes, path: list[str], mailbox: Any, number: int, values: Mapping[str, Any], runs: str) -> Any:
    """Train and measure a trial, in a process of its own. Return its value in a tuple; `None` in it: the trial was pruned."""
    sys.path += [place for place in path if place not in sys.path and Path(place).is_dir()]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    ray = import_ray()
    logging.getLogger("rlgrad").setLevel(logging.WARNING)
    config, measure, spec = cloudpickle.loads(common)
    if spec is not None:
        gymnasium.registry.setdefault(spec.id, spec)

    def tell(look: int, value: float) -> bool:
        ends: bool = ray.get(mailbox.tell.remote(Told(number, look, value, os.getpid())))
        return ends

    return (worth(config, values, measure, Path(runs), tell),)


def _lost(number: int) -> Exception:
    return RuntimeError(
        f"The process of trial {number} was lost {_MOST_DEATHS} times: its environment may end it, or its run take more memory "
        "than its machine has."
    )
